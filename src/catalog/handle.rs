//! The handle for questions, and the state that it shares with the background task.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, Semaphore};

use super::database::Database;
use super::names::Rows;
use super::published::{Published, answer};
use super::questions::{
    CatalogError, CatalogStatus, CrateFilter, CrateList, CrateOrder, Dependents, Page,
    PublishPlace, Publishes, Search, Start, Summary,
};
use super::record::key_of;
use crate::index::ListedFiles;
use crate::package::{Checksum, CrateName};

/// Questions that are answered at the same time. Each has a thread and a connection.
pub(super) const ANSWERED_MAX: usize = 4;

/// Questions that wait. More are refused.
pub(super) const WAITING_MAX: usize = 256;

/// How long a question may wait for its turn.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// Asks the catalog. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    published: ArcSwapOption<Published>,
    status: Mutex<CatalogStatus>,
    /// Questions that wait or are answered.
    accepted: Arc<Semaphore>,
    /// Questions that are answered.
    answered: Arc<Semaphore>,
    /// Asks the background task to check the database.
    damage_check: Notify,
}

impl Catalog {
    /// A catalog that nothing has been published to.
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                published: ArcSwapOption::empty(),
                status: Mutex::default(),
                accepted: Arc::new(Semaphore::new(ANSWERED_MAX + WAITING_MAX)),
                answered: Arc::new(Semaphore::new(ANSWERED_MAX)),
                damage_check: Notify::new(),
            }),
        }
    }

    /// Keeps all questions waiting while the permits exist.
    #[cfg(test)]
    pub(super) async fn hold_answers(&self) -> Vec<tokio::sync::OwnedSemaphorePermit> {
        let mut held = Vec::new();
        for _ in 0..ANSWERED_MAX {
            let answered = Arc::clone(&self.shared.answered);
            held.push(answered.acquire_owned().await.unwrap());
        }
        held
    }

    /// The status now.
    pub(crate) fn status(&self) -> CatalogStatus {
        let status = self.shared.status.lock();
        status.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Searches for crates.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub(crate) async fn search(&self, search: Search) -> Result<CrateList, CatalogError> {
        self.ask(move |published, reader| {
            let Rows { total, rows, last } = published.names.search(&search);
            Ok(CrateList {
                view: Arc::clone(&published.view),
                total,
                crates: reader.summaries(&rows)?,
                last,
            })
        })
        .await
    }

    /// Lists the crates that depend on a crate: `limit` at most, after `skip` of them.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub(crate) async fn dependents(
        &self,
        name: CrateName,
        skip: usize,
        limit: usize,
    ) -> Result<Dependents, CatalogError> {
        self.ask(move |published, reader| {
            let key = key_of(name.as_str());
            let crate_name = reader.published_name(key, &name.to_lowercase())?;
            // Crates may depend on one that was deleted.
            let exists = crate_name.is_some();
            Ok(Dependents {
                view: Arc::clone(&published.view),
                crate_name,
                total: if exists {
                    reader.count_dependents(key)?
                } else {
                    0
                },
                dependents: match exists {
                    true => reader.dependents(key, skip, limit)?,
                    false => Vec::new(),
                },
            })
        })
        .await
    }

    /// The crates of the front page: `limit` in each list.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub(crate) async fn summary(&self, limit: usize) -> Result<Summary, CatalogError> {
        let newest = Search {
            text: String::new(),
            filter: CrateFilter::None,
            include_yanked: true,
            order: CrateOrder::Created,
            page: Page {
                start: Start::Skip(0),
                limit,
            },
        };
        self.ask(move |published, reader| {
            let updated = published.names.just_updated(limit);
            Ok(Summary {
                view: Arc::clone(&published.view),
                num_crates: published.names.count(),
                new_crates: reader.summaries(&published.names.search(&newest).rows)?,
                just_updated: reader.summaries(&updated.rows)?,
            })
        })
        .await
    }

    /// The shown versions after a place in the list by publish time: `limit` at most. Versions of more than
    /// `version_bytes_max` bytes are left out.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub(crate) async fn publishes_after(
        &self,
        place: PublishPlace,
        limit: usize,
        version_bytes_max: usize,
    ) -> Result<Publishes, CatalogError> {
        self.ask(move |published, reader| {
            Ok(Publishes {
                view: Arc::clone(&published.view),
                versions: reader.publishes_after(&place, limit, version_bytes_max)?,
            })
        })
        .await
    }

    /// The index files of the upstream in which a line may have one of these checksums, whatever the view shows. Those of
    /// which not all lines can be read are among them. Blocking, for two seconds at most. Does not wait for a view.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub(crate) fn index_files_of(
        &self,
        checksums: &[Checksum],
    ) -> Result<ListedFiles, CatalogError> {
        let work = |published: &Published, reader: &Database| {
            let mut names: BTreeSet<String> = reader.incomplete_files()?.into_iter().collect();
            for checksum in checksums {
                names.extend(reader.files_with(checksum)?);
            }
            Ok(ListedFiles {
                source: Arc::clone(published.view.source()),
                names,
            })
        };
        answer(&self.shared.published, Instant::now() + ANSWER_MAX, work)
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Published, &Database) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, CatalogError> {
        if self.shared.published.load().is_none() {
            return Err(CatalogError::NotReady);
        }
        let accepted = Arc::clone(&self.shared.accepted).try_acquire_owned();
        let accepted = accepted.map_err(|_full| CatalogError::Busy)?;
        let turn = Arc::clone(&self.shared.answered).acquire_owned();
        let turn = tokio::time::timeout(WAIT_MAX, turn)
            .await
            .map_err(|_elapsed| CatalogError::Busy)?;
        let shared = Arc::clone(&self.shared);
        let answered = tokio::task::spawn_blocking(move || {
            // Kept to the end, even if the client has gone: the thread and the connection are in use until then.
            let _permits = (accepted, turn);
            let result = answer(&shared.published, Instant::now() + ANSWER_MAX, work);
            if let Err(CatalogError::Unreadable(error)) = &result {
                tracing::warn!(error = %error, "the catalog cannot be read");
                shared.damage_check.notify_one();
            }
            result
        });
        answered
            .await
            .unwrap_or_else(|panic| Err(CatalogError::Unreadable(panic.into())))
    }

    /// Publishes a state.
    pub(super) fn publish(&self, published: Published) {
        let commit = published.view.commit().to_string();
        let crates = published.names.count();
        self.shared.published.store(Some(Arc::new(published)));
        self.note(|status| {
            status.commit = Some(commit);
            status.crates = crates;
        });
    }

    /// Takes back what was published: the database is damaged.
    pub(super) fn withdraw(&self) {
        self.shared.published.store(None);
        self.note(|status| {
            status.commit = None;
            status.crates = 0;
        });
    }

    /// The published state.
    pub(super) fn published(&self) -> Option<Arc<Published>> {
        self.shared.published.load_full()
    }

    /// Changes the status.
    pub(super) fn note(&self, change: impl FnOnce(&mut CatalogStatus)) {
        let status = self.shared.status.lock();
        change(&mut status.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until a question has found the database unreadable.
    pub(super) async fn damage_reported(&self) {
        self.shared.damage_check.notified().await;
    }
}
