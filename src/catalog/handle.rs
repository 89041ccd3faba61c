//! The handle for questions, and the state that it shares with the background task.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;

use super::database::{CatalogTables, Crates};
use super::names::{NameTable, Rows};
use super::questions::{
    CatalogError, CatalogStatus, CrateFilter, CrateList, CrateOrder, Dependents, Page,
    PublishPlace, Publishes, Search, Summary,
};
use super::record::key_of;
use crate::index::{ListedFiles, View};
use crate::package::{Checksum, CrateName};
use crate::sqlite::{AskError, Questions, Readers};

/// Questions that wait. More are refused.
pub(super) const WAITING_MAX: usize = 256;

/// Asks the catalog. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Catalog {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    published: ArcSwapOption<Published>,
    status: Mutex<CatalogStatus>,
    questions: Arc<Questions>,
}

/// A state of the catalog: what questions are answered from. Immutable, except that connections come and go.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) view: Arc<View>,
    pub(super) names: NameTable,
    /// The generation of the database that the names belong to.
    pub(super) generation: i64,
    pub(super) readers: Arc<Readers<CatalogTables>>,
}

impl Catalog {
    /// A catalog that nothing has been published to.
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                published: ArcSwapOption::empty(),
                status: Mutex::default(),
                questions: Arc::new(Questions::new("the catalog", WAITING_MAX)),
            }),
        }
    }

    /// The questions that it answers.
    pub(super) fn questions(&self) -> &Arc<Questions> {
        &self.shared.questions
    }

    /// The status now.
    pub(crate) fn status(&self) -> CatalogStatus {
        self.shared.status.lock().clone()
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
            let (total, dependents) = match crate_name {
                Some(_) => (
                    reader.count_dependents(key)?,
                    reader.dependents(key, skip, limit)?,
                ),
                // Crates may depend on one that was deleted.
                None => (0, Vec::new()),
            };
            Ok(Dependents {
                view: Arc::clone(&published.view),
                crate_name,
                total,
                dependents,
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
            page: Page::first(limit),
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
        let work = |published: &Published, reader: &Crates| {
            let mut names: BTreeSet<String> = reader.incomplete_files()?.into_iter().collect();
            for checksum in checksums {
                names.extend(reader.files_with(checksum)?);
            }
            Ok(ListedFiles {
                source: Arc::clone(published.view.source()),
                names,
            })
        };
        let answer = answer(&self.shared.published, Questions::deadline(), work)?;
        answer.ok_or(CatalogError::NotReady)
    }

    async fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Published, &Crates) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, CatalogError> {
        if self.shared.published.load().is_none() {
            return Err(CatalogError::NotReady);
        }
        let shared = Arc::clone(&self.shared);
        let work = move || answer(&shared.published, Questions::deadline(), work);
        let answer = self.shared.questions.ask(work).await?;
        answer.ok_or(CatalogError::NotReady)
    }

    /// Publishes a state. `None` takes back what was published: the database is damaged.
    pub(super) fn publish(&self, published: Option<Published>) {
        let state = published.as_ref();
        let commit = state.map(|state| state.view.commit().to_string());
        let crates = state.map_or(0, |state| state.names.count());
        self.shared.published.store(published.map(Arc::new));
        self.note(|status| (status.commit, status.crates) = (commit, crates));
    }

    /// The published state.
    pub(super) fn published(&self) -> Option<Arc<Published>> {
        self.shared.published.load_full()
    }

    /// Changes the status.
    pub(super) fn note(&self, change: impl FnOnce(&mut CatalogStatus)) {
        change(&mut self.shared.status.lock());
    }
}

/// Answers one question from the current state, until a deadline. `None` if there is no state. Blocking.
fn answer<T>(
    current: &ArcSwapOption<Published>,
    deadline: Instant,
    work: impl FnOnce(&Published, &Crates) -> rusqlite::Result<T>,
) -> Result<Option<T>, AskError> {
    let mut work = Some(work);
    while let Some(published) = current.load_full() {
        let answer = published.readers.ask(deadline, |reader| {
            // This begins the transaction. From here on, the database does not change for this reader.
            let same = reader.generation()? == published.generation;
            work.take_if(|_| same)
                .map(|work| work(&published, reader))
                .transpose()
        })?;
        if answer.is_some() {
            return Ok(answer);
        }
        // The writer has committed, and publishes the names that belong to it in a moment.
        if Instant::now() > deadline {
            return Err(AskError::TimedOut);
        }
        std::thread::yield_now();
    }
    Ok(None)
}
