//! A store with damaged files, a real index and a real upstream.

use super::*;
use crate::cli::terminal::testing::Written;
use crate::cli::testing::{context, crate_files};
use crate::prefetch::testing::{IndexFiles, checksum_of, content_of};
use crate::store::testing::put;

fn sum(name: &str) -> Checksum {
    checksum_of(name, "1.0.0").parse().unwrap()
}

/// A store of intact and damaged files. The upstream has all but `lost`.
async fn store(intact: &[&str], damaged: &[&str]) -> CrateFiles {
    let crate_files = crate_files(&[("good", "1.0.0"), ("bad", "1.0.0")]).await;
    for name in intact {
        let content = content_of(name, "1.0.0");
        put(crate_files.store(), &sum(name), &content).await;
    }
    for name in damaged {
        put(crate_files.store(), &sum(name), "something else").await;
    }
    crate_files
}

async fn verified(crate_files: &CrateFiles) -> (Report, Written) {
    let (context, written) = context(&[]);
    let found = check_all(crate_files.store(), &context).await.unwrap();
    (found, written)
}

async fn repaired(crate_files: &CrateFiles) -> (Outcome, String) {
    let (found, _) = verified(crate_files).await;
    let (context, written) = context(&[]);
    let index = tokio::task::spawn_blocking(|| {
        let files = IndexFiles::default()
            .publish("good", "1.0.0", &[])
            .publish("bad", "1.0.0", &[])
            .publish("lost", "1.0.0", &[]);
        files.cloned()
    });
    let index = index.await.unwrap();
    let snapshot = index.snapshot.clone();
    let outcome = repair(&found, crate_files, snapshot, &context).await;
    (outcome, written.notes())
}

#[tokio::test]
async fn a_store_without_damage_is_good() {
    let (found, written) = verified(&store(&["good", "bad"], &[]).await).await;
    assert_eq!(found.outcome(), Outcome::Done);
    assert_eq!(written.results(), "");
    assert_eq!(
        written.notes(),
        "2 files: 0 damaged, 0 that cannot be read\n"
    );
}

#[tokio::test]
async fn damaged_files_are_listed_one_a_line() {
    let (found, written) = verified(&store(&["good"], &["bad"]).await).await;
    assert_eq!(found.outcome(), Outcome::Incomplete);
    assert_eq!(written.results(), format!("{}\n", sum("bad")));
}

#[tokio::test]
async fn an_unreadable_file_is_a_problem_and_a_removed_one_is_not() {
    let (context, written) = context(&[]);
    let mut found = Report::default();
    let removed = found.add(sum("gone"), Ok(FileHealth::Missing), &context);
    assert_eq!((removed, found.outcome()), (Ok(()), Outcome::Done));
    let unreadable = std::io::Error::other("bad block").into();
    found.add(sum("worse"), Err(unreadable), &context).unwrap();
    assert_eq!((found.files, found.outcome()), (2, Outcome::Incomplete));
    assert!(written.notes().contains("cannot be read: bad block"));
}

#[tokio::test]
async fn a_repair_fetches_again_what_the_index_lists_and_removes_the_rest() {
    let store = store(&["good"], &["bad", "unlisted"]).await;
    let (outcome, notes) = repaired(&store).await;
    assert_eq!(outcome, Outcome::Done);
    assert!(notes.contains("was fetched again: bad 1.0.0"), "{notes}");
    assert!(
        notes.contains("was removed: the index does not list it"),
        "{notes}"
    );
    let (found, written) = verified(&store).await;
    assert_eq!(found.outcome(), Outcome::Done);
    assert!(written.notes().starts_with("2 files: 0 damaged"));
}

#[tokio::test]
async fn a_file_that_cannot_be_fetched_again_is_removed_and_a_problem() {
    let store = store(&[], &["bad", "lost"]).await;
    let (outcome, notes) = repaired(&store).await;
    assert_eq!(outcome, Outcome::Incomplete);
    assert!(
        notes.contains("lost 1.0.0 is not stored: no upstream has it"),
        "{notes}"
    );
    assert!(notes.contains("was fetched again: bad"), "{notes}");
    assert_eq!(store.store().checksums().await.unwrap().len(), 1);
}

#[tokio::test]
async fn verify_stops_when_it_is_told_to() {
    let (context, written) = context(&[]);
    context.stop.cancel();
    let stopped = check_all(store(&["good"], &[]).await.store(), &context).await;
    assert_eq!(context.end(Err(stopped.unwrap_err())), Outcome::Incomplete);
    assert!(written.notes().starts_with("stopped"));
}
