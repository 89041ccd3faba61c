//! One page of the feed: whole steps of the journal, or versions by publish time. It is read part by part, so it takes
//! little memory however large a step is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::cursor::{Cursor, Since};
use crate::catalog::{Publish, PublishPlace, Publishes};
use crate::http::error::ApiError;
use crate::http::state::{AppState, RequestState};
use crate::index::ShownFlag;
use crate::journal::{
    ChangeKind, ChangeLine, ChunkPlace, Head, Piece, StepCursor, VERSION_BYTES_MAX, VersionState,
};
use crate::package::{CrateName, IndexPath, Timestamp};

/// How often the catalog and the journal are asked until they show the same state. Both follow the index, each at its own
/// pace. Less often in tests.
const TRIES_MAX: usize = if cfg!(test) { 2 } else { 40 };

/// The pause between two tries.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// Memory for a part of a page, in bytes: as it is read, and as it is sent.
const PART_BYTES: u64 = 128 * 1024;

/// Memory for a head, in bytes.
const HEAD_BYTES: u64 = 1024;

/// Memory for a version in a list by publish time, in bytes.
const PUBLISH_BYTES: u64 = 1024;

/// A page.
#[derive(Debug)]
pub(super) struct Page {
    /// What was not read yet.
    rest: Option<Rest>,
    /// The place after it.
    pub(super) head: FeedHead,
}

/// Lines to be read.
#[derive(Debug)]
enum Rest {
    Steps(ChunkPlace, StepCursor),
    Versions(Vec<u8>),
}

/// The last line of each answer.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename = "head")]
pub(super) struct FeedHead {
    /// Where the next request goes on.
    #[serde(serialize_with = "as_text")]
    pub(super) cursor: Cursor,
    /// The upstream commit whose index the client has now.
    pub(super) commit: String,
    /// When the mirror first showed that.
    time: Timestamp,
}

fn as_text<S: Serializer>(cursor: &Cursor, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(cursor)
}

/// Some lines.
#[derive(Debug)]
pub(super) struct Part {
    /// Each with a line break.
    pub(super) lines: Vec<u8>,
    /// The place after them, if a client may go on there: a step is sent whole.
    pub(super) end: Option<Cursor>,
}

impl Page {
    /// The page after a place, with so many changes at most, or one step.
    ///
    /// # Errors
    /// 410 for a place that the journal does not know, and 503.
    pub(super) async fn after(
        request: &RequestState,
        since: &Since,
        limit: usize,
    ) -> Result<Self, ApiError> {
        let journal = &request.state.journal;
        let (place, step) = match since {
            Since::Now => {
                let head = FeedHead::of(journal.head().await?);
                return Ok(Self { rest: None, head });
            }
            Since::Cursor(Cursor::Step(step)) => {
                let steps = journal.steps_after(*step, limit).await?;
                let through = steps.head.cursor;
                return Ok(Self {
                    rest: steps.from.map(|from| Rest::Steps(from, through)),
                    head: FeedHead::of(steps.head),
                });
            }
            Since::Time(time) => (
                PublishPlace {
                    time: *time,
                    file: String::new(),
                    version: String::new(),
                },
                None,
            ),
            Since::Cursor(Cursor::Publish(place, step)) => (place.clone(), Some(*step)),
        };
        published(request, place, step, limit).await
    }

    /// The memory that reading and sending such a page takes, in bytes.
    pub(super) fn cost(since: &Since, limit: usize) -> u64 {
        match since {
            Since::Now | Since::Cursor(Cursor::Step(_)) => PART_BYTES,
            Since::Time(_) | Since::Cursor(Cursor::Publish(..)) => PUBLISH_BYTES * limit as u64,
        }
    }

    /// The memory that the next part takes, in bytes.
    pub(super) fn cost_of_next(&self) -> u64 {
        match &self.rest {
            None => HEAD_BYTES,
            Some(Rest::Steps(..)) => PART_BYTES,
            Some(Rest::Versions(lines)) => 2 * lines.len() as u64,
        }
    }

    /// Whether nothing is left to be read.
    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_none()
    }

    /// Reads the next lines, if there are more.
    ///
    /// # Errors
    /// As [`Page::after`]: the journal may forget a page that is read slowly.
    pub(super) async fn next(&mut self, state: &AppState) -> Result<Option<Vec<Part>>, ApiError> {
        match self.rest.take() {
            None => Ok(None),
            Some(Rest::Versions(lines)) => Ok(Some(vec![Part {
                lines,
                end: Some(self.head.cursor.clone()),
            }])),
            Some(Rest::Steps(from, through)) => {
                let (pieces, next) = state.journal.read(from, through).await?;
                self.rest = next.map(|next| Rest::Steps(next, through));
                let parts = pieces.into_iter().map(|Piece { lines, end }| Part {
                    lines,
                    end: end.map(Cursor::Step),
                });
                Ok(Some(parts.collect()))
            }
        }
    }
}

