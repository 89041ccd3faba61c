//! `verify`: hashing every file of the store again, and putting right what is wrong.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use indicatif::HumanCount;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::cli::outcome::Outcome;
use crate::cli::terminal::Terminal;
use crate::cli::watch::Watch;
use crate::package::{Checksum, CrateFile, CrateHistory};
use crate::prefetch::{CrateKeeper, IndexReader, IndexUnreadable};

/// Files that are hashed at a time, for each processor.
const JOBS_PER_PROCESSOR: usize = 2;

/// A store whose files can be looked at.
pub(crate) trait CheckableStore: Send + Sync + 'static {
    /// The checksums of all files.
    fn held(&self) -> impl Future<Output = Result<Vec<Checksum>, String>> + Send;

    /// Reads a file and hashes it.
    fn check(&self, checksum: &Checksum) -> impl Future<Output = Result<Health, String>> + Send;

    /// Removes a file.
    fn remove(&self, checksum: &Checksum) -> impl Future<Output = Result<(), String>> + Send;
}

/// What a look at a file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It is what it should be.
    Good {
        /// Its size.
        bytes: u64,
    },
    /// It is something else.
    Damaged,
    /// It is gone; that is no damage.
    Gone,
}

/// What a look at all files found.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    files: u64,
    damaged: BTreeSet<Checksum>,
    unreadable: u64,
}

impl Checked {
    /// The files that are something else than they should be.
    pub(crate) fn damaged(&self) -> &BTreeSet<Checksum> {
        &self.damaged
    }

    fn count(&mut self, checksum: Checksum, health: &Result<Health, String>) {
        self.files += 1;
        match health {
            Ok(Health::Good { .. } | Health::Gone) => {}
            Ok(Health::Damaged) => {
                self.damaged.insert(checksum);
            }
            Err(_said) => self.unreadable += 1,
        }
    }
}

/// Hashes every file, prints those that are damaged, and sums up. `Err` if that could not be done to its end.
pub(crate) async fn check_all(
    store: &Arc<impl CheckableStore>,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Result<Checked, Outcome> {
    let failed = |said: String| {
        terminal.note(&format!("the store cannot be listed: {said}"));
        Outcome::Incomplete
    };
    let mut waiting = store.held().await.map_err(failed)?.into_iter();
    let mut watch = Watch::new(terminal);
    watch.expect(u64::try_from(waiting.len()).unwrap_or(u64::MAX));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut running = JoinSet::new();
    let mut checked = Checked::default();
    loop {
        while running.len() < processors * JOBS_PER_PROCESSOR
            && let Some(checksum) = waiting.next()
        {
            let store = Arc::clone(store);
            running.spawn(async move { (checksum, store.check(&checksum).await) });
        }
        let joined = tokio::select! {
            biased;
            () = stop.cancelled() => {
                terminal.note("stopped before all files were looked at");
                return Err(Outcome::Incomplete);
            }
            joined = running.join_next() => joined,
        };
        let Some(joined) = joined else {
            break;
        };
        note(joined, &mut checked, &mut watch, terminal)?;
    }
    drop(watch);
    sum_up(&checked, terminal);
    Ok(checked)
}

fn note(
    joined: Result<(Checksum, Result<Health, String>), JoinError>,
    checked: &mut Checked,
    watch: &mut Watch,
    terminal: &Terminal,
) -> Result<(), Outcome> {
    let (checksum, health) = joined.map_err(|mistake| {
        terminal.note(&format!("a mistake in the mirror: {mistake}"));
        Outcome::Incomplete
    })?;
    checked.count(checksum, &health);
    match health {
        Ok(Health::Good { bytes }) => watch.passed(bytes),
        Ok(Health::Gone) => watch.passed(0),
        Ok(Health::Damaged) => {
            watch.passed(0);
            say(terminal, &checksum.to_string())?;
        }
        Err(said) => {
            watch.passed(0);
            terminal.note(&format!("problem: {checksum} cannot be read: {said}"));
        }
    }
    Ok(())
}

fn sum_up(checked: &Checked, terminal: &Terminal) {
    let summary = format!(
        "{} files: {} damaged, {} that cannot be read",
        HumanCount(checked.files),
        HumanCount(u64::try_from(checked.damaged.len()).unwrap_or(u64::MAX)),
        HumanCount(checked.unreadable)
    );
    // Standard output is for the checksums, so that a script need not tell lines apart.
    terminal.note(&summary);
}

/// What scripts get to see of what was checked.
pub(crate) fn outcome_of(checked: &Checked) -> Outcome {
    if checked.damaged.is_empty() && checked.unreadable == 0 {
        Outcome::Done
    } else {
        Outcome::Incomplete
    }
}

/// Removes what is damaged, and fetches again what the index still lists.
pub(crate) async fn repair(
    checked: Checked,
    store: &Arc<impl CheckableStore>,
    keeper: &Arc<impl CrateKeeper>,
    index: Arc<impl IndexReader + Send + Sync + 'static>,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let mut outcome = match checked.unreadable {
        0 => Outcome::Done,
        _ => Outcome::Incomplete,
    };
    let wanted = checked.damaged.clone();
    let found = tokio::task::spawn_blocking(move || find(&wanted, &*index)).await;
    let files = match found {
        Ok(Ok(files)) => files,
        Ok(Err(unreadable)) => return give_up(terminal, &unreadable.to_string()),
        Err(mistake) => return give_up(terminal, &format!("a mistake in the mirror: {mistake}")),
    };
    for checksum in &checked.damaged {
        let repaired = tokio::select! {
            () = stop.cancelled() => return give_up(terminal, "stopped before all was repaired"),
            repaired = repair_one(checksum, files.get(checksum), store, keeper) => repaired,
        };
        match repaired {
            Ok(done) => terminal.note(&done),
            Err(said) => {
                terminal.note(&format!("problem: {said}"));
                outcome = Outcome::Incomplete;
            }
        }
    }
    outcome
}

