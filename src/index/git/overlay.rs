//! The index as git clients get it: the upstream's tree with a `config.json` of our own.
//!
//! It lies in a bare repository inside the clone, which borrows the clone's objects and holds little of its own: for each
//! upstream state a root tree and a commit. A repository of its own, because the clone is shallow, and one that is served
//! as it is makes its clients shallow, too.
//!
//! Each commit has the one before it as its parent. Without that chain git would find nothing in common and send the
//! whole index at every fetch.

use std::path::Path;
use std::{fs, io};

use git2::{Commit, ErrorClass, ErrorCode, Repository, RepositoryInitOptions};

use crate::index::ids::CommitId;
use crate::index::ids::ObjectId;
use crate::index::source::clone_dir::{self, git_index_path, remove_tree};

/// The branch that clients get; crates.io's own index has it, too.
pub(crate) const SERVED_BRANCH: &str = "refs/heads/master";

/// The file whose content is the mirror's own.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// An ordinary file.
const FILE_MODE: i32 = 0o100_644;

/// From `served/objects` to the objects of the clone.
const BORROWED_OBJECTS: &str = "../../objects\n";

/// Why the overlay could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OverlayError {
    #[error("{0}")]
    Git(#[from] git2::Error),
    #[error("{0}")]
    Disk(#[from] io::Error),
}

/// What the served branch shall show.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShownTree {
    /// The upstream commit, for its author, time and message.
    pub(crate) commit: CommitId,
    /// Its tree, or what was made of that.
    pub(crate) tree: ObjectId,
}

/// Makes the served branch show this with `config` as its `config.json`, and returns the branch's
/// commit. Blocking.
pub(crate) fn bring_up_to_date(
    clone: &Path,
    shown: ShownTree,
    config: &str,
) -> Result<ObjectId, OverlayError> {
    match add_commit(clone, shown, config) {
        // Beginning anew costs every client a full download, so a full disk or a want of descriptors is no reason for it.
        Err(error) if is_damaged(&git_index_path(clone)) => {
            tracing::warn!(error = %error, "the git index is damaged and is made anew");
            remove(clone)?;
            add_commit(clone, shown, config)
        }
        other => other,
    }
}

/// Removes the repository that is served, so that the next one begins anew.
pub(crate) fn remove(clone: &Path) -> io::Result<()> {
    remove_tree(&git_index_path(clone))
}

/// Takes away what somebody else may have prepared in the repository that is served, if there is one.
pub(crate) fn disarm(clone: &Path) -> io::Result<()> {
    let served = git_index_path(clone);
    // As a symlink it would be anybody's repository.
    if fs::symlink_metadata(&served).is_ok_and(|found| found.is_symlink()) {
        return fs::remove_file(served);
    }
    if !served.exists() {
        return Ok(());
    }
    clone_dir::disarm(&served)?;
    write_alternates(&served)
}

fn write_alternates(served: &Path) -> io::Result<()> {
    let info = served.join("objects").join("info");
    fs::create_dir_all(&info)?;
    clone_dir::write_atomically(&info, "alternates", BORROWED_OBJECTS.as_bytes())
}

/// Whether the newest state of a repository that is there cannot be read, for another reason than the system's.
fn is_damaged(served: &Path) -> bool {
    let read = || -> Result<(), git2::Error> {
        let served = Repository::open_bare(served)?;
        match current(&served)? {
            Some(tip) => tip.tree().map(drop),
            None => Ok(()),
        }
    };
    served.exists() && read().is_err_and(|error| error.class() != ErrorClass::Os)
}

fn add_commit(clone: &Path, shown: ShownTree, config: &str) -> Result<ObjectId, OverlayError> {
    let served = open_or_create(clone)?;
    let upstream = served.find_commit(shown.commit.0.to_oid()?)?;
    let tree = served.find_tree(shown.tree.to_oid()?)?;
    let config = served.blob(config.as_bytes())?;
    let mut root = served.treebuilder(Some(&tree))?;
    root.insert(CONFIG_FILE, config, FILE_MODE)?;
    let tree = served.find_tree(root.write()?)?;
    let previous = current(&served)?;
    if let Some(previous) = previous
        .as_ref()
        .filter(|previous| previous.tree_id() == tree.id())
    {
        return Ok(previous.id().into());
    }
    // The same names and times on every replica and in every run.
    let commit = served.commit(
        None,
        &upstream.author(),
        &upstream.committer(),
        // Nobody says that it is UTF-8.
        &String::from_utf8_lossy(upstream.message_bytes()),
        &tree,
        &previous.iter().collect::<Vec<_>>(),
    )?;
    served.reference(SERVED_BRANCH, commit, true, "the index has changed")?;
    Ok(commit.into())
}

fn current(served: &Repository) -> Result<Option<Commit<'_>>, git2::Error> {
    match served.find_reference(SERVED_BRANCH) {
        Ok(reference) => reference.peel_to_commit().map(Some),
        Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_or_create(clone: &Path) -> Result<Repository, OverlayError> {
    let path = git_index_path(clone);
    if !path.exists() {
        create(&path)?;
    }
    Ok(Repository::open_bare(path)?)
}

/// Made aside, so that a crash leaves a whole repository or none.
fn create(path: &Path) -> Result<(), OverlayError> {
    let aside = path.with_extension("new");
    remove_tree(&aside)?;
    let mut options = RepositoryInitOptions::new();
    options
        .bare(true)
        .external_template(false)
        .initial_head("master");
    Repository::init_opts(&aside, &options)?;
    clone_dir::disarm(&aside)?;
    write_alternates(&aside)?;
    fs::rename(aside, path)?;
    Ok(())
}