impl FeedHead {
    fn of(head: Head) -> Self {
        Self {
            cursor: Cursor::Step(head.cursor),
            commit: head.commit,
            time: head.time,
        }
    }

    /// The line, with a line break.
    pub(super) fn line(&self) -> Vec<u8> {
        // Texts can always be serialised.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// The page of versions after a place in the list by publish time. `step` is where the journal goes on after the list;
/// `None` for the first page of it.
async fn published(
    request: &RequestState,
    place: PublishPlace,
    step: Option<StepCursor>,
    limit: usize,
) -> Result<Page, ApiError> {
    let state = &request.state;
    // Before the catalog is asked: its answer is then at least as new.
    let newest = state.journal.head().await?;
    if let Some(step) = step {
        state.journal.steps_after(step, 1).await?;
        let found = versions(state, place, limit).await?;
        let head = Head {
            cursor: step,
            ..newest
        };
        return make_page(request, found, limit, head).await;
    }
    for _ in 0..TRIES_MAX {
        let found = versions(state, place.clone(), limit).await?;
        let tree = found.view.shown().tree();
        let known = state.journal.place_of(tree.0.as_bytes().to_vec()).await?;
        let is_current = || {
            let view = state.index.view();
            view.is_some_and(|view| Arc::ptr_eq(&view, &found.view))
        };
        // The journal goes on where it shows what the catalog has shown. If it has not come so far yet, it goes on where it
        // is: some changes come twice.
        if let Some(head) = known.or_else(|| is_current().then(|| newest.clone())) {
            return make_page(request, found, limit, head).await;
        }
        // The catalog is behind, or shows a state that the journal has passed over.
        tokio::time::sleep(TRY_AGAIN).await;
    }
    Err(ApiError::CatalogNotReady)
}

async fn versions(
    state: &AppState,
    place: PublishPlace,
    limit: usize,
) -> Result<Publishes, ApiError> {
    // One more than wanted tells whether there are more.
    let found = state
        .catalog
        .publishes_after(place, limit + 1, VERSION_BYTES_MAX);
    Ok(found.await?)
}

/// Makes a page on a blocking thread: what the policy says about a crate is in its index file. So it needs a permit, as
/// other look-ups do.
async fn make_page(
    request: &RequestState,
    found: Publishes,
    limit: usize,
    head: Head,
) -> Result<Page, ApiError> {
    let permits = &request.state.look_up_permits;
    let permit = permits.take(&request.exchange, 1).await?;
    let page = tokio::task::spawn_blocking(move || {
        // The permit goes along, as long as files are read.
        let _permit = permit;
        page_of(&found, limit, head)
    });
    page.await.map_err(ApiError::internal)?
}

fn page_of(found: &Publishes, limit: usize, head: Head) -> Result<Page, ApiError> {
    let commit = found.view.commit().to_string();
    let listed = found.versions.get(..limit).unwrap_or(&found.versions);
    let mut lines = Vec::new();
    let mut flags: HashMap<&str, HashMap<String, ShownFlag>> = HashMap::new();
    for version in listed {
        let place = &version.place;
        let flag = if version.yanked {
            let of_crate = flags.entry(&place.file).or_insert_with(|| {
                // A file that cannot be read is not shown either.
                found.view.flags_of(&place.file).unwrap_or_default()
            });
            of_crate.get(&place.version).cloned()
        } else {
            None
        };
        write_line(&mut lines, version, flag, &commit).map_err(ApiError::internal)?;
    }
    let last = listed
        .last()
        .filter(|_| listed.len() < found.versions.len());
    let cursor = match last {
        Some(last) => Cursor::Publish(last.place.clone(), head.cursor),
        None => Cursor::Step(head.cursor),
    };
    Ok(Page {
        rest: (!lines.is_empty()).then_some(Rest::Versions(lines)),
        head: FeedHead {
            cursor,
            commit,
            time: head.time,
        },
    })
}

fn write_line(
    lines: &mut Vec<u8>,
    version: &Publish,
    flag: Option<ShownFlag>,
    commit: &str,
) -> serde_json::Result<()> {
    let PublishPlace {
        time,
        file,
        version: number,
    } = &version.place;
    // Never fails: the catalog lists only files with a crate's name.
    let Ok(name) = CrateName::try_from(file.clone()) else {
        return Ok(());
    };
    let checksum = version.checksum.as_ref().map(ToString::to_string);
    let pubtime = Timestamp::from_unix_seconds(*time);
    let path = IndexPath::from(&name);
    let line = ChangeLine {
        kind: ChangeKind::Added,
        crate_name: &version.crate_name,
        version: Some(VersionState {
            version: number,
            cksum: checksum.as_deref(),
            pubtime: pubtime.as_ref(),
            yanked: version.yanked,
            flag,
        }),
        path: path.as_str(),
        commit,
    };
    serde_json::to_writer(&mut *lines, &line)?;
    lines.push(b'\n');
    Ok(())
}
