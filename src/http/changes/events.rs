//! The feed as server-sent events, for a client that follows it (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! Each line is an event. The last event of a step, and each head, have a cursor as their `id`: a client that reconnects
//! sends the last one that it has seen as `Last-Event-ID`, so it gets a step that was cut once more from its beginning.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::stream;
use tokio::sync::watch;

use super::cursor::{Cursor, Since};
use super::followers::Follower;
use super::page::{Page, Part};
use crate::http::error::ApiError;
use crate::http::state::RequestState;
use crate::server::Share;

/// How often a client hears something, so that neither it nor a proxy takes the connection for dead.
const COMMENT_EVERY: Duration = Duration::from_secs(15);

/// A comment, which clients ignore.
const COMMENT: &[u8] = b":\n\n";

/// The pause before the next look at a journal that is busy.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// A client that follows.
pub(super) struct Following {
    request: RequestState,
    /// The largest page.
    limit: usize,
    /// Where the client is, after the page.
    since: Since,
    /// What it gets now.
    page: Option<Page>,
    /// Tells when there is more.
    changes: watch::Receiver<()>,
    /// Whether it has everything.
    is_waiting: bool,
    /// The memory for what is on its way.
    memory: Option<Share>,
    _place: (Follower, Share),
}

impl Following {
    /// A client that begins with this page.
    pub(super) fn begin(
        request: RequestState,
        (page, limit): (Page, usize),
        place: (Follower, Share),
    ) -> Self {
        Self {
            // Subscribed before the next look at the journal, so that no later change is missed.
            changes: request.state.journal.changes(),
            request,
            limit,
            since: Since::Cursor(page.head.cursor.clone()),
            page: Some(page),
            is_waiting: false,
            memory: None,
            _place: place,
        }
    }

    /// All events until the client leaves, the mirror stops, or the journal cannot go on. The client then reconnects, and
    /// learns why.
    pub(super) fn body(self) -> Body {
        Body::from_stream(stream::unfold(self, |mut following| async move {
            let journal = following.request.state.journal.clone();
            let events = tokio::select! {
                biased;
                () = journal.stopped() => return None,
                events = following.next() => events.ok()?,
            };
            Some((Ok::<Bytes, Infallible>(events), following))
        }))
    }

    /// The next events. It is called when those before were sent.
    async fn next(&mut self) -> Result<Bytes, ApiError> {
        self.memory = None;
        loop {
            if let Some(page) = &mut self.page {
                if self.memory.is_none() {
                    let (account, exchange) = (&self.request.state.account, &self.request.exchange);
                    let cost = page.cost_of_next();
                    self.memory = Some(account.take(exchange, cost).await?);
                }
                if let Some(parts) = page.next(&self.request.state).await? {
                    return Ok(events_of(&parts));
                }
                let mut event = Vec::new();
                write_event(&mut event, &page.head.line(), Some(&page.head.cursor));
                self.page = None;
                return Ok(event.into());
            }
            if !self.is_waiting {
                self.look().await?;
                continue;
            }
            tokio::select! {
                // The sender cannot be gone: the state has it.
                _changed = self.changes.changed() => self.is_waiting = false,
                () = tokio::time::sleep(COMMENT_EVERY) => return Ok(Bytes::from_static(COMMENT)),
            }
        }
    }

    /// Looks for more.
    async fn look(&mut self) -> Result<(), ApiError> {
        // Marked before the journal is read, so that no later change is missed.
        self.changes.mark_unchanged();
        // A page is in memory as soon as it was found.
        let cost = Page::cost(&self.since, self.limit);
        let RequestState { state, exchange } = &self.request;
        let Ok(memory) = state.account.take(exchange, cost).await else {
            // Others have all of it. There may be nothing to send anyway.
            return Ok(());
        };
        match Page::after(&self.request, &self.since, self.limit).await {
            Ok(page) => {
                // Only the journal has pages without lines. The client knows its head already.
                let is_news =
                    !page.is_empty() || self.since != Since::Cursor(page.head.cursor.clone());
                self.is_waiting = !is_news;
                self.since = Since::Cursor(page.head.cursor.clone());
                self.page = is_news.then_some(page);
                self.memory = is_news.then_some(memory);
                Ok(())
            }
            Err(ApiError::Busy) => {
                drop(memory);
                tokio::time::sleep(BUSY_PAUSE).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn events_of(parts: &[Part]) -> Bytes {
    let mut events = Vec::new();
    for Part { lines, end } in parts {
        let mut lines = lines.split_inclusive(|byte| *byte == b'\n').peekable();
        while let Some(line) = lines.next() {
            let is_last = lines.peek().is_none();
            write_event(&mut events, line, end.as_ref().filter(|_| is_last));
        }
    }
    events.into()
}

/// Writes an event. The line has a line break.
fn write_event(events: &mut Vec<u8>, line: &[u8], id: Option<&Cursor>) {
    if let Some(id) = id {
        events.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    events.extend_from_slice(b"data: ");
    events.extend_from_slice(line);
    events.push(b'\n');
}
