//! Imports an exported index, which replaces the one in use.
//!
//! The import makes a new clone from the packs, or from the packs and the current clone. It hashes every object, and
//! checks that every object of the commit exists. Only then does the new clone become the clone in use. Until then
//! nothing changes for readers. Everything here blocks.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use git2::{Commit, ErrorClass, ObjectType, OdbLookupFlags, Oid, Repository};

use crate::index::ids::CommitId;
use crate::index::limits::{COMMIT_BYTES_MAX, ENTRIES_READ_MAX, ReadError, TREE_BYTES_MAX};
use crate::index::source::clone_dir::{self, CloneDir, DataDirError, remove_tree};
use crate::index::source::fetch::{self, UPSTREAM_HEAD};
use crate::index::source::libgit2::{
    MemoryLimit, check_size, has_refused_memory, with_memory_limit,
};
use crate::index::source::remote_url::RemoteUrl;
use crate::index::source::{local_upstream, trees, upkeep};
use crate::index::stop::StopFlag;

/// The bytes of a pack that are copied at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// An exported index, unpacked from its archive.
#[derive(Clone, Debug)]
pub(crate) struct IndexImport<'a> {
    /// The upstream commit.
    pub(crate) commit: CommitId,
    /// The commit of the earlier export that it builds on; `None` for a full one.
    pub(crate) base: Option<CommitId>,
    /// The packs.
    pub(crate) packs: &'a [PathBuf],
    /// The upstream of the index.
    pub(crate) upstream: &'a RemoteUrl,
    /// The time of the last successful fetch, if known.
    pub(crate) fetched: Option<SystemTime>,
}

/// Why the import failed. The index in use has not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// A running mirror or another subcommand has locked the data directory.
    #[error("another mirror is using this DATA_DIR")]
    Locked,
    /// The clone lacks the commit that the export builds on: import the earlier exports first, or a full one.
    #[error("the index in DATA_DIR does not contain the commit that the export builds on")]
    BaseMissing,
    /// The exported files are truncated or changed.
    #[error("the exported index is damaged or not complete: {0}")]
    Damaged(String),
    /// It exceeds the limits of an index.
    #[error("the exported index is refused: {0}")]
    Refused(String),
    /// The operating system refused.
    #[error("the exported index cannot be read, or DATA_DIR cannot be written to")]
    Disk(#[from] io::Error),
}

impl From<DataDirError> for ImportError {
    fn from(error: DataDirError) -> Self {
        match error {
            DataDirError::Locked => Self::Locked,
            DataDirError::Disk(error) => Self::Disk(error),
        }
    }
}

impl From<ReadError> for ImportError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Git(error) => error.into(),
            other => Self::Refused(other.to_string()),
        }
    }
}

impl From<git2::Error> for ImportError {
    fn from(error: git2::Error) -> Self {
        match error.class() {
            ErrorClass::Os => Self::Disk(io::Error::other(error.message().to_owned())),
            _ if has_refused_memory() => {
                Self::Refused("its packs need more memory than the mirror allows".to_owned())
            }
            _ => Self::Damaged(error.message().to_owned()),
        }
    }
}

/// Checks that an import can begin now. [`ImportError::Locked`] if another process has locked the data directory.
pub(crate) fn may_import(data_dir: &Path) -> Result<(), ImportError> {
    let _free = CloneDir::open(clone_dir::root(data_dir))?;
    Ok(())
}

/// Imports an index. A running offline mirror shows it within a minute. Any other running mirror keeps the data
/// directory locked, so the import fails.
pub(crate) fn import(data_dir: &Path, import: &IndexImport<'_>) -> Result<(), ImportError> {
    let mut clones = CloneDir::open(clone_dir::root(data_dir))?;
    let target = clones.next()?;
    // Limited, because an archive may be hostile, as an upstream may be.
    let built = with_memory_limit(MemoryLimit::TRANSFER, || build(&clones, &target, import));
    match built.and_then(|()| Ok(clones.activate(&target)?)) {
        Ok(()) => {
            // A failure is harmless: a clone that remains takes disk space, and the next sweep removes it.
            let _remaining = clones.sweep(std::slice::from_ref(&target));
            Ok(())
        }
        Err(error) => {
            let _remaining = remove_tree(&target);
            Err(error)
        }
    }
}

