//! `import`: an archive into the store and the index.
//!
//! Crate files are kept as they come, each verified: what was kept is of use even if the archive breaks off. The index
//! is switched over at the very end, so it never names files that are still to come.

pub(super) mod index_part;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use indicatif::HumanCount;
use tokio_util::sync::CancellationToken;

use super::checked::{Checked, Verdict};
use super::held::HeldList;
use super::input::Input;
use super::manifest::{Base, Manifest};
use super::ports::{CrateSink, IndexSink, PortError};
use super::read::{ArchiveError, Beginning, Taker, read_archive};
use crate::cli::outcome::Outcome;
use crate::cli::terminal::Terminal;
use crate::cli::watch::Watch;
use crate::clock::Clock;
use crate::package::Checksum;
use index_part::{IndexPart, base_is_here};

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// What `import` shall read.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    /// The archive; `-` is standard input.
    pub(crate) archive: PathBuf,
    /// What is done with it.
    pub(crate) action: ImportAction,
}

/// What is done with an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImportAction {
    /// It is imported.
    Keep,
    /// It is read to its end, and nothing changes.
    CheckOnly,
}

/// Why an archive was not imported, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// It is no good.
    #[error("the archive is no good: {0}")]
    Archive(#[from] ArchiveError),
    /// The archive before it was not imported.
    #[error(
        "this archive builds on `{}`, which has the index at {}: import that one first", .0.archive, .0.index_commit
    )]
    BaseMissing(Base),
    /// The index does not take it.
    #[error("the index cannot be imported: {0}")]
    Index(#[source] PortError),
    /// The store does not take it.
    #[error("crate files cannot be stored: {0}")]
    Store(#[source] PortError),
}

impl ImportError {
    /// Whether it is the archive that is wrong for this, or something that another try may not meet again.
    fn outcome(&self, stage: Stage) -> Outcome {
        match (self, stage) {
            (
                Self::Archive(ArchiveError::NotAnArchive | ArchiveError::Manifest(_))
                | Self::BaseMissing(_),
                _,
            )
            | (Self::Archive(ArchiveError::Malformed { .. }), Stage::Nothing) => Outcome::Unusable,
            (Self::Archive(_) | Self::Index(_) | Self::Store(_), _) => Outcome::Incomplete,
        }
    }
}

/// Reads the archive that was asked for. Blocking.
pub(crate) fn import(
    import: &Import,
    index: &mut impl IndexSink,
    store: &impl CrateSink,
    clock: Clock,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let cannot_read = |error: io::Error| {
        let path = import.archive.display();
        terminal.note(&format!("cannot read {path}: {error}"));
    };
    let mut from = match Input::open(&import.archive, stop) {
        Ok(from) => BufReader::with_capacity(BUFFER_BYTES, from),
        Err(error) => {
            cannot_read(error);
            return Outcome::Unusable;
        }
    };
    // So ends a pipe whose other side has failed: that says nothing against the archive.
    let beginning = from.fill_buf().map(<[u8]>::is_empty);
    match beginning {
        Ok(false) => {}
        Ok(true) => {
            cannot_read(io::Error::other("there is nothing in it"));
            return Outcome::Incomplete;
        }
        // Said below.
        Err(_because_of_it) if stop.is_cancelled() => {}
        Err(error) => {
            cannot_read(error);
            return Outcome::Incomplete;
        }
    }
    import_from(from, import.action, index, store, clock, terminal, stop)
}

fn import_from(
    from: impl Read,
    action: ImportAction,
    index: &mut impl IndexSink,
    store: &impl CrateSink,
    clock: Clock,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let mut importing = Importing {
        index,
        store,
        clock,
        action,
        progress: Stage::Nothing,
        index_part: IndexPart::Wanted,
        held: HeldList::default(),
        counts: Counts::default(),
        passed: Vec::new(),
        watch: Watch::new(terminal),
    };
    let read = read_archive(from, &mut importing, stop).map(|beginning| {
        importing.switch_over(&beginning.manifest)?;
        Ok(importing.lost(&beginning.held))
    });
    match read.flatten() {
        Ok(lost) => importing.sum_up(lost, terminal),
        Err(_because_of_it) if stop.is_cancelled() => {
            terminal
                .note("stopped; files that were stored stay, and the index is the one from before");
            Outcome::Incomplete
        }
        Err(error) => {
            terminal.note(&error.to_string());
            error.outcome(importing.progress)
        }
    }
}

/// Whether anything can have changed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Nothing,
    Begun,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    stored: u64,
    held: u64,
    damaged: u64,
}

struct Importing<'i, I, S> {
    index: &'i mut I,
    store: &'i S,
    clock: Clock,
    action: ImportAction,
    progress: Stage,
    index_part: IndexPart,
    /// What the store held before.
    held: HeldList,
    counts: Counts,
    /// The crate files of the archive, in order.
    passed: Vec<Checksum>,
    watch: Watch,
}

