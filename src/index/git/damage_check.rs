//! Checks the git index for damage after git could not answer a client.
//!
//! A client can make git fail at any rate, and can put any text into git's message. So a failure is no evidence of
//! damage. It only triggers a check, which reads what git reads. The quick check reads the branch and our own commits.
//! If it finds nothing, the full check reads everything that a clone of the index gets.

use std::collections::HashSet;
use std::path::Path;
use std::time::{Duration, Instant};

use git2::{ObjectType, Oid};

use super::overlay::{CONFIG_FILE, SERVED_BRANCH, branch_of};
use crate::index::ids::ObjectId;
use crate::index::limits::{COMMIT_BYTES_MAX, ENTRIES_READ_MAX, ReadError, TREE_BYTES_MAX};
use crate::index::retry::ClientsChecks;
use crate::index::source::clone_dir;
use crate::index::source::libgit2::{check_size, try_file};
use crate::index::source::repository::Repository;
use crate::index::source::trees::Entries;
use crate::index::stop::StopFlag;

/// Checks the git index, with pauses between the checks.
#[derive(Debug, Default)]
pub(crate) struct DamageChecks {
    quick: ClientsChecks,
    full: ClientsChecks,
}

/// What is damaged.
#[derive(Debug)]
pub(crate) enum Damage {
    /// The git index itself. The mirror can make it again from the clone.
    GitIndex(String),
    /// This object of the clone.
    Clone(ObjectId),
}

impl DamageChecks {
    /// The time until the next check is allowed.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.quick.wait(now)
    }

    /// Checks the git index of this clone. `tip` is its newest commit, if known. Returns `None` if nothing is damaged.
    pub(crate) fn check(
        &mut self,
        repository: &Repository,
        tip: Option<ObjectId>,
        stop: &StopFlag,
    ) -> Result<Option<Damage>, ReadError> {
        // An open file can still be read after its removal. The check must see what is on the disk now.
        repository.close_idle_handles();
        let path = clone_dir::git_index_path(repository.path());
        let began = Instant::now();
        let mut found = damage_of(read_chain(&path, tip, stop));
        self.quick.note(began);
        let began = Instant::now();
        if let Some(tip) = tip
            && matches!(found, Ok(None))
            && self.full.wait(began).is_zero()
        {
            found = full_check(&path, tip, stop);
            self.full.note(began);
        }
        found
    }
}

/// Reads every object that a clone of the newest commit gets, in the order of the packs.
fn full_check(served: &Path, tip: ObjectId, stop: &StopFlag) -> Result<Option<Damage>, ReadError> {
    let git = git2::Repository::open_bare(served)?;
    let odb = git.odb()?;
    let mut wanted = HashSet::new();
    let mut trees = vec![git.find_commit(tip.to_oid()?)?.tree_id()];
    while let Some(tree) = trees.pop() {
        let checked = check_size(&odb, tree, ObjectType::Tree, TREE_BYTES_MAX);
        let content = match checked.and_then(|_bytes| Ok(odb.read(tree)?)) {
            Ok(content) => content,
            Err(error) => return damaged_object(tree, error),
        };
        for entry in Entries(content.data()) {
            stop.check()?;
            let Ok(entry) = entry else {
                return Ok(Some(Damage::Clone(tree.into())));
            };
            let id = entry.id.to_oid()?;
            // The commit of a submodule is in another repository.
            if !entry.is_submodule() && wanted.insert(id) && entry.is_tree() {
                trees.push(id);
            }
            if wanted.len() > ENTRIES_READ_MAX {
                return Err(ReadError::Refused("it has too many objects".to_owned()));
            }
        }
    }
    let mut files = Vec::with_capacity(wanted.len());
    let listed = odb.foreach(|id| {
        if wanted.remove(id) {
            files.push(*id);
        }
        !stop.is_set()
    });
    // Before the result is used: libgit2 reports no error if the callback ends the listing among loose objects. The
    // objects that an incomplete list lacks are not missing.
    stop.check()?;
    listed?;
    if let Some(missing) = wanted.into_iter().next() {
        return Ok(Some(Damage::Clone(missing.into())));
    }
    for file in files {
        stop.check()?;
        if let Err(error) = try_file(&odb, file) {
            return damaged_object(file, error.into());
        }
    }
    Ok(None)
}

