//! Archives are written, damaged and imported: with stores in memory and real indexes.

mod export;
mod import;
mod index_part;
mod refused;

use std::any::Any;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, UNIX_EPOCH};

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;
use tokio::runtime::{EnterGuard, Runtime};
use tokio_util::sync::CancellationToken;

use super::blocking_store::BlockingStore;
use super::checksum_list::ChecksumList;
use super::error::FORMAT;
use super::event::ArchiveEvent;
use super::import::{ImportAction, ImportError, ImportJob, Imported, import_from};
use super::manifest::{Base, Manifest, TOOL};
use super::write::{Contents, WriteError, write_archive};
use crate::clock::Clock;
use crate::index::testing::TestIndex;
use crate::index::{CommitId, RemoteUrl, Source, export_all, export_since, open_current};
use crate::store::CrateStore;
use crate::store::testing::{memory_store, store_of};

/// When the indexes of these tests were fetched, in seconds since 1970.
const FETCHED: u64 = 1_700_000_000;

/// Archives block, and stores are async.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

fn runtime() -> EnterGuard<'static> {
    RUNTIME.enter()
}

/// A store of these contents.
fn store(contents: &[&str]) -> Arc<CrateStore> {
    RUNTIME.block_on(store_of(contents))
}

/// All contents, sorted.
fn contents(store: &Arc<CrateStore>) -> Vec<String> {
    let _entered = runtime();
    let store = BlockingStore::new(store, &CancellationToken::new());
    let mut contents: Vec<String> = store
        .checksums()
        .unwrap()
        .iter()
        .map(|checksum| {
            let mut content = String::new();
            let mut file = store.open(checksum).unwrap().unwrap();
            file.read_to_string(&mut content).unwrap();
            content
        })
        .collect();
    contents.sort();
    contents
}

/// An index that has seen the commits of these numbers, and is at the last of them.
fn index_with(numbers: &[u8]) -> TestIndex {
    let mut index = TestIndex::new(&[("1/a", "0")]);
    for number in numbers {
        advance(&mut index, *number);
    }
    index.stop();
    index
}

/// Moves the index on to the commit with this number.
fn advance(index: &mut TestIndex, number: u8) {
    let fetched = UNIX_EPOCH + Duration::from_secs(FETCHED);
    index.start_again();
    index.settings_mut(|settings| settings.clock = Clock::custom(move || fetched));
    index.commit(&[("1/a", &number.to_string())]);
    index.refresh();
    index.stop();
}

/// The current index of a data directory.
fn current(data_dir: &Path) -> Option<Arc<Source>> {
    open_current(data_dir).unwrap()
}

/// The commit of this number.
fn commit(number: u8) -> CommitId {
    current(&index_with(&[number]).data_dir()).unwrap().commit()
}

/// An archive of this store and an index at this commit.
fn archive(number: u8, store: &Arc<CrateStore>) -> Vec<u8> {
    let _entered = runtime();
    let all = BlockingStore::new(store, &CancellationToken::new());
    let all = all.checksums().unwrap();
    written(&[number], store, all.clone(), all, None).unwrap()
}

/// The description of an earlier archive of the index at this commit.
fn base(number: u8) -> Option<Base> {
    Some(Base {
        index_commit: commit(number).to_string(),
        archive: "monday.tar".to_owned(),
    })
}

/// An archive of any files.
fn written(
    numbers: &[u8],
    store: &Arc<CrateStore>,
    new: ChecksumList,
    all: ChecksumList,
    base: Option<Base>,
) -> Result<Vec<u8>, WriteError> {
    let _entered = runtime();
    let (index, scratch) = (index_with(numbers), TempDir::new().unwrap());
    let snapshot = current(&index.data_dir()).unwrap();
    let index_base = base.as_ref().map(|base| base.index_commit.parse().unwrap());
    let export = match index_base {
        Some(base) => export_since(&snapshot, base, scratch.path()).unwrap(),
        None => export_all(&snapshot, scratch.path()).unwrap(),
    };
    let manifest = Manifest {
        format: FORMAT,
        tool: TOOL.to_owned(),
        upstream: "https://git.example/index".to_owned(),
        index_commit: export.commit.to_string(),
        index_base: index_base.map(|base: CommitId| base.to_string()),
        index_fetched: Some(FETCHED),
        index_files: export.packs.len() as u64,
        crate_files: new.count(),
        held_files: all.count(),
        base,
    };
    let contents = Contents {
        manifest,
        index: export,
        new,
        all,
    };
    let stop = CancellationToken::new();
    let store = BlockingStore::new(store, &stop);
    let mut bytes = Vec::new();
    write_archive(&contents, &store, &mut bytes, &mut |_event| {}, &stop)?;
    Ok(bytes)
}

/// A data directory and a store to import into.
struct Target {
    /// Removes the data directory when it is dropped.
    _directory: Box<dyn Any>,
    data_dir: std::path::PathBuf,
    store: Arc<CrateStore>,
    events: Vec<ArchiveEvent>,
}

impl Target {
    /// Without an index and crate files.
    fn empty() -> Self {
        let directory = TempDir::new().unwrap();
        let _entered = runtime();
        Self {
            data_dir: directory.path().join("data"),
            _directory: Box::new(directory),
            store: memory_store(),
            events: Vec::new(),
        }
    }

    /// With this index and these crate files.
    fn of(index: TestIndex, contents: &[&str]) -> Self {
        Self {
            data_dir: index.data_dir(),
            _directory: Box::new(index),
            store: store(contents),
            events: Vec::new(),
        }
    }

    fn import(
        &mut self,
        archive: impl Read,
        action: ImportAction,
    ) -> Result<Imported, ImportError> {
        let _entered = runtime();
        let job = ImportJob {
            archive: "-".into(),
            action,
            data_dir: self.data_dir.clone(),
            upstream: RemoteUrl::parse("https://git.example/index").unwrap(),
            store: Arc::clone(&self.store),
            clock: Clock::custom(|| UNIX_EPOCH + Duration::from_secs(FETCHED + 3_600)),
            stop: CancellationToken::new(),
        };
        import_from(archive, &job, &mut |event| self.events.push(event))
    }

    fn commit(&self) -> Option<CommitId> {
        current(&self.data_dir).map(|snapshot| snapshot.commit())
    }

    fn contents(&self) -> Vec<String> {
        contents(&self.store)
    }
}

/// Imports an archive into an empty target.
fn into_nothing(archive: &[u8]) -> (Result<Imported, ImportError>, Target) {
    let mut target = Target::empty();
    let imported = target.import(archive, ImportAction::Import);
    (imported, target)
}

/// The entries of an archive, as name and content.
fn taken_apart(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(archive);
    let entries = tar.entries().unwrap();
    let entries = entries.map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        (name, content)
    });
    entries.collect()
}

/// An archive of any entries.
fn put_together(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}