fn build(clones: &CloneDir, target: &Path, import: &IndexImport<'_>) -> Result<(), ImportError> {
    match import.base {
        None => drop(fetch::create(target)?),
        Some(base) => copy_current(clones, target, base)?,
    }
    let git = Repository::open_bare(target)?;
    for pack in import.packs {
        add_pack(&git, pack)?;
    }
    git.odb()?.refresh()?;
    let commit = find_commit(&git, import.commit.0.to_oid()?)?;
    check_tree(&git, commit.tree_id())?;
    // Applies the limits of a source: an index that the mirror would refuse must not replace one that it serves.
    trees::read(&git, commit.tree_id().into(), None, &StopFlag::new())?;
    note_missing_parents(&git, target, commit.clone())?;
    git.reference(UPSTREAM_HEAD, commit.id(), true, "imported")?;
    clone_dir::write_record(target, import.upstream, import.fetched)?;
    Ok(())
}

/// Copies the current clone to `target`, through hard links.
fn copy_current(clones: &CloneDir, target: &Path, base: CommitId) -> Result<(), ImportError> {
    let current = clones.current().ok_or(ImportError::BaseMissing)?;
    let git = Repository::open_bare(&current)?;
    git.find_commit(base.0.to_oid()?)
        .map_err(|_absent| ImportError::BaseMissing)?;
    Ok(upkeep::copy(&current, target, false, &StopFlag::new())?)
}

/// Adds a pack, which hashes every object in it.
fn add_pack(git: &Repository, pack: &Path) -> Result<(), ImportError> {
    let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(pack)?);
    let odb = git.odb()?;
    let mut writer = odb.packwriter()?;
    let mut buffered = BufWriter::with_capacity(BUFFER_BYTES, &mut writer);
    let copied = io::copy(&mut file, &mut buffered).and_then(|_bytes| buffered.flush());
    // Dropping a `BufWriter` writes its buffer. After a failure that would be a second attempt, so take it apart
    // instead.
    drop(buffered.into_parts());
    match copied {
        // An error without a number of the operating system comes from libgit2, whose last error has the reason.
        Err(error) if error.raw_os_error().is_none() => Err(git2::Error::last_error(-1).into()),
        Err(error) => Err(error.into()),
        Ok(()) => {
            writer.commit()?;
            Ok(())
        }
    }
}

