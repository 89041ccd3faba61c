//! Makes the commits of the git index: the shown tree with a `config.json` of our own.
//!
//! The git index is a bare repository inside the clone. It borrows the clone's objects, and adds a root tree and a
//! commit for each upstream state. It is a separate repository because the clone is shallow, and the clients of a
//! shallow repository become shallow, too.
//!
//! Each commit has the previous one as its parent. Without that chain git finds no common commit, and sends the whole
//! index at every fetch.
//!
//! Each view has references of its own, in a namespace of git (`gitnamespaces(7)`). A request shows its client the
//! references of its view, even while the next view is being made.

use std::collections::HashSet;
use std::path::Path;
use std::{fs, io};

use git2::{
    Commit, ErrorClass, ErrorCode, FileMode, ObjectType, Repository, RepositoryInitOptions,
};

use crate::index::ids::{CommitId, ObjectId};
use crate::index::limits::WriteError;
use crate::index::source::clone_dir::{self, git_index_path, remove_tree};
use crate::index::source::tree_edit::{EntryChange, edited};

/// The branch that clients get. The index of crates.io has the same branch. Outside the namespaces it names the newest
/// commit, from which the chain goes on.
pub(super) const SERVED_BRANCH: &str = "refs/heads/master";

/// Where git looks for the references of namespaces.
const NAMESPACES: &str = "refs/namespaces/";

/// The file that the mirror replaces.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// The path from `served/objects` to the objects of the clone.
const BORROWED_OBJECTS: &str = "../../objects\n";

/// The tree that the git index shows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShownTree {
    /// The upstream commit. The new commit copies its author, time and message.
    pub(crate) commit: CommitId,
    /// The tree of that commit, or the tree that the rules have made of it.
    pub(crate) tree: ObjectId,
}

/// Makes a commit that shows this tree, with `config` as its `config.json`, and the namespace of that commit. Removes the
/// namespaces of all other commits but `in_use`. Returns the commit. Blocking.
pub(crate) fn bring_up_to_date(
    clone: &Path,
    shown: ShownTree,
    config: &str,
    in_use: &HashSet<ObjectId>,
) -> Result<ObjectId, WriteError> {
    match add_commit(clone, shown, config, in_use) {
        // Only for real damage, and not for a full disk or too many open files: a new git index costs every client a
        // full download.
        Err(error) if is_damaged(&git_index_path(clone)) => {
            tracing::warn!(error = %error, "the git index is damaged; it is made again");
            remove(clone)?;
            add_commit(clone, shown, config, in_use)
        }
        other => other,
    }
}

/// The namespace of a commit of the git index.
pub(super) fn namespace(tip: ObjectId) -> String {
    tip.to_string()
}

/// The reference in the namespace of a commit that a client sees as [`SERVED_BRANCH`].
pub(super) fn branch_of(tip: ObjectId) -> String {
    format!("{NAMESPACES}{}/{SERVED_BRANCH}", namespace(tip))
}

/// Removes the git index. The next commit starts a new one.
pub(crate) fn remove(clone: &Path) -> io::Result<()> {
    remove_tree(&git_index_path(clone))
}

/// Removes dangerous files from the git index, if there is one. An attacker may have prepared the data directory.
pub(crate) fn disarm(clone: &Path) -> io::Result<()> {
    let served = git_index_path(clone);
    // A symlink could point to any repository on this machine.
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

/// Whether there is a git index whose newest commit cannot be read. A refusal of the operating system does not count.
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

fn add_commit(
    clone: &Path,
    shown: ShownTree,
    config: &str,
    in_use: &HashSet<ObjectId>,
) -> Result<ObjectId, WriteError> {
    let served = open_or_create(clone)?;
    let tip = commit(&served, shown, config)?;
    add_namespace(&served, tip)?;
    // Whatever they contain: another program could have left anything there.
    remove_namespaces(&served, |name| {
        name == namespace(tip) || in_use.iter().any(|tip| name == namespace(*tip))
    })?;
    Ok(tip)
}

/// Gives a commit references of its own, if it has none. Writes the files itself, because libgit2 would lock and flush each.
/// A crash can leave them incomplete. No view shows the commit then, and the next call writes them again.
fn add_namespace(served: &Repository, tip: ObjectId) -> Result<(), WriteError> {
    let namespace = format!("{NAMESPACES}{}", namespace(tip));
    let (head, tip_id) = (format!("{namespace}/HEAD"), tip.to_oid()?);
    // Most fetches bring nothing new, and then nothing is written.
    if served.refname_to_id(&head).is_ok_and(|id| id == tip_id) {
        return Ok(());
    }
    let directory = served.path().join(namespace);
    // What is there is incomplete, or somebody has prepared it: a symlink could lead to any file.
    remove_tree(&directory)?;
    fs::create_dir_all(directory.join("refs/heads"))?;
    fs::write(directory.join(SERVED_BRANCH), format!("{tip}\n"))?;
    fs::write(directory.join("HEAD"), format!("ref: {}\n", branch_of(tip)))?;
    Ok(())
}

/// Removes the namespaces that are not kept. Deletes their directories: each holds only what [`add_namespace`] has written.
fn remove_namespaces(served: &Repository, is_kept: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(served.path().join(NAMESPACES))? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(&is_kept) {
            remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

fn commit(served: &Repository, shown: ShownTree, config: &str) -> Result<ObjectId, WriteError> {
    let upstream = served.find_commit(shown.commit.0.to_oid()?)?;
    let odb = served.odb()?;
    // Not by `Repository::blob`, which makes a file even if the object exists.
    let config = odb.write(ObjectType::Blob, config.as_bytes())?.into();
    // In place of a directory, too.
    let changes = [(FileMode::Blob, Some(config)), (FileMode::Tree, None)];
    let changes = changes.map(|(mode, id)| EntryChange {
        name: CONFIG_FILE.as_bytes(),
        mode,
        id,
    });
    let root = edited(odb.read(shown.tree.to_oid()?)?.data(), &changes)?;
    let tree = served.find_tree(odb.write(ObjectType::Tree, &root)?)?;
    let previous = current(served)?;
    if let Some(previous) = previous
        .as_ref()
        .filter(|previous| previous.tree_id() == tree.id())
    {
        // The same tree: clients need no new commit, even if the upstream commit is another one.
        return Ok(previous.id().into());
    }
    // Author and time of the upstream commit, so they are the same on every replica and in every run.
    let commit = served.commit(
        None,
        &upstream.author(),
        &upstream.committer(),
        // The message need not be UTF-8.
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

fn open_or_create(clone: &Path) -> Result<Repository, WriteError> {
    let path = git_index_path(clone);
    if !path.exists() {
        create(&path)?;
    }
    Ok(Repository::open_bare(path)?)
}

/// Makes the repository under a temporary name, and then renames it. A crash leaves a complete repository or none.
fn create(path: &Path) -> Result<(), WriteError> {
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
