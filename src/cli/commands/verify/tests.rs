//! A store in memory, with files that are damaged on purpose.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::*;
use crate::cli::terminal::testing::{Written, remembering};
use crate::prefetch::index_reader::testing::{MapIndex, checksum_of};
use crate::prefetch::{EnsureError, Ensured};

#[derive(Default)]
struct FakeStore(Mutex<BTreeMap<Checksum, Result<Health, String>>>);

impl CheckableStore for FakeStore {
    async fn held(&self) -> Result<Vec<Checksum>, String> {
        Ok(self.0.lock().unwrap().keys().copied().collect())
    }

    async fn check(&self, checksum: &Checksum) -> Result<Health, String> {
        self.0.lock().unwrap()[checksum].clone()
    }

    async fn remove(&self, checksum: &Checksum) -> Result<(), String> {
        self.0.lock().unwrap().remove(checksum);
        Ok(())
    }
}

impl CrateKeeper for FakeStore {
    async fn ensure(&self, file: &CrateFile) -> Result<Ensured, EnsureError> {
        if file.name.as_str() == "lost" {
            return Err(EnsureError::Missing);
        }
        let good = Ok(Health::Good { bytes: 1 });
        self.0.lock().unwrap().insert(file.checksum, good);
        Ok(Ensured::Fetched { bytes: 1 })
    }
}

fn sum(name: &str) -> Checksum {
    checksum_of(name, "1.0.0").parse().unwrap()
}

fn store(files: &[(&str, Result<Health, String>)]) -> Arc<FakeStore> {
    let files = files
        .iter()
        .map(|(name, health)| (sum(name), health.clone()));
    Arc::new(FakeStore(Mutex::new(files.collect())))
}

async fn verified(store: &Arc<FakeStore>) -> (Result<Checked, Outcome>, Written) {
    let (terminal, written) = remembering();
    let checked = check_all(store, &terminal, &CancellationToken::new()).await;
    (checked, written)
}

async fn repaired(store: &Arc<FakeStore>) -> (Outcome, String) {
    let (checked, _) = verified(store).await;
    let (terminal, written) = remembering();
    let index = MapIndex::default()
        .publish("good", "1.0.0", &[])
        .publish("bad", "1.0.0", &[])
        .publish("lost", "1.0.0", &[]);
    let stop = CancellationToken::new();
    let index = Arc::new(index);
    let outcome = repair(checked.unwrap(), store, store, index, &terminal, &stop).await;
    (outcome, written.notes())
}

const GOOD: Result<Health, String> = Ok(Health::Good { bytes: 5 });
const DAMAGED: Result<Health, String> = Ok(Health::Damaged);

#[tokio::test]
async fn a_store_without_damage_is_good() {
    let store = store(&[("good", GOOD), ("gone", Ok(Health::Gone))]);
    let (checked, written) = verified(&store).await;
    assert_eq!(outcome_of(&checked.unwrap()), Outcome::Done);
    assert_eq!(written.results(), "");
    assert_eq!(
        written.notes(),
        "2 files: 0 damaged, 0 that cannot be read\n"
    );
}

#[tokio::test]
async fn damaged_files_are_listed_one_a_line() {
    let unreadable = Err("bad block".to_owned());
    let store = store(&[("good", GOOD), ("bad", DAMAGED), ("worse", unreadable)]);
    let (checked, written) = verified(&store).await;
    assert_eq!(outcome_of(&checked.unwrap()), Outcome::Incomplete);
    assert_eq!(written.results(), format!("{}\n", sum("bad")));
    assert!(written.notes().contains("cannot be read: bad block"));
}

#[tokio::test]
async fn repairing_fetches_again_what_the_index_lists_and_removes_the_rest() {
    let store = store(&[("good", GOOD), ("bad", DAMAGED), ("unlisted", DAMAGED)]);
    let (outcome, notes) = repaired(&store).await;
    assert_eq!(outcome, Outcome::Done);
    assert!(notes.contains("was fetched again: bad 1.0.0"), "{notes}");
    assert!(
        notes.contains("was removed: the index does not list it"),
        "{notes}"
    );
    let (checked, written) = verified(&store).await;
    assert_eq!(outcome_of(&checked.unwrap()), Outcome::Done);
    assert!(written.notes().starts_with("2 files: 0 damaged"));
}

#[tokio::test]
async fn what_cannot_be_fetched_again_is_removed_all_the_same_and_a_problem() {
    let store = store(&[("bad", DAMAGED), ("lost", DAMAGED)]);
    let (outcome, notes) = repaired(&store).await;
    assert_eq!(outcome, Outcome::Incomplete);
    assert!(
        notes.contains("lost 1.0.0 is not held: no upstream has it"),
        "{notes}"
    );
    assert!(notes.contains("was fetched again: bad"), "{notes}");
    assert_eq!(store.0.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn it_stops_when_told_to() {
    let (terminal, written) = remembering();
    let stop = CancellationToken::new();
    stop.cancel();
    let stopped = check_all(&store(&[("good", GOOD)]), &terminal, &stop).await;
    assert_eq!(stopped.unwrap_err(), Outcome::Incomplete);
    assert!(written.notes().starts_with("stopped"));
}
