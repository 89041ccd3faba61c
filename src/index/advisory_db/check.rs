//! Looks for damage in the clone of the advisory database: reads everything that a git client can get.

use std::collections::HashSet;

use git2::{ObjectType, Odb, Oid};

use crate::index::limits::{COMMIT_BYTES_MAX, ReadError, TREE_BYTES_MAX};
use crate::index::source::libgit2::{check_size, try_file};
use crate::index::source::local_upstream;
use crate::index::source::repository::Repository;
use crate::index::source::trees::Entries;
use crate::index::stop::StopFlag;

/// Objects that are checked. RustSec's database has about 30,000. Each takes about 40 bytes of memory.
const OBJECTS_MAX: usize = 1_000_000;

/// Reads the upstream commit of a clone, all commits before it, and all their files. Blocking.
pub(super) fn read_everything(repository: &Repository, stop: &StopFlag) -> Result<(), ReadError> {
    // An open file can still be read after its removal. The check must see what is on the disk now.
    repository.close_idle_handles();
    let (tip, _tree, _time) = repository.upstream()?;
    let read = repository.with(|git| {
        let odb = git.odb()?;
        let tip = tip.0.to_oid()?;
        let (mut seen, mut commits) = (HashSet::from([tip]), vec![tip]);
        let ends = local_upstream::shallow_ends(repository.path());
        // Not by libgit2's own walk: that one goes on behind the end of a shallow history.
        while let Some(commit) = commits.pop() {
            stop.check()?;
            check_size(&odb, commit, ObjectType::Commit, COMMIT_BYTES_MAX)?;
            let commit = git.find_commit(commit)?;
            let tree = commit.tree_id();
            if note(&mut seen, tree)? {
                read_tree(&odb, tree, &mut seen, stop)?;
            }
            if ends.contains(&commit.id()) {
                continue;
            }
            for parent in commit.parent_ids() {
                if note(&mut seen, parent)? {
                    commits.push(parent);
                }
            }
        }
        Ok(())
    });
    repository.close_idle_handles();
    read
}

/// Reads a tree and everything below it that was not seen before.
fn read_tree(
    odb: &Odb<'_>,
    tree: Oid,
    seen: &mut HashSet<Oid>,
    stop: &StopFlag,
) -> Result<(), ReadError> {
    let mut trees = vec![tree];
    while let Some(tree) = trees.pop() {
        check_size(odb, tree, ObjectType::Tree, TREE_BYTES_MAX)?;
        let content = odb.read(tree)?;
        for entry in Entries(content.data()) {
            stop.check()?;
            let entry = entry?;
            let id = entry.id.to_oid()?;
            // The commit of a submodule is in another repository.
            if entry.is_submodule() || !note(seen, id)? {
                continue;
            }
            if entry.is_tree() {
                trees.push(id);
                continue;
            }
            try_file(odb, id)?;
        }
    }
    Ok(())
}

/// Whether an object was not seen before.
fn note(seen: &mut HashSet<Oid>, id: Oid) -> Result<bool, ReadError> {
    if seen.len() >= OBJECTS_MAX {
        return Err(ReadError::Refused("it has too many objects".to_owned()));
    }
    Ok(seen.insert(id))
}
