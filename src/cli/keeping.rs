//! The store as the verbs see it: the traits of this room, for the keeper of the mirror.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::HumanCount;

use super::commands::verify::{CheckableStore, Health};
use super::outcome::Outcome;
use super::terminal::Terminal;
use crate::package::{Checksum, CrateFile};
use crate::prefetch::{CrateKeeper, EnsureError, Ensured};
use crate::store::{self, CrateFiles, FileHealth, GetError};

/// How often an upstream that is busy or slow is asked again for one file.
const TRIES_MAX: u32 = 5;

/// The longest that an upstream is left alone before it is asked again.
const PAUSE_MAX: Duration = Duration::from_secs(60);

impl CrateKeeper for CrateFiles {
    async fn ensure(&self, file: &CrateFile) -> Result<Ensured, EnsureError> {
        let mut tries = 1;
        loop {
            // The method of the keeper itself, not this one.
            let error = match Self::ensure(self, file).await {
                Ok(store::Ensured::AlreadyStored) => return Ok(Ensured::AlreadyHeld),
                Ok(store::Ensured::Fetched { bytes }) => return Ok(Ensured::Fetched { bytes }),
                Err(error) => error,
            };
            match error {
                GetError::Missing => return Err(EnsureError::Missing),
                GetError::Busy(pause) if tries < TRIES_MAX => {
                    tokio::time::sleep(pause.min(PAUSE_MAX)).await;
                }
                // Nobody waits for an answer here: a large file may take its time.
                GetError::Pending if tries < TRIES_MAX => {}
                GetError::Store(_) => return Err(EnsureError::Store(error.to_string())),
                error => return Err(EnsureError::Failed(error.to_string())),
            }
            tries += 1;
        }
    }
}

/// The files that a run saw to: where `STORAGE_MAX_BYTES` is set, some may have been pushed out again by its end.
#[derive(Clone, Default)]
pub(super) struct SeenTo(Arc<Mutex<Vec<Checksum>>>);

impl SeenTo {
    pub(super) fn add(&self, checksum: Checksum) {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        files.push(checksum);
    }

    /// The outcome of the run, if all that it saw to is still there.
    pub(super) async fn outcome(
        self,
        of_run: Outcome,
        keeper: &CrateFiles,
        terminal: &Terminal,
    ) -> Outcome {
        if keeper.counters().evicted.get() == 0 {
            return of_run;
        }
        let held = match keeper.store().checksums().await {
            Ok(held) => held,
            Err(error) => {
                terminal.note(&format!("the store cannot be listed: {error}"));
                return Outcome::Incomplete;
            }
        };
        let files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = files.iter().filter(|checksum| !held.contains(checksum));
        match u64::try_from(gone.count()).unwrap_or(u64::MAX) {
            0 => of_run,
            gone => {
                terminal.note(&format!(
                    "problem: {} files of this run were pushed out again: STORAGE_MAX_BYTES is too little for all of them",
                    HumanCount(gone)
                ));
                Outcome::Incomplete
            }
        }
    }
}

/// A keeper, and what it saw to.
pub(super) struct Remembering {
    pub(super) keeper: CrateFiles,
    pub(super) seen_to: SeenTo,
}

impl CrateKeeper for Remembering {
    async fn ensure(&self, file: &CrateFile) -> Result<Ensured, EnsureError> {
        let ensured = CrateKeeper::ensure(&self.keeper, file).await?;
        self.seen_to.add(file.checksum);
        Ok(ensured)
    }
}

impl CheckableStore for CrateFiles {
    async fn held(&self) -> Result<Vec<Checksum>, String> {
        let held = self.store().checksums().await;
        held.map(|held| held.into_iter().collect())
            .map_err(|error| error.to_string())
    }

    async fn check(&self, checksum: &Checksum) -> Result<Health, String> {
        match self.store().verify(checksum).await {
            Ok(FileHealth::Intact { size }) => Ok(Health::Good { bytes: size }),
            Ok(FileHealth::Damaged) => Ok(Health::Damaged),
            Ok(FileHealth::Missing) => Ok(Health::Gone),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn remove(&self, checksum: &Checksum) -> Result<(), String> {
        let removed = self.store().remove(checksum).await;
        removed.map_err(|error| error.to_string())
    }
}
