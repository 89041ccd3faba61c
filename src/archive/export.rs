//! `export`: the index and the store into an archive, or what is new in them since an earlier one.

use std::io;
use std::path::{Path, PathBuf};

use indicatif::{DecimalBytes, HumanCount};
use tokio_util::sync::CancellationToken;

use super::earlier::{Earlier, EarlierError};
use super::held::HeldList;
use super::manifest::End;
use super::output::Output;
use super::ports::{CrateSource, IndexSource, PortError};
use super::write::{Contents, WriteError, write_archive};
use crate::cli::outcome::Outcome;
use crate::cli::terminal::Terminal;
use crate::cli::watch::Watch;

/// What `export` shall write.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    /// The archive; `-` is standard output.
    pub(crate) archive: PathBuf,
    /// The archive that it shall build on.
    pub(crate) since: Option<PathBuf>,
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportError {
    /// The earlier archive is no good for this.
    #[error("--since {}: {why}", path.display())]
    Earlier {
        /// The archive.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        why: EarlierError,
    },
    /// The index does not give what it should.
    #[error("the index cannot be exported: {0}")]
    Index(#[source] PortError),
    /// The store cannot be listed.
    #[error("the store cannot be listed: {0}")]
    Store(#[source] PortError),
    /// The archive cannot be made where it should be.
    #[error("cannot write {}: {source}", path.display())]
    Output {
        /// The archive.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be written to its end.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl ExportError {
    /// Arguments that are no good are the caller's to mend.
    fn outcome(&self) -> Outcome {
        match self {
            Self::Earlier { .. } => Outcome::Unusable,
            Self::Index(_) | Self::Store(_) | Self::Output { .. } | Self::Write(_) => {
                Outcome::Incomplete
            }
        }
    }
}

/// Writes the archive. Blocking.
pub(crate) fn export(
    export: &Export,
    index: &impl IndexSource,
    store: &impl CrateSource,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    match write(export, index, store, terminal, stop) {
        Ok(end) => say(export, &end, terminal),
        Err(_because_of_it) if stop.is_cancelled() => {
            terminal.note("stopped; there is no archive");
            Outcome::Incomplete
        }
        Err(error) => {
            terminal.note(&error.to_string());
            error.outcome()
        }
    }
}

fn write(
    export: &Export,
    index: &impl IndexSource,
    store: &impl CrateSource,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Result<End, ExportError> {
    let earlier = match &export.since {
        Some(path) => Some(Earlier::read(path, &export.archive).map_err(no_good(path))?),
        None => None,
    };
    let contents = gather(earlier, index, store)?;
    let failed = |source| ExportError::Output {
        path: export.archive.clone(),
        source,
    };
    let mut output = Output::create(&export.archive).map_err(failed)?;
    let mut watch = Watch::new(terminal);
    let end = write_archive(contents, store, &mut output, &mut watch, stop)?;
    output.complete().map_err(failed)?;
    Ok(end)
}

/// What the archive shall hold. The list of the store comes first: a file that is added meanwhile is in the next one.
fn gather(
    earlier: Option<Earlier>,
    index: &impl IndexSource,
    store: &impl CrateSource,
) -> Result<Contents, ExportError> {
    let held = HeldList::from(store.held().map_err(ExportError::Store)?);
    let base = earlier.as_ref().map(Earlier::base);
    let since = base.as_ref().map(|base| base.index_commit.as_str());
    let index = index.export(since).map_err(ExportError::Index)?;
    let Some(earlier) = earlier else {
        return Ok(Contents {
            index,
            new: held.clone(),
            held,
            base: None,
        });
    };
    let same_index = earlier.check_upstream(&index.upstream);
    same_index.map_err(no_good(&earlier.path))?;
    Ok(Contents {
        index,
        new: held.without(&earlier.beginning.held),
        held: held.with(&earlier.beginning.held),
        base,
    })
}

fn no_good(path: &Path) -> impl FnOnce(EarlierError) -> ExportError {
    let path = path.to_owned();
    |why| ExportError::Earlier { path, why }
}

fn say(export: &Export, end: &End, terminal: &Terminal) -> Outcome {
    let summary = format!(
        "exported {} crate files and {} files of the index, {}",
        HumanCount(end.crate_files),
        HumanCount(end.index_files),
        DecimalBytes(end.bytes)
    );
    if export.archive == Path::new("-") {
        terminal.note(&summary);
        return Outcome::Done;
    }
    match terminal.result(&summary) {
        Ok(()) => Outcome::Done,
        Err(_nobody_reads) => Outcome::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;
    use crate::archive::read::{Beginning, read_beginning};
    use crate::archive::testing::{MemoryStore, checksum, index_at, written};
    use crate::cli::terminal::testing::remembering;

    fn exported(
        archive: &Path,
        since: Option<&Path>,
        number: u8,
        store: &MemoryStore,
    ) -> (Outcome, String) {
        let (terminal, written) = remembering();
        let arguments = Export {
            archive: archive.to_owned(),
            since: since.map(Path::to_owned),
        };
        let stop = CancellationToken::new();
        let outcome = export(&arguments, &index_at(number), store, &terminal, &stop);
        (outcome, written.results() + &written.notes())
    }

    fn beginning(path: &Path) -> Beginning {
        read_beginning(File::open(path).unwrap()).unwrap()
    }

    #[test]
    fn each_archive_has_what_is_new_and_lists_all() {
        let directory = tempfile::tempdir().unwrap();
        let [monday, tuesday, wednesday] =
            ["monday.tar", "tuesday.tar", "wednesday.tar"].map(|name| directory.path().join(name));
        let (outcome, said) = exported(&monday, None, 1, &MemoryStore::of(&["a", "b"]));
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(
            said,
            "exported 2 crate files and 1 files of the index, 42 B\n"
        );
        // `a` is no longer held here, but the other side has it.
        let (outcome, said) = exported(&tuesday, Some(&monday), 2, &MemoryStore::of(&["b", "c"]));
        assert_eq!(outcome, Outcome::Done);
        assert!(said.starts_with("exported 1 crate files"), "{said}");
        let after = beginning(&tuesday);
        assert_eq!((after.manifest.crate_files, after.held.count()), (1, 3));
        let base = after.manifest.base.unwrap();
        assert_eq!(
            (base.archive.as_str(), after.manifest.index_base),
            ("monday.tar", Some(base.index_commit))
        );
        let (_, said) = exported(
            &wednesday,
            Some(&tuesday),
            3,
            &MemoryStore::of(&["a", "b", "c"]),
        );
        assert!(said.starts_with("exported 0 crate files"), "{said}");
    }

    #[test]
    fn an_earlier_archive_that_is_no_good_is_bad_usage_and_nothing_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let store = MemoryStore::of(&["a"]);
        let [good, junk, target] =
            ["good", "junk", "target"].map(|name| directory.path().join(name));
        exported(&good, None, 1, &store);
        std::fs::write(&junk, "junk").unwrap();
        for (since, archive, words) in [
            (&junk, &target, "not an archive"),
            (&directory.path().join("absent"), &target, "cannot be read"),
            (&good, &good, "must be another file"),
        ] {
            let (outcome, said) = exported(archive, Some(since), 2, &store);
            assert_eq!(outcome, Outcome::Unusable);
            assert!(
                said.starts_with("--since ") && said.contains(words),
                "{said}"
            );
        }
        assert!(!target.exists());
        assert_eq!(beginning(&good).manifest.crate_files, 1);
    }

    #[test]
    fn a_damaged_or_vanished_file_of_the_store_leaves_no_archive() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("target");
        let store = MemoryStore::of(&["a"]);
        store
            .0
            .borrow_mut()
            .insert(checksum("b"), b"not b".to_vec());
        let (outcome, said) = exported(&target, None, 1, &store);
        assert_eq!(outcome, Outcome::Incomplete);
        assert!(
            said.contains("is damaged") && said.contains("verify --repair"),
            "{said}"
        );
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
        let gone = HeldList::from(vec![checksum("gone")]);
        let error = written(1, &MemoryStore::default(), gone.clone(), gone, None).unwrap_err();
        assert!(
            error.to_string().contains("cannot be read: gone"),
            "{error}"
        );
    }
}
