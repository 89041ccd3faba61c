//! `verify`: hashing every file of the store again, and repairing damage.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use indicatif::{DecimalBytes, HumanCount};
use tokio::task::JoinSet;

use crate::cli::args::VerifyArguments;
use crate::cli::context::{Context, Failed, Outcome};
use crate::cli::progress::Progress;
use crate::index::{ReadError, ServedIndex};
use crate::package::{Checksum, CrateFile, CrateHistory};
use crate::prefetch::{NoChoice, crate_file, ensure_patiently};
use crate::store::{CrateFiles, CrateStore, FileHealth, StoreError};

/// Files that are hashed at a time, for each processor.
const JOBS_PER_PROCESSOR: usize = 2;

/// Denied files that are named one by one.
const DENIED_NAMED_MAX: usize = 20;

/// What hashing all files found.
#[derive(Debug, Default)]
struct Report {
    files: u64,
    bytes: u64,
    damaged: BTreeSet<Checksum>,
    unreadable: u64,
}

/// Hashes every file, and repairs damage if that is wanted.
pub(crate) async fn verify(
    arguments: &VerifyArguments,
    context: &Context,
) -> Result<Outcome, Failed> {
    let crate_files = context.open_crate_files()?;
    let found = check_all(crate_files.store(), context).await?;
    if !arguments.repair || found.damaged.is_empty() {
        return Ok(found.outcome());
    }
    let outcome = match context.open_index().await {
        Ok(index) => Ok(repair(&found, &crate_files, index, context).await),
        Err(failed) => Err(failed),
    };
    crate_files.stop().await;
    outcome
}

/// Hashes every file, prints the damaged ones, and sums up. `Err` if that was not possible.
async fn check_all(store: &Arc<CrateStore>, context: &Context) -> Result<Report, Failed> {
    let terminal = &context.terminal;
    let listed = store
        .checksums()
        .await
        .map_err(|error| Failed::incomplete(format!("the store cannot be listed: {error}")))?;
    let total = u64::try_from(listed.len()).ok();
    let mut progress = Progress::new(terminal, "crate files", total);
    let listed = Arc::new(listed);
    let mut waiting = listed.iter().copied();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut running = JoinSet::new();
    let mut found = Report::default();
    loop {
        while running.len() < processors * JOBS_PER_PROCESSOR
            && let Some(checksum) = waiting.next()
        {
            let store = Arc::clone(store);
            running.spawn(async move { (checksum, store.verify(&checksum).await) });
        }
        let joined = tokio::select! {
            biased;
            () = context.stop.cancelled() => {
                return Err(Failed::incomplete("stopped before all files were looked at"));
            }
            joined = running.join_next() => joined,
        };
        let Some(joined) = joined else {
            break;
        };
        let (checksum, health) = joined?;
        found.add(checksum, health, context)?;
        progress.update(found.files, &DecimalBytes(found.bytes).to_string());
    }
    drop(progress);
    // A note, because standard output has only checksums: scripts need not tell lines apart.
    terminal.note(&format!(
        "{} files: {} damaged, {} that cannot be read",
        HumanCount(found.files),
        HumanCount(u64::try_from(found.damaged.len()).unwrap_or(u64::MAX)),
        HumanCount(found.unreadable)
    ));
    drop(waiting);
    if context.may_deny()
        && let Err(failed) = tell_of_denied_files(listed, context).await
        && !context.stop.is_cancelled()
    {
        let why = failed.why.unwrap_or_default();
        terminal.note(&format!("warning: {why}"));
    }
    Ok(found)
}

/// Says which stored files the policy denies. They are not damaged, and a change of the policy may allow them again.
async fn tell_of_denied_files(
    stored: Arc<HashSet<Checksum>>,
    context: &Context,
) -> Result<(), Failed> {
    let terminal = &context.terminal;
    let index = context.open_index_on_disk().await?.ok_or_else(|| {
        Failed::incomplete("without an index it is not known which files the policy denies")
    })?;
    context.warn_of(&index);
    let looking = move || index.denied_files(|checksum| stored.contains(checksum));
    let denied = context.blocking(looking).await??;
    for (checksum, why) in denied.iter().take(DENIED_NAMED_MAX) {
        terminal.note(&format!("{checksum} is denied by the policy: {why}"));
    }
    if denied.len() > DENIED_NAMED_MAX {
        let more = denied.len() - DENIED_NAMED_MAX;
        terminal.note(&format!("the policy denies {more} more stored files"));
    }
    Ok(())
}

