//! `import`: an archive into the index and the store.

use std::sync::Arc;

use indicatif::HumanCount;

use crate::archive::{
    ArchiveEvent, ImportAction, ImportError, ImportJob, Imported, IndexPart,
    import as import_archive, wait_until_free,
};
use crate::cli::args::ImportArguments;
use crate::cli::context::{Context, Failed, Outcome};
use crate::cli::progress::ArchiveProgress;
use crate::cli::terminal::Terminal;
use crate::clock::Clock;
use crate::package::Checksum;

/// Reads an archive into the index and the store.
pub(crate) async fn import(
    arguments: ImportArguments,
    context: &Context,
) -> Result<Outcome, Failed> {
    let config = &context.config;
    let action = if arguments.dry_run {
        ImportAction::CheckOnly
    } else {
        ImportAction::Import
    };
    if action == ImportAction::Import {
        let free = wait_until_free(&config.data_dir, &context.stop).await;
        free.map_err(Failed::incomplete)?;
        context.warn_of_a_store_that_forgets();
    }
    let store = context.open_store()?;
    let job = ImportJob {
        archive: arguments.archive,
        action,
        data_dir: config.data_dir.clone(),
        upstream: config.git_repo_url.clone(),
        store: Arc::clone(&store),
        clock: Clock::system(),
        stop: context.stop.clone(),
    };
    let terminal = context.terminal.clone();
    let importing = tokio::task::spawn_blocking(move || run(&job, &terminal));
    let (outcome, stored) = importing.await?;
    Ok(context.check_evicted(outcome, &store, &stored).await)
}

/// Returns the files that were stored, too. Blocking.
fn run(job: &ImportJob, terminal: &Terminal) -> (Outcome, Vec<Checksum>) {
    let (mut progress, mut stored) = (ArchiveProgress::new(terminal), Vec::new());
    let result = import_archive(job, &mut |event| {
        if let ArchiveEvent::Stored(checksum) = event {
            stored.push(checksum);
        }
        progress.show(event);
    });
    drop(progress);
    let outcome = match result {
        Ok(imported) => sum_up(imported, job.action, terminal),
        Err(_because_of_it) if job.stop.is_cancelled() => {
            terminal
                .note("stopped; files that were stored stay, and the index is the one from before");
            Outcome::Incomplete
        }
        Err(error) => {
            terminal.note(&error.to_string());
            match error {
                ImportError::NotOpened { .. }
                | ImportError::NotImportable(_)
                | ImportError::BaseMissing(_) => Outcome::Unusable,
                _ => Outcome::Incomplete,
            }
        }
    };
    (outcome, stored)
}

fn sum_up(imported: Imported, action: ImportAction, terminal: &Terminal) -> Outcome {
    let Imported {
        stored,
        already_stored,
        damaged,
        lost,
        index,
    } = imported;
    if lost > 0 {
        terminal.note(&format!(
            "problem: {} crate files of earlier archives are not here: import those again",
            HumanCount(lost)
        ));
    }
    let done = match action {
        ImportAction::Import => "imported",
        ImportAction::CheckOnly => "would import",
    };
    let index = match index {
        IndexPart::Wanted => "and the index",
        IndexPart::IsHere => "the index is here already",
        IndexPart::IsOlder => "the index here is newer and stays",
    };
    let summary = format!(
        "{done} {} crate files, {index}; {} stored already, {} damaged",
        HumanCount(stored),
        HumanCount(already_stored),
        HumanCount(damaged)
    );
    match terminal.result(&summary) {
        Ok(()) if lost == 0 && damaged == 0 => Outcome::Done,
        _ => Outcome::Incomplete,
    }
}
