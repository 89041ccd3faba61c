//! What is under way on one HTTP/2 connection, and whether the client takes its share of the work.
//!
//! With HTTP/2 a client that reads nothing does not show in the socket: it grants no window, and the bodies of a hundred
//! answers wait in memory. So every answer is handed over in pieces, and each piece tells when it has gone to the socket.
//! Waiting for a slow producer is not held against the client.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

/// The largest piece that is handed over at a time. The smaller, the slower may a client be that asks for many files at
/// once: each of them must come forward by a piece before it counts as stalled.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// The exchanges of one connection; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Traffic(Arc<Mutex<Table>>);

#[derive(Debug)]
struct Table {
    exchanges: HashMap<u64, Progress>,
    next: u64,
    /// When the last exchange ended, or the connection began.
    idle_since: Instant,
}

/// How far an answer has come.
#[derive(Debug)]
struct Progress {
    /// Pieces that were handed over and are not in the socket yet.
    pieces: usize,
    /// The next piece is being made.
    producing: bool,
    /// When a piece was last handed over or went to the socket.
    moved: Instant,
}

/// What is to be done about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this time.
    Fine(Instant),
    /// There was no request for too long.
    Idle,
    /// The client does not take what it asked for.
    Stalled,
}

impl Traffic {
    /// A connection that begins now.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Table {
            exchanges: HashMap::new(),
            next: 0,
            idle_since: Instant::now(),
        })))
    }

    /// A request has come; its answer is being made.
    pub(super) fn begin(&self) -> Exchange {
        let mut table = self.table();
        let number = table.next;
        table.next += 1;
        let progress = Progress {
            pieces: 0,
            producing: true,
            moved: Instant::now(),
        };
        table.exchanges.insert(number, progress);
        drop(table);
        Exchange(Arc::new(Registered {
            traffic: self.clone(),
            number,
        }))
    }

    /// What is to be done now.
    pub(super) fn verdict(&self, stall_max: Duration, idle_max: Duration) -> Verdict {
        let now = Instant::now();
        let table = self.table();
        if table.exchanges.is_empty() {
            let until = table.idle_since + idle_max;
            return if until <= now {
                Verdict::Idle
            } else {
                // Something may begin a moment later, and stall.
                Verdict::Fine(until.min(now + stall_max))
            };
        }
        let waiting = table
            .exchanges
            .values()
            .filter(|progress| progress.waits_for_client());
        let until = waiting.map(|progress| progress.moved + stall_max).min();
        match until {
            Some(until) if until <= now => Verdict::Stalled,
            Some(until) => Verdict::Fine(until),
            None => Verdict::Fine(now + stall_max),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing below can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn waits_for_client(&self) -> bool {
        self.pieces > 0 || !self.producing
    }
}

/// A request and its answer, until the last byte has gone to the socket; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Exchange(Arc<Registered>);

#[derive(Debug)]
struct Registered {
    traffic: Traffic,
    number: u64,
}

impl Exchange {
    /// The body of the answer, in pieces that are watched.
    pub(super) fn watch(self, body: Body) -> WatchedBody {
        WatchedBody {
            body,
            rest: Bytes::new(),
            exchange: self,
        }
    }

    fn producing(&self) {
        self.0.change(|progress| progress.producing = true);
    }

    fn hand_over(&self, bytes: Bytes) -> Bytes {
        self.0.change(|progress| {
            progress.producing = false;
            progress.pieces += 1;
            progress.moved = Instant::now();
        });
        Bytes::from_owner(Piece {
            bytes,
            exchange: self.clone(),
        })
    }
}

impl Registered {
    fn change(&self, change: impl FnOnce(&mut Progress)) {
        if let Some(progress) = self.traffic.table().exchanges.get_mut(&self.number) {
            change(progress);
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut table = self.traffic.table();
        table.exchanges.remove(&self.number);
        table.idle_since = Instant::now();
    }
}

/// A part of an answer. It is dropped when it is in the socket, or when nobody wants it any more.
struct Piece {
    bytes: Bytes,
    exchange: Exchange,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.exchange.0.change(|progress| {
            progress.pieces = progress.pieces.saturating_sub(1);
            progress.moved = Instant::now();
        });
    }
}

pin_project! {
    /// See [`Exchange::watch`].
    pub(super) struct WatchedBody {
        #[pin]
        body: Body,
        // What is left of a frame that was larger than a piece.
        rest: Bytes,
        exchange: Exchange,
    }
}

impl HttpBody for WatchedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        if this.rest.is_empty() {
            let polled = this.body.poll_frame(context);
            if polled.is_pending() {
                this.exchange.producing();
            }
            let frame = match ready!(polled) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => *this.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        let length = this.rest.len().min(PIECE_BYTES_MAX);
        let piece = this.exchange.hand_over(this.rest.split_to(length));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
