//! A store and an index in memory, and archives made from them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Cursor, Read};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use super::held::HeldList;
use super::manifest::{Base, Manifest};
use super::ports::{
    CrateSink, CrateSource, CurrentIndex, IndexExport, IndexSink, IndexSource, OpenFile, PortError,
};
use super::write::{Contents, WriteError, write_archive};
use crate::cli::terminal::testing::remembering;
use crate::cli::watch::Watch;
use crate::package::Checksum;

/// Where the index in memory comes from.
pub(crate) const UPSTREAM: &str = "https://git.example/index";

/// When that was last asked.
pub(crate) const FETCHED: u64 = 1_700_000_000;

/// A store in memory.
#[derive(Clone, Default)]
pub(crate) struct MemoryStore(pub(crate) RefCell<BTreeMap<Checksum, Vec<u8>>>);

/// An index in memory: the commits that are here, the last of them the current one.
#[derive(Default)]
pub(crate) struct MemoryIndex {
    pub(crate) commits: Vec<String>,
    /// The time in the manifest of the last one that came.
    pub(crate) fetched: Option<u64>,
    received: BTreeSet<String>,
}

/// The commit of this number.
pub(crate) fn commit(number: u8) -> String {
    format!("{number:040x}")
}

impl MemoryStore {
    /// A store of these contents.
    pub(crate) fn of(contents: &[&str]) -> Self {
        let store = Self::default();
        for content in contents {
            let bytes = content.as_bytes().to_vec();
            store.0.borrow_mut().insert(checksum(content), bytes);
        }
        store
    }

    /// All contents, sorted.
    pub(crate) fn contents(&self) -> Vec<String> {
        let files = self.0.borrow();
        let mut contents: Vec<String> = files
            .values()
            .map(|content| String::from_utf8(content.clone()).unwrap())
            .collect();
        contents.sort();
        contents
    }
}

/// The checksum of a content.
pub(crate) fn checksum(content: &str) -> Checksum {
    let hash: [u8; 32] = Sha256::digest(content).into();
    hash.into()
}

fn opened(content: Vec<u8>) -> OpenFile {
    OpenFile {
        bytes: content.len() as u64,
        content: Box::new(Cursor::new(content)),
    }
}

impl CrateSource for MemoryStore {
    fn held(&self) -> Result<Vec<Checksum>, PortError> {
        Ok(self.0.borrow().keys().copied().collect())
    }

    fn open(&self, checksum: &Checksum) -> Result<OpenFile, PortError> {
        let files = self.0.borrow();
        let content = files
            .get(checksum)
            .ok_or_else(|| PortError("gone".into()))?;
        Ok(opened(content.clone()))
    }
}

impl CrateSink for MemoryStore {
    fn held(&self) -> Result<Vec<Checksum>, PortError> {
        CrateSource::held(self)
    }

    fn put(
        &self,
        checksum: &Checksum,
        bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), PortError> {
        let mut kept = Vec::new();
        content
            .take(bytes)
            .read_to_end(&mut kept)
            .map_err(|error| PortError(error.into()))?;
        if kept == b"refused" {
            return Err(PortError("the disk is full".into()));
        }
        self.0.borrow_mut().insert(*checksum, kept);
        Ok(())
    }
}

impl IndexSource for MemoryIndex {
    fn export(&self, since: Option<&str>) -> Result<IndexExport, PortError> {
        let commit = self.commits.last().unwrap().clone();
        Ok(IndexExport {
            base: since.map(str::to_owned),
            upstream: UPSTREAM.to_owned(),
            fetched: Some(FETCHED),
            files: vec![(format!("pack-{commit}.pack"), opened(commit.clone().into()))],
            commit,
        })
    }
}

impl IndexSink for MemoryIndex {
    fn current(&self) -> Result<Option<CurrentIndex>, PortError> {
        Ok(self.commits.last().map(|commit| CurrentIndex {
            commit: commit.clone(),
            fetched: Some(FETCHED),
        }))
    }

    fn has(&self, commit: &str) -> Result<bool, PortError> {
        Ok(self.commits.iter().any(|known| known == commit))
    }

    fn receive(
        &mut self,
        _name: &str,
        _bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), PortError> {
        let mut commit = String::new();
        let read = content.read_to_string(&mut commit);
        read.map_err(|error| PortError(error.into()))?;
        self.received.insert(commit);
        Ok(())
    }

    fn switch_over(&mut self, manifest: &Manifest) -> Result<(), PortError> {
        if !self.received.contains(&manifest.index_commit) {
            return Err(PortError("the pack is not here".into()));
        }
        self.commits.push(manifest.index_commit.clone());
        self.fetched = manifest.index_fetched;
        Ok(())
    }
}

/// An index at this commit, which has seen none before.
pub(crate) fn index_at(number: u8) -> MemoryIndex {
    index_with(&[number])
}

/// An index that has seen these commits, and is at the last of them.
pub(crate) fn index_with(numbers: &[u8]) -> MemoryIndex {
    MemoryIndex {
        commits: numbers.iter().map(|number| commit(*number)).collect(),
        fetched: None,
        received: BTreeSet::new(),
    }
}

/// An archive of this store and an index at this commit.
pub(crate) fn archive(number: u8, store: &MemoryStore) -> Vec<u8> {
    let held = HeldList::from(CrateSource::held(store).unwrap());
    written(number, store, held.clone(), held, None).unwrap()
}

/// An archive of whatever.
pub(crate) fn written(
    number: u8,
    store: &MemoryStore,
    new: HeldList,
    held: HeldList,
    base: Option<Base>,
) -> Result<Vec<u8>, WriteError> {
    let since = base.as_ref().map(|base| base.index_commit.as_str());
    let contents = Contents {
        index: index_at(number).export(since).unwrap(),
        new,
        held,
        base,
    };
    let (terminal, _) = remembering();
    let mut bytes = Vec::new();
    let mut watch = Watch::new(&terminal);
    let stop = CancellationToken::new();
    write_archive(contents, store, &mut bytes, &mut watch, &stop)?;
    Ok(bytes)
}
