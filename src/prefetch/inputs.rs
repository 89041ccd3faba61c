//! Reading what the arguments name: lock files and crate lists.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::closure::Dependencies;
use super::crate_list::{CrateListError, parse_crate_list};
use super::crate_spec::CrateSpec;
use super::lockfile::{LockfileError, OwnSources, parse_lockfile};
use super::plan::Wanted;

/// Larger files are something else: the lock file of a very large workspace has one megabyte.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What a directory's lock file is called.
const LOCKFILE_NAME: &str = "Cargo.lock";

/// The path that stands for standard input.
const STANDARD_INPUT: &str = "-";

/// Which files the arguments name, still unread.
#[derive(Clone, Debug)]
pub(crate) struct Inputs {
    /// Lock files, or directories that have one.
    pub(crate) lockfiles: Vec<PathBuf>,
    /// Crate lists; `-` is standard input.
    pub(crate) lists: Vec<PathBuf>,
    /// The crates of the command line.
    pub(crate) crates: Vec<CrateSpec>,
    /// Which dependencies of the crates are followed.
    pub(crate) dependencies: Dependencies,
    /// How lock files name the registry that this mirror shows.
    pub(crate) own: OwnSources,
}

/// An input that is no good. Each is one line that names the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputError {
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no lock file.
    #[error("{}: {why}", path.display())]
    Lockfile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        why: LockfileError,
    },
    /// It is no crate list.
    #[error("{}: {why}", path.display())]
    CrateList {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        why: CrateListError,
    },
}

impl Inputs {
    /// Reads every file. Blocking.
    pub(crate) fn read(self) -> Result<Wanted, InputError> {
        let mut locked = Vec::new();
        for path in self.lockfiles {
            let path = lockfile_at(path);
            let text = read_text(&path)?;
            let packages = parse_lockfile(&text, &self.own);
            locked.extend(packages.map_err(|why| InputError::Lockfile { path, why })?);
        }
        let mut crates = self.crates;
        for path in self.lists {
            let text = read_text(&path)?;
            let specs = parse_crate_list(&text);
            crates.extend(specs.map_err(|why| InputError::CrateList { path, why })?);
        }
        Ok(Wanted {
            locked,
            crates,
            dependencies: self.dependencies,
        })
    }
}

/// People name the directory of a project as readily as its lock file.
fn lockfile_at(path: PathBuf) -> PathBuf {
    if path.is_dir() {
        path.join(LOCKFILE_NAME)
    } else {
        path
    }
}

fn read_text(path: &Path) -> Result<String, InputError> {
    let read = if path == Path::new(STANDARD_INPUT) {
        read_all(io::stdin().lock())
    } else {
        File::open(path).and_then(read_all)
    };
    read.map_err(|source| InputError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn read_all(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    let read = from.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(io::Error::other("it is too large"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(lockfiles: &[&Path], lists: &[&Path]) -> Inputs {
        let owned = |paths: &[&Path]| paths.iter().map(|path| path.to_path_buf()).collect();
        Inputs {
            lockfiles: owned(lockfiles),
            lists: owned(lists),
            crates: vec!["anyhow".parse().unwrap()],
            dependencies: Dependencies::ToBuild,
            own: OwnSources::default(),
        }
    }

    #[test]
    fn all_inputs_are_put_together_and_a_directory_means_its_lock_file() {
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let lockfile = project.join("Cargo.lock");
        let directory = tempfile::tempdir().unwrap();
        let list = directory.path().join("list");
        std::fs::write(&list, "serde # all of us\ntokio@1\n").unwrap();
        let wanted = inputs(&[project, &lockfile], &[&list]).read().unwrap();
        let crates: Vec<String> = wanted.crates.iter().map(ToString::to_string).collect();
        assert_eq!(crates, ["anyhow", "serde", "tokio@^1"]);
        let (once, twice) = wanted.locked.split_at(wanted.locked.len() / 2);
        assert!(!once.is_empty() && once == twice);
    }

    #[test]
    fn a_bad_input_is_one_line_that_names_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let bad = directory.path().join("bad");
        std::fs::write(&bad, "not a crate, and no TOML").unwrap();
        let absent = directory.path().join("absent");
        for inputs in [
            inputs(&[&bad], &[]),
            inputs(&[], &[&bad]),
            inputs(&[&absent], &[]),
            inputs(&[], &[&absent]),
            inputs(&[directory.path()], &[]),
        ] {
            let error = inputs.read().unwrap_err().to_string();
            let path = directory.path().to_str().unwrap();
            assert!(error.contains(path), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