impl<I: IndexSink, S: CrateSink> Taker for Importing<'_, I, S> {
    type Error = ImportError;

    fn begin(&mut self, beginning: &Beginning) -> Result<(), ImportError> {
        let manifest = &self.believed(&beginning.manifest);
        if manifest.index_fetched != beginning.manifest.index_fetched {
            self.watch.say(
                "warning: the archive says that its index was fetched at a time that is still to come: that time is taken as unknown",
            );
        }
        self.held = self.store.held().map_err(ImportError::Store)?.into();
        let index = &*self.index;
        self.index_part = IndexPart::of(manifest, index).map_err(ImportError::Index)?;
        if self.index_part == IndexPart::Wanted
            && let Some(base) = &manifest.base
            && !base_is_here(beginning, &self.held, index).map_err(ImportError::Index)?
        {
            return Err(ImportError::BaseMissing(base.clone()));
        }
        self.watch.expect(manifest.crate_files);
        self.progress = Stage::Begun;
        Ok(())
    }

    fn index_file<R: Read>(
        &mut self,
        name: &str,
        bytes: u64,
        content: &mut Checked<'_, R>,
    ) -> Result<(), ImportError> {
        if !self.replaces_the_index() {
            return Ok(());
        }
        let received = self.index.receive(name, bytes, content);
        received.map_err(ImportError::Index)
    }

    fn crate_file<R: Read>(
        &mut self,
        checksum: Checksum,
        bytes: u64,
        content: &mut Checked<'_, R>,
    ) -> Result<(), ImportError> {
        self.passed.push(checksum);
        let is_held = self.held.contains(&checksum);
        let put = if is_held || self.action == ImportAction::CheckOnly {
            drop(io::copy(content, &mut io::sink()));
            Ok(())
        } else {
            self.store.put(&checksum, bytes, content)
        };
        self.watch.passed(bytes);
        match (content.verdict(), put) {
            (Verdict::WrongChecksum, _) => {
                self.counts.damaged += 1;
                let said = "the archive has something else under this checksum";
                self.watch.say(&format!("problem: {checksum}: {said}"));
            }
            // Others say what is wrong with an archive that breaks off.
            (Verdict::TooShort | Verdict::TooLong | Verdict::Stopped, _) => {}
            (_, Err(refused)) => return Err(ImportError::Store(refused)),
            (_, Ok(())) if is_held => self.counts.held += 1,
            (_, Ok(())) => self.counts.stored += 1,
        }
        Ok(())
    }
}

impl<I, S> Importing<'_, I, S> {
    /// A manifest without a time that is ahead of the clock: with it the index would pass for fresh, and for newer than
    /// every one to come.
    fn believed(&self, manifest: &Manifest) -> Manifest {
        let is_past = |seconds: &u64| {
            let time = UNIX_EPOCH.checked_add(Duration::from_secs(*seconds));
            time.is_some_and(|time| self.clock.age(time).is_some())
        };
        Manifest {
            index_fetched: manifest.index_fetched.filter(is_past),
            ..manifest.clone()
        }
    }
}

impl<I: IndexSink, S: CrateSink> Importing<'_, I, S> {
    fn replaces_the_index(&self) -> bool {
        self.index_part == IndexPart::Wanted && self.action == ImportAction::Keep
    }

    fn switch_over(&mut self, manifest: &Manifest) -> Result<(), ImportError> {
        if !self.replaces_the_index() {
            return Ok(());
        }
        let manifest = self.believed(manifest);
        self.index
            .switch_over(&manifest)
            .map_err(ImportError::Index)
    }

    /// How many files should be here from earlier archives, and are not.
    fn lost(&self, expected: &HeldList) -> u64 {
        let here = |checksum: &&Checksum| {
            self.held.contains(checksum) || self.passed.binary_search(checksum).is_ok()
        };
        let lost = expected.iter().filter(|checksum| !here(checksum));
        u64::try_from(lost.count()).unwrap_or(u64::MAX)
    }

    fn sum_up(&self, lost: u64, terminal: &Terminal) -> Outcome {
        if lost > 0 {
            terminal.note(&format!(
                "problem: {} crate files of earlier archives are not here: import those again",
                HumanCount(lost)
            ));
        }
        let Counts {
            stored,
            held,
            damaged,
        } = self.counts;
        let done = match self.action {
            ImportAction::Keep => "imported",
            ImportAction::CheckOnly => "would import",
        };
        let index = match self.index_part {
            IndexPart::Wanted => "and the index",
            IndexPart::IsHere => "the index is here already",
            IndexPart::IsOlder => "the index here is newer and stays",
        };
        let summary = format!(
            "{done} {} crate files, {index}; {} held already, {} damaged",
            HumanCount(stored),
            HumanCount(held),
            HumanCount(damaged)
        );
        match terminal.result(&summary) {
            Ok(()) if lost == 0 && damaged == 0 => Outcome::Done,
            _ => Outcome::Incomplete,
        }
    }
}
