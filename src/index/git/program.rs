//! The `git` program: how the mirror starts it, and how it ends a child with all that the child has started.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use prometheus_client::metrics::gauge::Gauge;
use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use crate::observability::metrics::CountedOne;

/// The settings of every child. They limit it to its share of a small machine: one thread, and little memory for deltas
/// (almost all deltas are sent as they are on disk).
const CHILD_SETTINGS: [&str; 7] = [
    "pack.threads=1",
    "pack.windowMemory=32m",
    "pack.deltaCacheSize=16m",
    "core.deltaBaseCacheLimit=32m",
    "gc.auto=0",
    // The repository must not name programs. Its configuration file is our own (`disarm`).
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
];

/// Lets git use this repository even if it belongs to another user, because a container may map users differently. That
/// is safe here, because the repository has our own configuration (`disarm`).
pub(super) fn trust(command: &mut Command, repository: &Path) {
    let mut setting = OsString::from("safe.directory=");
    setting.push(repository);
    command.arg("-c").arg(setting);
}

/// The `git` program of this machine.
#[derive(Clone, Debug)]
pub(crate) struct GitProgram {
    search_path: OsString,
    processes: Gauge,
}

impl GitProgram {
    /// Searches `git` in the directories of this search path (`PATH`).
    pub(crate) fn new(search_path: OsString) -> Self {
        Self {
            search_path,
            processes: Gauge::default(),
        }
    }

    /// The same program, whose running processes this counts.
    pub(crate) fn counted_by(self, processes: &Gauge) -> Self {
        Self {
            processes: processes.clone(),
            ..self
        }
    }

    /// Starts a git command in a process group of its own: git starts other programs, and they must end with it.
    pub(super) fn start(&self, command: &mut Command) -> io::Result<Group> {
        Ok(Group {
            child: command.process_group(0).kill_on_drop(true).spawn()?,
            _counted: CountedOne::of(&self.processes),
        })
    }

    /// Where `git` is; just its name if it is nowhere. Searched each time, because an upgrade may move it.
    ///
    /// A command without a path costs more: the standard library would fork this process and copy its page tables, because
    /// the child has another `PATH`.
    fn path(&self) -> PathBuf {
        std::env::split_paths(&self.search_path)
            .map(|directory| directory.join("git"))
            .find(|path| access(path, Access::EXEC_OK).is_ok() && path.is_file())
            .unwrap_or_else(|| PathBuf::from("git"))
    }

    /// Makes a git command. It gets only the search path of the mirror's environment, which contains secrets.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.path());
        command
            .env_clear()
            .env("PATH", &self.search_path)
            .env("LC_ALL", "C");
        configure(&mut command, &CHILD_SETTINGS);
        command
    }
}

/// Adds git settings to a command.
pub(crate) fn configure(command: &mut Command, settings: &[&str]) {
    for setting in settings {
        command.args(["-c", setting]);
    }
}

/// A child and its own children, counted. Dropping this kills all of them.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) child: Child,
    _counted: CountedOne,
}

impl Drop for Group {
    fn drop(&mut self) {
        // There is no id if the child was already waited for.
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        if let Some(group) = id.and_then(Pid::from_raw) {
            // Fails if the child has just ended: then no process is left.
            let _gone = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_is_started_by_its_path_because_forking_a_large_process_costs_much() {
        let directory = tempfile::tempdir().unwrap();
        let (first, second) = (directory.path().join("1"), directory.path().join("2"));
        // A directory of that name is no program.
        std::fs::create_dir_all(first.join("git")).unwrap();
        std::fs::create_dir(&second).unwrap();
        let search_path = std::env::join_paths([&first, &second]).unwrap();
        let program = || GitProgram::new(search_path.clone()).path();
        assert_eq!(program(), PathBuf::from("git"));
        std::os::unix::fs::symlink("/bin/sh", second.join("git")).unwrap();
        assert_eq!(program(), second.join("git"));
    }
}
