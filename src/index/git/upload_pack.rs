//! The git index on offer: a repository on disk, and git's own `upload-pack` to answer from it.
//!
//! libgit2 has no server side, so each request is answered by a `git` child. What does not live here: HTTP, and how many
//! children there may be at a time.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::index::ids::{CommitId, ObjectId};
use crate::index::source::clone_dir;
use crate::index::source::repository::Repository;

/// How much of what a child complains of is kept.
const STDERR_BYTES_MAX: u64 = 1_024;

/// Settings of every child, so that none takes more than its share of a small machine: one thread, and little memory for
/// deltas (almost all are taken from disk as they are).
const CHILD_SETTINGS: [&str; 7] = [
    "pack.threads=1",
    "pack.windowMemory=32m",
    "pack.deltaCacheSize=16m",
    "core.deltaBaseCacheLimit=32m",
    "gc.auto=0",
    // No file of the repository may name a program. Its configuration is written by us (`disarm`).
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
];

/// Lets git work on this repository whoever owns it: a container may map users differently. That is safe for this one,
/// whose configuration is ours (`disarm`).
pub(crate) fn trust(command: &mut Command, repository: &Path) {
    let mut setting = OsString::from("safe.directory=");
    setting.push(repository);
    command.arg("-c").arg(setting);
}

/// The `git` program of this machine, if there is one.
#[derive(Clone, Debug)]
pub(crate) struct GitProgram {
    search_path: OsString,
}

impl GitProgram {
    /// The `git` that is found in the directories of this search path (`PATH`).
    pub(crate) fn new(search_path: OsString) -> Self {
        Self { search_path }
    }

    /// A call of git that gets nothing of the mirror's environment, in which there are secrets, but the search path.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", &self.search_path)
            .env("LC_ALL", "C");
        configure(&mut command, &CHILD_SETTINGS);
        command
    }
}

/// Settings of git, for one call.
pub(crate) fn configure(command: &mut Command, settings: &[&str]) {
    for setting in settings {
        command.args(["-c", setting]);
    }
}

/// One state of the git index. The directory that it lies in stays for as long as this is held.
#[derive(Debug)]
pub(crate) struct GitIndex {
    commit: CommitId,
    /// The commit that clients get.
    tip: ObjectId,
    /// Keeps the clone, whose objects are borrowed.
    _repository: Arc<Repository>,
    /// Without symlinks: git compares it to what it finds.
    path: PathBuf,
    program: GitProgram,
}

/// A version of git's protocol, as clients ask for it: `version=2`, perhaps with more such pairs behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GitProtocol(String);

impl GitProtocol {
    /// Reads the header `Git-Protocol`. Anything else than what git sends is as good as no header.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let digit = parts.next()?.strip_prefix("version=")?;
        let is_digit = digit.len() == 1 && digit.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = |part: &str| {
            part.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'-' | b'.'))
        };
        (is_digit && text.len() <= 64 && parts.all(is_plain)).then(|| Self(text.to_owned()))
    }
}

/// What a client wants of the git index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GitRequest {
    /// The list of references, or of what the server can do.
    Advertisement,
    /// An answer to what the client sends.
    Exchange,
}

impl GitIndex {
    /// Blocking.
    pub(crate) fn new(
        commit: CommitId,
        tip: ObjectId,
        repository: Arc<Repository>,
        program: GitProgram,
    ) -> Self {
        let path = clone_dir::git_index_path(repository.path());
        Self {
            commit,
            tip,
            path: path.canonicalize().unwrap_or(path),
            _repository: repository,
            program,
        }
    }

    /// The upstream commit that this shows.
    pub(crate) fn commit(&self) -> CommitId {
        self.commit
    }

    /// The commit that clients get.
    pub(crate) fn tip(&self) -> ObjectId {
        self.tip
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Starts a child that answers a client.
    ///
    /// # Errors
    /// `NotFound` if there is no `git` program.
    pub(crate) fn answer(
        self: &Arc<Self>,
        request: GitRequest,
        protocol: Option<&GitProtocol>,
    ) -> io::Result<GitChild> {
        let mut command = self.program.command();
        // Nobody's settings count here but ours.
        command
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        trust(&mut command, self.path());
        command.args(["upload-pack", "--strict", "--stateless-rpc"]);
        if request == GitRequest::Advertisement {
            command.arg("--advertise-refs");
        }
        command.arg(self.path());
        if let Some(GitProtocol(version)) = protocol {
            command.env("GIT_PROTOCOL", version);
        }
        GitChild::start(command, Arc::clone(self))
    }
}

/// A running `git upload-pack`; it and its own children are killed when this is dropped.
#[derive(Debug)]
pub(crate) struct GitChild {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    /// The objects are borrowed from the clone, which must stay.
    index: Arc<GitIndex>,
}

impl GitChild {
    fn start(mut command: Command, index: Arc<GitIndex>) -> io::Result<Self> {
        let mut child = command
            // A group of its own: `upload-pack` has children, which must end with it.
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let missing = || io::Error::other("a pipe to git is missing");
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().ok_or_else(missing)?,
            stderr: child.stderr.take(),
            child,
            index,
        })
    }

    /// The upstream commit that the answer is made from.
    pub(crate) fn commit(&self) -> CommitId {
        self.index.commit()
    }

    /// Where to write what the client sends. Dropping it tells the child that this was all.
    pub(crate) fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.stdin.take()
    }

    /// Waits for the end of a child whose answer has ended; with what it complained of, shortened.
    pub(crate) async fn finish(&mut self) -> io::Result<(ExitStatus, String)> {
        let mut complaint = Vec::new();
        if let Some(stderr) = self.stderr.take() {
            stderr
                .take(STDERR_BYTES_MAX)
                .read_to_end(&mut complaint)
                .await?;
        }
        let status = self.child.wait().await?;
        Ok((
            status,
            String::from_utf8_lossy(&complaint).trim().to_owned(),
        ))
    }
}

/// The answer.
impl AsyncRead for GitChild {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(context, buffer)
    }
}

impl Drop for GitChild {
    fn drop(&mut self) {
        kill_group(&self.child);
    }
}

/// Kills a child and all that it has started, unless its end was noticed already.
pub(crate) fn kill_group(child: &Child) {
    let group = child
        .id()
        .and_then(|id| i32::try_from(id).ok())
        .and_then(Pid::from_raw);
    if let Some(group) = group {
        // It may just have ended: then there is nobody left.
        let _gone = kill_process_group(group, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_git_sends_is_a_protocol() {
        for good in [
            "version=2",
            "version=1",
            "version=2:agent=git",
            "version=0:a",
        ] {
            assert!(GitProtocol::parse(good).is_some(), "{good}");
        }
        let long = format!("version=2:{}", "a".repeat(60));
        for bad in [
            "",
            "2",
            "version=",
            "version=22",
            "version=x",
            "version=2:a b",
            "version=2:$(x)",
            "version=2\n",
            &long,
        ] {
            assert!(GitProtocol::parse(bad).is_none(), "{bad:?}");
        }
    }
}
