//! `export`: the index and the store into an archive.

use std::path::Path;

use indicatif::{DecimalBytes, HumanCount};

use crate::archive::{ExportError, ExportJob, Exported, Scratch, export as export_archive};
use crate::cli::args::ExportArguments;
use crate::cli::context::{Context, Failed, Outcome};
use crate::cli::progress::ArchiveProgress;
use crate::cli::terminal::Terminal;
use crate::clock::Clock;

/// Writes an archive of the index and the store.
pub(crate) async fn export(
    arguments: ExportArguments,
    context: &Context,
) -> Result<Outcome, Failed> {
    // The store opens at once, so its problems are known before the index is fetched.
    let store = context.open_store()?;
    let index = context.open_index().await?;
    // It belongs to this task and not to the thread: the thread may hang because nobody reads from its pipe, and the
    // directory must be removed then, too.
    let scratch = Scratch::create(&context.config.data_dir)
        .map_err(|error| Failed::incomplete(format!("DATA_DIR: cannot write to it: {error}")))?;
    let job = ExportJob {
        archive: arguments.archive,
        since: arguments.since,
        index,
        store,
        scratch: scratch.path.clone(),
        clock: Clock::system(),
        stop: context.stop.clone(),
    };
    let terminal = context.terminal.clone();
    Ok(tokio::task::spawn_blocking(move || run(&job, &terminal)).await?)
}

/// Blocking.
fn run(job: &ExportJob, terminal: &Terminal) -> Outcome {
    let mut progress = ArchiveProgress::new(terminal);
    let result = export_archive(job, &mut |event| progress.show(event));
    drop(progress);
    let Exported { end, denied } = match result {
        Ok(exported) => exported,
        Err(_because_of_it) if job.stop.is_cancelled() => {
            terminal.note("stopped; there is no archive");
            return Outcome::Incomplete;
        }
        Err(error) => {
            terminal.note(&error.to_string());
            return match error {
                ExportError::Earlier { .. } => Outcome::Unusable,
                _ => Outcome::Incomplete,
            };
        }
    };
    let mut summary = format!(
        "exported {} crate files and {} files of the index, {}",
        HumanCount(end.crate_files),
        HumanCount(end.index_files),
        DecimalBytes(end.bytes)
    );
    if denied > 0 {
        let denied = HumanCount(denied);
        summary += &format!("; left out {denied} that the policy denies");
    }
    // Standard output is the archive.
    if job.archive == Path::new("-") {
        terminal.note(&summary);
        return Outcome::Done;
    }
    match terminal.result(&summary) {
        Ok(()) => Outcome::Done,
        Err(_nobody_reads) => Outcome::Incomplete,
    }
}
