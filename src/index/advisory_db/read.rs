//! Reads the advisories of a commit: the files `crates/{crate}/RUSTSEC-*.md`.

use git2::{ObjectType, Odb, Oid};

use crate::index::ids::{CommitId, ObjectId};
use crate::index::limits::{ENTRIES_READ_MAX, ReadError, TREE_BYTES_MAX};
use crate::index::source::libgit2::check_size;
use crate::index::source::repository::Repository;
use crate::index::source::trees::{Entries, RawEntry};
use crate::index::stop::StopFlag;
use crate::policy::{ADVISORY_BYTES_MAX, Advisories, AdvisoryReader, TooLarge};

/// The directory of advisories about crates. Those about Rust itself are in another one.
const CRATES: &[u8] = b"crates";

/// Skipped files that are named in the log.
const NAMED_MAX: usize = 5;

/// What the clone has at its commit.
#[derive(Debug)]
pub(super) struct Content {
    /// The commit.
    pub(super) commit: CommitId,
    /// Its advisories.
    pub(super) advisories: Advisories,
    /// The first files that were skipped, and why. One line each.
    pub(super) skipped: Vec<String>,
}

/// Reads the advisories of the upstream commit of a clone. Blocking.
pub(super) fn read(repository: &Repository, stop: &StopFlag) -> Result<Content, ReadError> {
    // An open file can still be read after its removal. Damage on the disk must be noticed.
    repository.close_idle_handles();
    let (commit, root, _time) = repository.upstream()?;
    let mut work = Work {
        stop,
        reader: AdvisoryReader::default(),
        skipped: Vec::new(),
        entries: 0,
    };
    repository.with(|git| work.read_root(&git.odb()?, root))?;
    // The handle has seen all packs. Closing it frees that memory.
    repository.close_idle_handles();
    Ok(Content {
        commit,
        advisories: work.reader.finish(commit.to_string()),
        skipped: work.skipped,
    })
}

struct Work<'s> {
    stop: &'s StopFlag,
    reader: AdvisoryReader,
    skipped: Vec<String>,
    /// Tree entries so far. A few bytes can describe any number.
    entries: usize,
}

impl Work<'_> {
    fn read_root(&mut self, odb: &Odb<'_>, root: ObjectId) -> Result<(), ReadError> {
        let no_database = || ReadError::Refused("it has no directory `crates`".to_owned());
        let mut crates = None;
        self.for_each_entry(odb, root, |_work, entry| {
            if entry.name == CRATES && entry.is_tree() {
                crates = Some(entry.id);
            }
            Ok(())
        })?;
        self.for_each_entry(odb, crates.ok_or_else(no_database)?, |work, folder| {
            if !folder.is_tree() {
                return Ok(());
            }
            work.for_each_entry(odb, folder.id, |work, file| {
                work.read_file(odb, folder, file)
            })
        })
    }

    fn for_each_entry(
        &mut self,
        odb: &Odb<'_>,
        tree: ObjectId,
        mut visit: impl FnMut(&mut Self, &RawEntry<'_>) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let tree = tree.to_oid()?;
        check_size(odb, tree, ObjectType::Tree, TREE_BYTES_MAX)?;
        let content = odb.read(tree)?;
        for entry in Entries(content.data()) {
            self.stop.check()?;
            self.entries += 1;
            ReadError::if_more(self.entries, ENTRIES_READ_MAX, "it has", "entries")?;
            visit(self, &entry?)?;
        }
        Ok(())
    }

    fn read_file(
        &mut self,
        odb: &Odb<'_>,
        folder: &RawEntry<'_>,
        file: &RawEntry<'_>,
    ) -> Result<(), ReadError> {
        if !(file.name.starts_with(b"RUSTSEC-") && file.name.ends_with(b".md")) {
            return Ok(());
        }
        let skipped = if file.is_file() {
            self.read_advisory(odb, file.id.to_oid()?)?
        } else {
            // A symlink could lead anywhere.
            self.reader.skip("it is no ordinary file")?
        };
        if let Some(why) = skipped
            && self.skipped.len() < NAMED_MAX
        {
            let name = |name: &[u8]| name.escape_ascii().to_string();
            let (folder, file) = (name(folder.name), name(file.name));
            self.skipped.push(format!("crates/{folder}/{file}: {why}"));
        }
        Ok(())
    }

    fn read_advisory(
        &mut self,
        odb: &Odb<'_>,
        file: Oid,
    ) -> Result<Option<&'static str>, ReadError> {
        match check_size(odb, file, ObjectType::Blob, ADVISORY_BYTES_MAX) {
            Ok(_bytes) => {}
            Err(ReadError::TooLarge(_)) => {
                return Ok(self.reader.skip("it is too large")?);
            }
            Err(error) => return Err(error),
        }
        Ok(self.reader.add(odb.read(file)?.data())?)
    }
}

impl From<TooLarge> for ReadError {
    fn from(too_large: TooLarge) -> Self {
        Self::Refused(too_large.to_string())
    }
}