/// Checks that every object of a tree exists: reads every directory, and looks up every file. The content of the
/// objects was checked against their ids when their packs were added.
fn check_tree(git: &Repository, tree: Oid) -> Result<(), ImportError> {
    let odb = git.odb()?;
    let mut seen = HashSet::from([tree]);
    let mut trees = vec![tree];
    let mut entries = 0_usize;
    while let Some(tree) = trees.pop() {
        check_size(&odb, tree, ObjectType::Tree, TREE_BYTES_MAX)?;
        for entry in &git.find_tree(tree)? {
            entries += 1;
            ReadError::if_more(entries, ENTRIES_READ_MAX, "its directories have", "entries")?;
            match entry.kind() {
                Some(ObjectType::Tree) if seen.insert(entry.id()) => trees.push(entry.id()),
                Some(ObjectType::Blob)
                    if !odb.exists_ext(entry.id(), OdbLookupFlags::NO_REFRESH) =>
                {
                    let name = String::from_utf8_lossy(entry.name_bytes());
                    let why = format!("the file {} is missing", name.escape_debug());
                    return Err(ImportError::Damaged(why));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn find_commit(git: &Repository, id: Oid) -> Result<Commit<'_>, ImportError> {
    check_size(&git.odb()?, id, ObjectType::Commit, COMMIT_BYTES_MAX)?;
    Ok(git.find_commit(id)?)
}

/// Lists the commits without their parents in the `shallow` file. Otherwise git would look for the parents and fail.
fn note_missing_parents(
    git: &Repository,
    target: &Path,
    commit: Commit<'_>,
) -> Result<(), ImportError> {
    let odb = git.odb()?;
    let mut lines = String::new();
    let mut seen = HashSet::from([commit.id()]);
    let mut commits = vec![commit];
    while let Some(commit) = commits.pop() {
        let (there, absent): (Vec<Oid>, Vec<Oid>) = commit
            .parent_ids()
            .partition(|parent| odb.exists_ext(*parent, OdbLookupFlags::NO_REFRESH));
        if !absent.is_empty() {
            lines.push_str(&format!("{}\n", commit.id()));
            continue;
        }
        for parent in there {
            if seen.insert(parent) {
                commits.push(find_commit(git, parent)?);
            }
        }
    }
    Ok(local_upstream::write_shallow(target, lines.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::num::NonZeroUsize;
    use std::sync::Mutex;
    use std::time::Duration;

    use tempfile::TempDir;

    use super::*;
    use crate::index::bundle::export::{
        ExportError, IndexExport, export_all, export_since, new_objects,
    };
    use crate::index::limits::ReadError;
    use crate::index::source::snapshot::Source;
    use crate::index::testing::TestIndex;
    use crate::index::{IndexHandle, open_current, refresh_once};

    const FILES: [(&str, &str); 3] = [
        ("config.json", "{}"),
        ("1/a", "one"),
        ("se/rd/serde", "four"),
    ];
    const LATER: [(&str, &str); 4] = [
        ("config.json", "{}"),
        ("1/a", "changed"),
        ("se/rd/serde", "four"),
        ("to/ki/tokio", "new"),
    ];

    /// An index with an upstream, a directory for the exported files, and the data directory of an offline mirror.
    struct Scene {
        index: TestIndex,
        carried: TempDir,
        inside: TempDir,
        url: RemoteUrl,
    }

    impl Scene {
        fn new() -> Self {
            let mut index = TestIndex::new(&FILES);
            index.refresh();
            Self {
                index,
                carried: TempDir::new().unwrap(),
                inside: TempDir::new().unwrap(),
                url: RemoteUrl::parse("https://index.example/index.git").unwrap(),
            }
        }

        fn source(&self) -> std::sync::Arc<Source> {
            std::sync::Arc::clone(self.index.handle.view().unwrap().source())
        }

        fn export_all(&self) -> IndexExport {
            export_all(&self.source(), self.carried.path()).unwrap()
        }

        fn publish_more(&mut self) {
            self.index.commit(&LATER);
            self.index.refresh();
        }

        fn import(&self, export: &IndexExport, base: Option<CommitId>) -> Result<(), ImportError> {
            self.import_packs(&export.packs, export.commit, base)
        }

        fn import_packs(
            &self,
            packs: &[PathBuf],
            commit: CommitId,
            base: Option<CommitId>,
        ) -> Result<(), ImportError> {
            let fetched = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
            let exported = IndexImport {
                commit,
                base,
                packs,
                upstream: &self.url,
                fetched,
            };
            import(self.inside.path(), &exported)
        }

        fn imported(&self) -> Option<std::sync::Arc<Source>> {
            open_current(self.inside.path()).unwrap()
        }

        fn clones_inside(&self) -> usize {
            let entries = fs::read_dir(self.inside.path().join("index")).unwrap();
            entries
                .filter(|entry| entry.as_ref().unwrap().path().is_dir())
                .count()
        }
    }

    fn contents(source: &Source) -> Vec<(String, String)> {
        let found = Mutex::new(Vec::new());
        source
            .for_each_index_file::<ReadError>(NonZeroUsize::MIN, |name, content| {
                let content = String::from_utf8(content.to_vec()).unwrap();
                found
                    .lock()
                    .unwrap()
                    .push((name.as_str().to_owned(), content));
                Ok(())
            })
            .unwrap();
        let mut found = found.into_inner().unwrap();
        found.sort();
        found
    }

    #[test]
    fn a_full_export_is_imported_completely() {
        let scene = Scene::new();
        let export = scene.export_all();
        scene.import(&export, None).unwrap();
        let imported = scene.imported().unwrap();
        assert_eq!(imported.commit(), export.commit);
        assert_eq!(contents(&imported), contents(&scene.source()));
        let record = clone_dir::read_record(imported.repository().path()).unwrap();
        assert!(record.is_of(&scene.url));
        assert!(export.upstream.is_some() && export.fetched.is_some());
    }

    #[test]
    fn a_second_export_contains_only_new_objects_and_is_imported_completely() {
        let mut scene = Scene::new();
        let first = scene.export_all();
        scene.import(&first, None).unwrap();
        scene.publish_more();
        let second = export_since(&scene.source(), first.commit, scene.carried.path()).unwrap();
        assert_eq!(second.packs.len(), 1);
        let git = Repository::open_bare(scene.source().repository().path()).unwrap();
        let commit = git.find_commit(second.commit.0.to_oid().unwrap()).unwrap();
        let kept = commit.tree().unwrap().get_name("se").unwrap().id();
        let objects = new_objects(&git, first.commit, second.commit).unwrap();
        // The commit, the root, `1`, `to`, `to/ki` and two files.
        assert_eq!(objects.len(), 7);
        assert!(!objects.contains(&kept));
        scene.import(&second, Some(first.commit)).unwrap();
        let imported = scene.imported().unwrap();
        assert_eq!(imported.commit(), second.commit);
        assert_eq!(contents(&imported), contents(&scene.source()));
        assert_eq!(scene.clones_inside(), 1);
    }

    #[test]
    fn export_and_import_refuse_an_unknown_base() {
        let mut scene = Scene::new();
        let first = scene.source().commit();
        scene.publish_more();
        let unknown = CommitId(Oid::hash_object(ObjectType::Blob, b"x").unwrap().into());
        let export = export_since(&scene.source(), unknown, scene.carried.path());
        assert!(matches!(export, Err(ExportError::BaseMissing)));
        let export = export_since(&scene.source(), first, scene.carried.path()).unwrap();
        let result = scene.import(&export, Some(first));
        assert!(matches!(result, Err(ImportError::BaseMissing)));
        // Imported as a full export, which lacks most objects.
        let result = scene.import(&export, None);
        assert!(matches!(result, Err(ImportError::Damaged(_))), "{result:?}");
        assert!(scene.imported().is_none());
        assert_eq!(scene.clones_inside(), 0);
    }

    #[test]
    fn a_changed_or_truncated_pack_is_refused_and_changes_nothing() {
        let mut scene = Scene::new();
        let first = scene.export_all();
        scene.import(&first, None).unwrap();
        scene.publish_more();
        let second = scene.export_all();
        let whole: Vec<Vec<u8>> = second
            .packs
            .iter()
            .map(|pack| fs::read(pack).unwrap())
            .collect();
        let victim = scene.carried.path().join("victim.pack");
        for (number, content) in whole.iter().enumerate() {
            let mut packs = second.packs.clone();
            packs[number] = victim.clone();
            for position in (0..content.len()).step_by(7) {
                let mut changed = content.clone();
                changed[position] ^= 0x40;
                let cut = content[..position].to_vec();
                for tampered in [changed, cut] {
                    fs::write(&victim, tampered).unwrap();
                    let result = scene.import_packs(&packs, second.commit, None);
                    assert!(
                        matches!(result, Err(ImportError::Damaged(_))),
                        "byte {position}: {result:?}"
                    );
                }
            }
        }
        assert_eq!(scene.imported().unwrap().commit(), first.commit);
        assert_eq!(scene.clones_inside(), 1);
    }

    #[test]
    fn a_killed_import_changes_nothing_and_the_next_one_removes_its_files() {
        let mut scene = Scene::new();
        let first = scene.export_all();
        scene.import(&first, None).unwrap();
        scene.publish_more();
        let second = scene.export_all();
        {
            let mut clones = CloneDir::open(clone_dir::root(scene.inside.path())).unwrap();
            let target = clones.next().unwrap();
            let exported = IndexImport {
                commit: second.commit,
                base: None,
                packs: &second.packs,
                upstream: &scene.url,
                fetched: None,
            };
            // All but the last step.
            build(&clones, &target, &exported).unwrap();
        }
        assert_eq!(scene.imported().unwrap().commit(), first.commit);
        assert_eq!(scene.clones_inside(), 2);
        scene.import(&second, None).unwrap();
        assert_eq!(scene.imported().unwrap().commit(), second.commit);
        assert_eq!(scene.clones_inside(), 1);
    }

    /// A pack of these objects, and the id of the last one.
    fn pack_of(scene: &Scene, objects: &[(ObjectType, Vec<u8>)]) -> (PathBuf, Oid) {
        let git = Repository::init_bare(scene.carried.path().join("hostile")).unwrap();
        let odb = git.odb().unwrap();
        let mut builder = git.packbuilder().unwrap();
        let mut last = None;
        for (kind, content) in objects {
            let id = odb.write(*kind, content).unwrap();
            builder.insert_object(id, None).unwrap();
            last = Some(id);
        }
        builder.write(scene.carried.path(), 0o444).unwrap();
        let name = builder.name().unwrap().unwrap();
        let pack = scene.carried.path().join(format!("pack-{name}.pack"));
        (pack, last.unwrap())
    }

    #[test]
    fn an_index_with_a_too_large_tree_or_commit_is_refused() {
        let tree = |length: usize| {
            let mut tree = format!("100644 {}\0", "x".repeat(length)).into_bytes();
            tree.extend_from_slice(
                Oid::hash_object(ObjectType::Blob, b"one")
                    .unwrap()
                    .as_bytes(),
            );
            tree
        };
        let commit = |tree: &[u8], message: usize| {
            let tree = Oid::hash_object(ObjectType::Tree, tree).unwrap();
            let who = "index <index@example.invalid> 1700000000 +0000";
            let message = "m".repeat(message);
            format!("tree {tree}\nauthor {who}\ncommitter {who}\n\n{message}\n").into_bytes()
        };
        for (tree_bytes, message_bytes, refused) in [
            (10, 10, None),
            (TREE_BYTES_MAX, 10, Some("the tree ")),
            (10, COMMIT_BYTES_MAX, Some("the commit ")),
        ] {
            let scene = Scene::new();
            let tree = tree(tree_bytes);
            let commit = commit(&tree, message_bytes);
            let objects = [
                (ObjectType::Blob, b"one".to_vec()),
                (ObjectType::Tree, tree),
                (ObjectType::Commit, commit),
            ];
            let (pack, id) = pack_of(&scene, &objects);
            let imported = scene.import_packs(&[pack], CommitId(id.into()), None);
            match refused {
                None => imported.unwrap(),
                Some(why) => {
                    let error = imported.unwrap_err();
                    assert!(matches!(&error, ImportError::Refused(_)), "{error:?}");
                    assert!(error.to_string().contains(why), "{error}");
                    assert_eq!(scene.clones_inside(), 0);
                }
            }
        }
    }

    #[test]
    fn an_index_with_too_many_entries_is_refused() {
        let scene = Scene::new();
        let blob = Oid::hash_object(ObjectType::Blob, b"one").unwrap();
        let names = || {
            let letters = || "abcdefghijklmnopqrstuvwxyz0123456789".chars();
            letters().flat_map(move |first| letters().map(move |second| format!("{first}{second}")))
        };
        // Few objects that describe very many entries.
        let tree = |mode: &str, below: Oid| {
            names().fold(Vec::new(), |mut tree, name| {
                tree.extend_from_slice(format!("{mode} {name}\0").as_bytes());
                tree.extend_from_slice(below.as_bytes());
                tree
            })
        };
        let id = |tree: &[u8]| Oid::hash_object(ObjectType::Tree, tree).unwrap();
        let leaf = tree("100644", blob);
        let middle = tree("40000", id(&leaf));
        let root = tree("40000", id(&middle));
        let who = "index <index@example.invalid> 1700000000 +0000";
        let commit = format!(
            "tree {}\nauthor {who}\ncommitter {who}\n\nmany\n",
            id(&root)
        );
        let objects = [
            (ObjectType::Blob, b"one".to_vec()),
            (ObjectType::Tree, leaf),
            (ObjectType::Tree, middle),
            (ObjectType::Tree, root),
            (ObjectType::Commit, commit.into_bytes()),
        ];
        let (pack, id) = pack_of(&scene, &objects);
        let refused = scene.import_packs(&[pack], CommitId(id.into()), None);
        let error = refused.unwrap_err();
        assert!(matches!(&error, ImportError::Refused(_)), "{error:?}");
        assert!(error.to_string().contains("entries"), "{error}");
        assert_eq!(scene.clones_inside(), 0);
    }

    #[test]
    fn an_import_is_refused_while_a_mirror_runs() {
        let scene = Scene::new();
        let export = scene.export_all();
        let mut settings = scene.index.settings();
        settings.data_dir = scene.inside.path().to_owned();
        let locked = refresh_once(settings, &IndexHandle::new()).unwrap();
        let result = scene.import(&export, None);
        assert!(matches!(result, Err(ImportError::Locked)));
        drop(locked);
        scene.import(&export, None).unwrap();
    }

    #[test]
    fn a_commit_without_its_parents_is_listed_as_shallow() {
        let mut scene = Scene::new();
        let first = scene.export_all();
        scene.import(&first, None).unwrap();
        scene.index.commit_with_parents(&LATER);
        scene.index.commit_with_parents(&FILES);
        scene.index.refresh();
        let second = export_since(&scene.source(), first.commit, scene.carried.path()).unwrap();
        scene.import(&second, Some(first.commit)).unwrap();
        let imported = scene.imported().unwrap();
        let shallow = fs::read_to_string(imported.repository().path().join("shallow")).unwrap();
        assert_eq!(shallow, format!("{}\n", second.commit));
        let third = scene.export_all();
        scene.import(&third, None).unwrap();
        let imported = scene.imported().unwrap();
        assert!(!imported.repository().path().join("shallow").exists());
    }
}
