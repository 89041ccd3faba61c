//! `export` and `import`, between an archive and what lies in `DATA_DIR` and in the store.
//!
//! Archives block while they are written and read, so all of it runs on a blocking thread.

pub(super) mod index;
pub(super) mod scratch;
pub(super) mod store;

use std::io;

use tokio_util::sync::CancellationToken;

use super::opening::{open_index, open_store_without_upstreams, warn_of_a_store_that_forgets};
use super::outcome::Outcome;
use super::terminal::Terminal;
use crate::archive::{Export, Import, ImportAction, export, import};
use crate::clock::Clock;
use crate::config::Config;
use index::{ExportedIndex, ImportedIndex};
use scratch::Scratch;
use store::CarriedStore;

/// Writes an archive of what is here.
pub(super) async fn run_export(
    arguments: Export,
    config: &Config,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let store = match open_store_without_upstreams(config) {
        Ok(keeper) => CarriedStore::new(keeper, stop),
        Err(error) => return cannot_begin(terminal, &error),
    };
    let index = match open_index(config, terminal, stop).await {
        Ok(index) => index,
        Err(error) => return cannot_begin(terminal, &error),
    };
    // Not on the thread: one that hangs, because nobody reads from its pipe, must leave nothing behind either.
    let scratch = match Scratch::create(&config.data_dir) {
        Ok(scratch) => scratch,
        Err(error) => return cannot_begin(terminal, &no_scratch(error)),
    };
    let index = ExportedIndex::new(index, scratch.path(), Clock::system());
    let (terminal, stop) = (terminal.clone(), stop.clone());
    on_a_blocking_thread(move || export(&arguments, &index, &store, &terminal, &stop)).await
}

/// Reads an archive into what is here.
pub(super) async fn run_import(
    arguments: Import,
    config: &Config,
    terminal: &Terminal,
    stop: &CancellationToken,
) -> Outcome {
    let mut index = ImportedIndex::new(
        &config.data_dir,
        &config.git_repo_url,
        Clock::system(),
        stop,
    );
    if arguments.action == ImportAction::Keep {
        if let Err(refused) = index.wait_until_free().await {
            return cannot_begin(terminal, &refused);
        }
        warn_of_a_store_that_forgets(config, terminal);
    }
    let keeper = match open_store_without_upstreams(config) {
        Ok(keeper) => keeper,
        Err(error) => return cannot_begin(terminal, &error),
    };
    let store = CarriedStore::new(keeper.clone(), stop);
    let (seen_to, said, stop) = (store.seen_to(), terminal.clone(), stop.clone());
    let importing = move || {
        import(
            &arguments,
            &mut index,
            &store,
            Clock::system(),
            &said,
            &stop,
        )
    };
    let outcome = on_a_blocking_thread(importing).await;
    seen_to.outcome(outcome, &keeper, terminal).await
}

async fn on_a_blocking_thread(work: impl FnOnce() -> Outcome + Send + 'static) -> Outcome {
    let done = tokio::task::spawn_blocking(work).await;
    // A mistake has been said by then.
    done.unwrap_or(Outcome::Incomplete)
}

fn cannot_begin(terminal: &Terminal, why: &dyn std::error::Error) -> Outcome {
    terminal.note(&why.to_string());
    Outcome::Incomplete
}

fn no_scratch(error: io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("DATA_DIR: cannot write to it: {error}"),
    )
}
