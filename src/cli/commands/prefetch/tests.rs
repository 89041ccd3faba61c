//! The whole verb, on an index in memory and a keeper that only says what it would do.

use std::collections::HashMap;
use std::sync::Mutex;

use super::*;
use crate::cli::terminal::testing::remembering;
use crate::prefetch::closure::Dependencies;
use crate::prefetch::index_reader::testing::{MapIndex, checksum_of, dependency};
use crate::prefetch::lockfile::{OwnSources, parse_lockfile};
use crate::prefetch::tally::Ensured;

/// Fetches everything but what it was told to fail on, and knows afterwards what it holds.
#[derive(Default)]
struct FakeKeeper {
    failing: HashMap<&'static str, EnsureError>,
    held: Mutex<Vec<String>>,
}

impl CrateKeeper for FakeKeeper {
    async fn ensure(&self, file: &CrateFile) -> Result<Ensured, EnsureError> {
        let name = file.to_string();
        if let Some(error) = self.failing.get(name.as_str()) {
            return Err(error.clone());
        }
        let mut held = self.held.lock().unwrap();
        if held.contains(&name) {
            return Ok(Ensured::AlreadyHeld);
        }
        held.push(name);
        Ok(Ensured::Fetched { bytes: 1_000 })
    }
}

fn index() -> MapIndex {
    MapIndex::default()
        .publish("a", "1.0.0", &[&dependency("b", "^1", "")])
        .publish("a", "1.1.0", &[&dependency("b", "^1", "")])
        .publish("b", "1.0.0", &[])
        .publish("b", "1.0.1", &[])
        .yank("b", "1.0.0")
}

fn named(crates: &[&str], lockfile: &str) -> Selection {
    Selection::Named(Wanted {
        locked: parse_lockfile(lockfile, &OwnSources::default()).unwrap(),
        crates: crates.iter().map(|spec| spec.parse().unwrap()).collect(),
        dependencies: Dependencies::ToBuild,
    })
}

const FETCH: Action = Action::Fetch {
    jobs: NonZeroUsize::MIN,
};

async fn run(
    selection: Selection,
    action: Action,
    index: MapIndex,
    keeper: &Arc<FakeKeeper>,
) -> (Outcome, String, String) {
    let (terminal, written) = remembering();
    let arguments = Prefetch { selection, action };
    let keeper = Arc::clone(keeper);
    let stop = CancellationToken::new();
    let outcome = prefetch(arguments, Arc::new(index), keeper, &terminal, &stop).await;
    (outcome, written.results(), written.notes())
}

#[tokio::test]
async fn what_is_wanted_is_fetched_once_and_is_there_the_next_time() {
    let keeper = Arc::new(FakeKeeper::default());
    let (outcome, results, notes) = run(named(&["a"], ""), FETCH, index(), &keeper).await;
    assert_eq!((outcome, notes.as_str()), (Outcome::Done, ""));
    assert_eq!(
        results,
        "2 files: 2 fetched (2.00 kB), 0 held already, 0 missing upstream, 0 failed\n"
    );
    assert_eq!(*keeper.held.lock().unwrap(), ["a 1.1.0", "b 1.0.1"]);
    let (outcome, results, _) = run(named(&["a"], ""), FETCH, index(), &keeper).await;
    assert_eq!(outcome, Outcome::Done);
    assert!(results.contains("2 held already"), "{results}");
}

#[tokio::test]
async fn a_list_is_a_crate_list_of_exact_versions() {
    let keeper = Arc::new(FakeKeeper::default());
    let (outcome, results, _) = run(named(&["a"], ""), Action::List, index(), &keeper).await;
    assert_eq!(
        (outcome, results.as_str()),
        (Outcome::Done, "a@1.1.0\nb@1.0.1\n")
    );
    assert!(keeper.held.lock().unwrap().is_empty());
}

#[tokio::test]
async fn everything_is_every_version_yanked_ones_included() {
    let keeper = Arc::new(FakeKeeper::default());
    let (outcome, results, _) = run(Selection::Everything, Action::List, index(), &keeper).await;
    assert_eq!(outcome, Outcome::Done);
    assert_eq!(results, "a@1.0.0\na@1.1.0\nb@1.0.0\nb@1.0.1\n");
    let (outcome, results, _) = run(Selection::Everything, FETCH, index(), &keeper).await;
    assert_eq!(outcome, Outcome::Done);
    assert!(results.starts_with("4 files: 4 fetched"), "{results}");
}

#[tokio::test]
async fn what_cannot_be_had_is_told_and_all_else_is_fetched() {
    let mut keeper = FakeKeeper::default();
    keeper.failing.insert("a 1.1.0", EnsureError::Missing);
    let keeper = Arc::new(keeper);
    let wrong = checksum_of("b", "other");
    let lockfile = format!(
        "[[package]]\nname = \"b\"\nversion = \"1.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{wrong}\"\n"
    );
    let selection = named(&["a", "nothing"], &lockfile);
    let (outcome, results, notes) = run(selection, FETCH, index(), &keeper).await;
    assert_eq!(outcome, Outcome::Incomplete);
    let problems: Vec<&str> = notes.lines().collect();
    assert_eq!(problems.len(), 3, "{notes}");
    assert!(
        problems.iter().all(|line| line.starts_with("problem: ")),
        "{notes}"
    );
    assert!(notes.contains("a 1.1.0: no upstream has it"), "{notes}");
    assert!(
        results.contains("1 fetched") && results.contains("1 missing upstream"),
        "{results}"
    );
}

#[tokio::test]
async fn a_problem_of_the_plan_counts_even_if_all_files_were_fetched() {
    let keeper = Arc::new(FakeKeeper::default());
    let (outcome, results, notes) = run(named(&["b", "c"], ""), FETCH, index(), &keeper).await;
    assert_eq!(outcome, Outcome::Incomplete);
    assert!(results.contains("1 fetched"), "{results}");
    assert_eq!(notes, "problem: c: there is no such crate in the index\n");
}

#[tokio::test]
async fn an_index_that_cannot_be_read_is_said_once_and_nothing_is_fetched() {
    let keeper = Arc::new(FakeKeeper::default());
    let (outcome, results, notes) = run(named(&["broken"], ""), FETCH, index(), &keeper).await;
    assert_eq!((outcome, results.as_str()), (Outcome::Incomplete, ""));
    assert_eq!(notes, "the index cannot be read: a bad block\n");
}