impl Report {
    fn add(
        &mut self,
        checksum: Checksum,
        health: Result<FileHealth, StoreError>,
        context: &Context,
    ) -> Result<(), Outcome> {
        self.files += 1;
        match health {
            Ok(FileHealth::Intact { size }) => self.bytes += size,
            // It was removed meanwhile, which is no damage.
            Ok(FileHealth::Missing) => {}
            Ok(FileHealth::Damaged) => {
                self.damaged.insert(checksum);
                let said = context.terminal.result(&checksum.to_string());
                said.map_err(|_nobody_reads| Outcome::Incomplete)?;
            }
            Err(error) => {
                self.unreadable += 1;
                let problem = format!("problem: {checksum} cannot be read: {error}");
                context.terminal.note(&problem);
            }
        }
        Ok(())
    }

    fn outcome(&self) -> Outcome {
        if self.damaged.is_empty() && self.unreadable == 0 {
            Outcome::Done
        } else {
            Outcome::Incomplete
        }
    }
}

/// Removes the damaged files, and fetches those again that the index still lists.
async fn repair(
    found: &Report,
    crate_files: &CrateFiles,
    index: ServedIndex,
    context: &Context,
) -> Outcome {
    let terminal = &context.terminal;
    let mut outcome = match found.unreadable {
        0 => Outcome::Done,
        _ => Outcome::Incomplete,
    };
    let wanted = found.damaged.clone();
    let files = match tokio::task::spawn_blocking(move || find(&wanted, &index)).await {
        Ok(Ok(files)) => files,
        Ok(Err(unreadable)) => {
            terminal.note(&format!("the index cannot be read: {unreadable}"));
            return Outcome::Incomplete;
        }
        Err(panic) => return context.end(Err(panic.into())),
    };
    for checksum in &found.damaged {
        let repaired = tokio::select! {
            () = context.stop.cancelled() => {
                terminal.note("stopped before all was repaired");
                return Outcome::Incomplete;
            }
            repaired = repair_one(checksum, files.get(checksum), crate_files) => repaired,
        };
        match repaired {
            Ok(done) => terminal.note(&done),
            Err(why) => {
                terminal.note(&format!("problem: {why}"));
                outcome = Outcome::Incomplete;
            }
        }
    }
    outcome
}

/// Returns what was done for a file, or what is still wrong with it.
async fn repair_one(
    checksum: &Checksum,
    listed: Option<&Result<CrateFile, NoChoice>>,
    crate_files: &CrateFiles,
) -> Result<String, String> {
    let removed = crate_files.store().remove(checksum).await;
    removed.map_err(|error| format!("{checksum} cannot be removed: {error}"))?;
    let file = match listed {
        None => {
            return Ok(format!(
                "{checksum} was removed: the index does not list it"
            ));
        }
        Some(Err(why)) => return Ok(format!("{checksum} was removed: {why}")),
        Some(Ok(file)) => file,
    };
    match ensure_patiently(crate_files, file).await {
        Ok(_stored) => Ok(format!("{checksum} was fetched again: {file}")),
        Err(error) => Err(format!(
            "{checksum} was removed, and {file} is not stored: {error}"
        )),
    }
}

/// Finds the files with these checksums, or why they are not fetched. Reads index files until all are found.
fn find(
    wanted: &BTreeSet<Checksum>,
    index: &ServedIndex,
) -> Result<BTreeMap<Checksum, Result<CrateFile, NoChoice>>, ReadError> {
    let (mut found, mut refused) = (BTreeMap::new(), BTreeMap::new());
    index.for_each_file(|name, file| {
        let history = CrateHistory::parse(&file.content, name);
        for release in history.iter().flat_map(CrateHistory::releases) {
            if let Some(checksum) = release.line.checksum()
                && wanted.contains(&checksum)
            {
                match crate_file(release, file) {
                    Ok(file) => drop(found.insert(checksum, Ok(file))),
                    Err(why) => drop(refused.insert(checksum, Err(why))),
                }
            }
        }
        if found.len() == wanted.len() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    refused.append(&mut found);
    Ok(refused)
}
