//! The whole subcommand, on a real index and with a real upstream.

use super::*;
use crate::cli::testing::{context, crate_files};
use crate::prefetch::testing::{IndexFiles, checksum_of, damaged, dependency};

fn index() -> IndexFiles {
    IndexFiles::default()
        .publish("a", "1.0.0", &[&dependency("b", "^1", "")])
        .publish("a", "1.1.0", &[&dependency("b", "^1", "")])
        .publish("b", "1.0.0", &[])
        .publish("b", "1.0.1", &[])
        .yank("b", "1.0.0")
}

const ALL: [(&str, &str); 4] = [
    ("a", "1.0.0"),
    ("a", "1.1.0"),
    ("b", "1.0.0"),
    ("b", "1.0.1"),
];

const FETCH: Action = Action::Fetch {
    jobs: NonZeroUsize::MIN,
};

fn named(crates: &[&str], lockfile: Option<&str>) -> Selection {
    let mut wanted = Wanted {
        locked: Vec::new(),
        crates: crates.iter().map(|spec| spec.parse().unwrap()).collect(),
        dependencies: Dependencies::ToBuild,
    };
    if let Some(lockfile) = lockfile {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("Cargo.lock");
        std::fs::write(&path, lockfile).unwrap();
        wanted.add_lockfile(path, &OwnSources::default()).unwrap();
    }
    Selection::Named(wanted)
}

/// Outcome, results and notes.
async fn ran(
    selection: Selection,
    action: Action,
    crate_files: &CrateFiles,
) -> (Outcome, String, String) {
    let index = tokio::task::spawn_blocking(|| index().cloned())
        .await
        .unwrap();
    let (context, written) = context(&[]);
    let snapshot = index.snapshot.clone();
    let (outcome, _stored) = run(selection, action, snapshot, crate_files, &context).await;
    (outcome, written.results(), written.notes())
}

async fn stored(crate_files: &CrateFiles) -> Vec<&'static str> {
    let stored = crate_files.store().checksums().await.unwrap();
    let is_stored = |(name, version): &(&str, &str)| {
        let checksum = checksum_of(name, version).parse().unwrap();
        stored.contains(&checksum)
    };
    let names = ["a 1.0.0", "a 1.1.0", "b 1.0.0", "b 1.0.1"];
    let files = names.into_iter().zip(ALL);
    files
        .filter(|(_, file)| is_stored(file))
        .map(|(name, _)| name)
        .collect()
}

#[tokio::test]
async fn wanted_files_are_fetched_once_and_stored_the_next_time() {
    let crate_files = crate_files(&ALL).await;
    let (outcome, results, notes) = ran(named(&["a"], None), FETCH, &crate_files).await;
    assert_eq!((outcome, notes.as_str()), (Outcome::Done, ""));
    assert_eq!(
        results,
        "2 files: 2 fetched (14 B), 0 stored already, 0 missing upstream, 0 failed\n"
    );
    assert_eq!(stored(&crate_files).await, ["a 1.1.0", "b 1.0.1"]);
    let (outcome, results, _) = ran(named(&["a"], None), FETCH, &crate_files).await;
    assert_eq!(outcome, Outcome::Done);
    assert!(results.contains("2 stored already"), "{results}");
}

#[tokio::test]
async fn a_list_is_a_crate_list_of_exact_versions() {
    let crate_files = crate_files(&ALL).await;
    let (outcome, results, _) = ran(named(&["a"], None), Action::List, &crate_files).await;
    assert_eq!(
        (outcome, results.as_str()),
        (Outcome::Done, "a@1.1.0\nb@1.0.1\n")
    );
    assert!(stored(&crate_files).await.is_empty());
}

#[tokio::test]
async fn everything_is_every_version_yanked_ones_included() {
    let crate_files = crate_files(&ALL).await;
    let (outcome, results, _) = ran(Selection::Everything, Action::List, &crate_files).await;
    assert_eq!(outcome, Outcome::Done);
    let mut lines: Vec<&str> = results.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a@1.0.0", "a@1.1.0", "b@1.0.0", "b@1.0.1"]);
    let (outcome, results, _) = ran(Selection::Everything, FETCH, &crate_files).await;
    assert_eq!(outcome, Outcome::Done);
    assert!(results.starts_with("4 files: 4 fetched"), "{results}");
}

#[tokio::test]
async fn problems_are_reported_and_everything_else_is_fetched() {
    let crate_files = crate_files(&[("b", "1.0.1")]).await;
    let wrong = checksum_of("b", "other");
    let lockfile = format!(
        "[[package]]\nname = \"b\"\nversion = \"1.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{wrong}\"\n"
    );
    let selection = named(&["a", "nothing"], Some(&lockfile));
    let (outcome, results, notes) = ran(selection, FETCH, &crate_files).await;
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
    let crate_files = crate_files(&ALL).await;
    let (outcome, results, notes) = ran(named(&["b", "c"], None), FETCH, &crate_files).await;
    assert_eq!(outcome, Outcome::Incomplete);
    assert!(results.contains("1 fetched"), "{results}");
    assert_eq!(notes, "problem: c: there is no such crate in the index\n");
}

#[tokio::test]
async fn an_unreadable_index_is_reported_once_and_nothing_is_fetched() {
    let crate_files = crate_files(&ALL).await;
    let index = tokio::task::spawn_blocking(|| damaged(&index()));
    let index = index.await.unwrap();
    let (context, written) = context(&[]);
    let snapshot = index.snapshot.clone();
    let (outcome, _) = run(named(&["a"], None), FETCH, snapshot, &crate_files, &context).await;
    assert_eq!(
        (outcome, written.results().as_str()),
        (Outcome::Incomplete, "")
    );
    let notes = written.notes();
    assert!(notes.starts_with("the index cannot be read: "), "{notes}");
    assert_eq!(notes.lines().count(), 1);
}