/// What was done for one file, or what is still wrong with it.
async fn repair_one(
    checksum: &Checksum,
    file: Option<&CrateFile>,
    store: &Arc<impl CheckableStore>,
    keeper: &Arc<impl CrateKeeper>,
) -> Result<String, String> {
    let removed = store.remove(checksum).await;
    removed.map_err(|said| format!("{checksum} cannot be removed: {said}"))?;
    let Some(file) = file else {
        return Ok(format!(
            "{checksum} was removed: the index does not list it"
        ));
    };
    match keeper.ensure(file).await {
        Ok(_held) => Ok(format!("{checksum} was fetched again: {file}")),
        Err(error) => Err(format!(
            "{checksum} was removed, and {file} is not held: {error}"
        )),
    }
}

fn give_up(terminal: &Terminal, why: &str) -> Outcome {
    terminal.note(why);
    Outcome::Incomplete
}

fn say(terminal: &Terminal, line: &str) -> Result<(), Outcome> {
    terminal
        .result(line)
        .map_err(|_nobody_reads| Outcome::Incomplete)
}

/// Which files these checksums belong to. Reads every index file, until all are found.
fn find(
    wanted: &BTreeSet<Checksum>,
    index: &impl IndexReader,
) -> Result<BTreeMap<Checksum, CrateFile>, IndexUnreadable> {
    let mut found = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(found);
    }
    index.visit_index_files(&mut |name, content| {
        let history = CrateHistory::parse(content, name);
        for release in history.iter().flat_map(CrateHistory::releases) {
            if let Some(checksum) = release.line.checksum()
                && wanted.contains(&checksum)
            {
                let file = CrateFile {
                    name: release.line.name.clone(),
                    version: release.version().clone(),
                    checksum,
                };
                found.insert(checksum, file);
            }
        }
        if found.len() == wanted.len() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    Ok(found)
}
