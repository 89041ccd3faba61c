//! Exports the index from a clone, for a mirror without a network.
//!
//! A full export consists of the packs of the clone, unchanged: packing the whole index again would take minutes. An
//! export that builds on an earlier one is a single pack with the new objects.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use git2::{ErrorClass, ErrorCode, ObjectType, Oid};

use crate::index::ids::CommitId;
use crate::index::limits::ReadError;
use crate::index::source::libgit2::{MemoryLimit, with_memory_limit};
use crate::index::source::repository::Repository;
use crate::index::source::snapshot::Source;
use crate::index::source::{clone_dir, upkeep};

/// An exported index. As long as this exists, the mirror does not remove its files.
#[derive(Debug)]
pub(crate) struct IndexExport {
    /// The upstream commit that is exported.
    pub(crate) commit: CommitId,
    /// The URL of the upstream, without credentials.
    pub(crate) upstream: Option<String>,
    /// The time of the last successful fetch.
    pub(crate) fetched: Option<SystemTime>,
    /// The `.pack` files to copy. Their `.idx` files are not needed: the import makes them again.
    pub(crate) packs: Vec<PathBuf>,
    _repository: Arc<Repository>,
}

/// Why the index could not be exported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// The clone no longer has the commit of the earlier export: make a full export.
    #[error("the clone does not know the commit that the export is to build on")]
    BaseMissing,
    /// The clone is damaged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The files could not be listed or written.
    #[error("the packs of the index cannot be read or written")]
    Disk(#[from] io::Error),
}

impl From<git2::Error> for ExportError {
    fn from(error: git2::Error) -> Self {
        Self::Read(error.into())
    }
}

/// Exports the whole index of `source`. Packs its loose objects into the directory `into`. Blocking.
pub(crate) fn export_all(source: &Source, into: &Path) -> Result<IndexExport, ExportError> {
    let repository = source.repository();
    // Listed after the source was read, so every object of the source is in one of these packs, or loose.
    let mut packs: Vec<PathBuf> = upkeep::packs_in(repository.path())?
        .into_iter()
        .map(|pack| pack.path)
        .collect();
    let loose = loose_objects(repository.path())?;
    if !loose.is_empty() {
        packs.push(write_pack(repository, into, &loose)?);
    }
    Ok(describe(source, packs))
}

/// Exports the objects that are new since the upstream commit `base`, as one pack in the directory `into`. Blocking.
pub(crate) fn export_since(
    source: &Source,
    base: CommitId,
    into: &Path,
) -> Result<IndexExport, ExportError> {
    let repository = source.repository();
    let objects = repository.with(|git| Ok(new_objects(git, base, source.commit())))??;
    let pack = write_pack(repository, into, &objects)?;
    Ok(describe(source, vec![pack]))
}

fn describe(source: &Source, packs: Vec<PathBuf>) -> IndexExport {
    let repository = source.repository();
    let record = clone_dir::read_record(repository.path()).ok();
    IndexExport {
        commit: source.commit(),
        upstream: record.as_ref().map(|record| record.upstream.clone()),
        fetched: record.and_then(|record| record.last_success()),
        packs,
        _repository: Arc::clone(repository),
    }
}

/// Lists the commit, and all objects of its tree that the base's tree does not have at the same path.
pub(super) fn new_objects(
    git: &git2::Repository,
    base: CommitId,
    commit: CommitId,
) -> Result<Vec<Oid>, ExportError> {
    let base = known(git.find_commit(base.0.to_oid()?))?.tree_id();
    let commit = git.find_commit(commit.0.to_oid()?)?;
    let mut objects = vec![commit.id()];
    // A stack instead of recursion: an upstream can nest directories thousands deep.
    let mut pairs = vec![(Some(base), commit.tree_id())];
    // Compares each pair of trees once, because two trees can describe millions of directories.
    let mut seen = HashSet::new();
    while let Some((old, new)) = pairs.pop() {
        if old == Some(new) || !seen.insert((old, new)) {
            continue;
        }
        objects.push(new);
        let old = old.map(|old| known(git.find_tree(old))).transpose()?;
        for entry in &git.find_tree(new)? {
            let before = old
                .as_ref()
                .and_then(|old| old.get_name_bytes(entry.name_bytes()));
            let (id_before, kind) = (before.as_ref().map(|before| before.id()), entry.kind());
            if id_before == Some(entry.id()) {
                continue;
            }
            let tree_before = before
                .filter(|before| before.kind() == Some(ObjectType::Tree))
                .map(|before| before.id());
            match kind {
                Some(ObjectType::Tree) => pairs.push((tree_before, entry.id())),
                Some(ObjectType::Blob) => objects.push(entry.id()),
                // The commit of a submodule is in another repository.
                _ => {}
            }
        }
    }
    Ok(objects)
}

fn known<T>(found: Result<T, git2::Error>) -> Result<T, ExportError> {
    found.map_err(|error| match error.code() {
        ErrorCode::NotFound => ExportError::BaseMissing,
        _ => error.into(),
    })
}

fn write_pack(
    repository: &Repository,
    into: &Path,
    objects: &[Oid],
) -> Result<PathBuf, ExportError> {
    // With a handle of its own, because a failure of a shared handle marks the clone as suspect, and a full disk is no
    // damage.
    let write = || {
        let git = git2::Repository::open_bare(repository.path())?;
        let mut builder = git.packbuilder()?;
        builder.set_threads(1);
        for id in objects {
            builder.insert_object(*id, None)?;
        }
        builder.write(into, 0o444)?;
        Ok(builder.name()?.unwrap_or_default().to_owned())
    };
    let name: Result<String, git2::Error> = with_memory_limit(MemoryLimit::PACKING, write);
    let name = name.map_err(|error| match error.class() {
        ErrorClass::Os => io::Error::other(error.message().to_owned()).into(),
        _ => ExportError::from(error),
    })?;
    Ok(into.join(format!("pack-{name}.pack")))
}

/// Lists the objects that are in no pack. There are rarely any.
fn loose_objects(clone: &Path) -> Result<Vec<Oid>, ExportError> {
    let objects = clone.join("objects");
    let mut ids = Vec::new();
    for directory in std::fs::read_dir(&objects)? {
        let directory = directory?;
        let first = directory.file_name();
        if first.len() != 2 {
            continue;
        }
        for file in std::fs::read_dir(directory.path())? {
            let id = format!("{}{}", first.display(), file?.file_name().display());
            ids.extend(Oid::from_str(&id));
        }
    }
    Ok(ids)
}