/// Reads the branch, all its commits, and the root tree of the newest commit.
fn read_chain(served: &Path, tip: Option<ObjectId>, stop: &StopFlag) -> Result<(), ReadError> {
    if !served.exists() {
        return Err(broken("it is missing"));
    }
    let git = git2::Repository::open_bare(served)?;
    let odb = git.odb()?;
    let newest = git.find_reference(SERVED_BRANCH)?;
    let tip = match tip {
        Some(tip) => tip.to_oid()?,
        None => newest
            .target()
            .ok_or_else(|| broken("the branch names no commit"))?,
    };
    let shown = git.find_reference(&branch_of(tip.into()))?;
    for reference in [newest, git.head()?, shown] {
        if reference.target() != Some(tip) {
            return Err(broken("the branch does not name the newest commit"));
        }
    }
    let mut next = Some(tip);
    while let Some(id) = next {
        stop.check()?;
        check_size(&odb, id, ObjectType::Commit, COMMIT_BYTES_MAX)?;
        let commit = git.find_commit(id)?;
        check_size(&odb, commit.tree_id(), ObjectType::Tree, TREE_BYTES_MAX)?;
        if id == tip {
            let tree = commit.tree()?;
            let config = tree.get_name(CONFIG_FILE).map(|entry| entry.id());
            odb.read(config.ok_or_else(|| broken("there is no config.json"))?)?;
            // The git index borrows the objects of the clone. Without its `alternates` file it would find none of them.
            for entry in &tree {
                if entry.kind() == Some(ObjectType::Tree) && !odb.exists(entry.id()) {
                    return Err(broken("the objects of the clone are out of reach"));
                }
            }
        }
        next = commit.parent_ids().next();
    }
    Ok(())
}

fn broken(why: &str) -> ReadError {
    ReadError::Git(git2::Error::from_str(why))
}

fn damage_of(read: Result<(), ReadError>) -> Result<Option<Damage>, ReadError> {
    match read {
        Ok(()) => Ok(None),
        Err(ReadError::Git(error)) if error.class() != git2::ErrorClass::Os => {
            Ok(Some(Damage::GitIndex(error.message().to_owned())))
        }
        // Damage as well: our own commits and trees are never too large, and always of the right kind.
        Err(error @ (ReadError::TooLarge(_) | ReadError::Refused(_))) => {
            Ok(Some(Damage::GitIndex(error.to_string())))
        }
        Err(error) => Err(error),
    }
}

fn damaged_object(id: Oid, error: ReadError) -> Result<Option<Damage>, ReadError> {
    if error.may_be_damage() && !error.is_the_systems() {
        Ok(Some(Damage::Clone(id.into())))
    } else {
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::GitProgram;
    use crate::index::follow::settings::GitIndexSettings;
    use crate::index::stop::assert_ends_at_every_check;
    use crate::index::testing::TestIndex;

    #[test]
    fn a_full_check_checks_for_a_stop_at_every_object() {
        let contents: Vec<(String, String)> = (0..200)
            .map(|number| (format!("ab/cd/abcd{number}"), format!("content {number}")))
            .collect();
        let files = contents
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_str()));
        let mut index = TestIndex::new(&files.collect::<Vec<_>>());
        index.settings_mut(|settings| {
            settings.git_index = Some(GitIndexSettings {
                config: "{}".to_owned(),
                program: GitProgram::new("/nonexistent".into()),
            });
        });
        index.refresh();
        let tip = index.handle.view().unwrap().git_index().unwrap().tip;
        let path =
            clone_dir::git_index_path(index.handle.view().unwrap().source().repository().path());
        // One check for the tree entry, one in the list of objects, and one for the content.
        assert_ends_at_every_check(3 * contents.len(), |stop| {
            let damage = full_check(&path, tip, stop)?;
            assert!(damage.is_none(), "{damage:?}");
            Ok(())
        });
    }
}
