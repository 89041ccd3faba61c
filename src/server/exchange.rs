//! The state of a connection, and of each request on it until the last byte of its answer has been sent.
//!
//! A byte counts as sent when the system has taken it. The system takes little more than the client has acknowledged
//! (`TCP_NOTSENT_LOWAT`, set in `accept_one`).

use std::any::Any;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::peer::Peer;

/// Called once, when the last byte of an answer was sent, or when no more will be sent.
pub(crate) type End = Box<dyn FnOnce(Sent) + Send + Sync>;

/// How much of an answer was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Bytes of its body that were sent.
    pub(crate) bytes: u64,
    /// Whether the client did not get all of it.
    pub(crate) is_cut: bool,
}

/// Tells a connection that the mirror stops. The connection keeps it until it ends.
pub(super) type Draining = watch::Receiver<()>;

/// The progress of a connection. It outlives its exchanges.
#[derive(Debug)]
pub(crate) struct Connection {
    /// A number that no other connection has.
    pub(crate) number: u64,
    /// The address of the other side.
    pub(crate) address: IpAddr,
    began: Instant,
    /// Ends the connection.
    abort: OnceLock<AbortHandle>,
    is_ended: AtomicBool,
    /// Whether the kernel sends files on it.
    sends_files: AtomicBool,
    /// Requests that have begun.
    requests: AtomicU64,
    /// Requests in progress.
    exchanges: AtomicUsize,
    /// Answers in progress whose next bytes wait only for the client.
    waiting: AtomicUsize,
    /// Bytes of bodies that were handed over, and bytes that were sent.
    handed: AtomicU64,
    sent: AtomicU64,
    /// When the last exchange ended, in milliseconds after `began`.
    idle_since: AtomicU64,
    /// Bytes kept for the client outside the account; see [`Exchange::take_allowance`].
    allowance_used: AtomicU64,
}

impl Connection {
    /// A connection from this address.
    pub(crate) fn new(number: u64, address: IpAddr) -> Arc<Self> {
        Arc::new(Self {
            number,
            address,
            began: Instant::now(),
            abort: OnceLock::new(),
            is_ended: AtomicBool::new(false),
            sends_files: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            exchanges: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            handed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            allowance_used: AtomicU64::new(0),
        })
    }

    /// Notes that the system sends files on it, so that nobody has to read them.
    #[cfg(target_os = "linux")]
    pub(crate) fn set_sends_files(&self) {
        self.sends_files.store(true, Ordering::Relaxed);
    }

    /// Sets the effect of [`Connection::end`].
    pub(crate) fn ends_by(&self, abort: AbortHandle) {
        // Set once, by the code that started the task.
        let _set_before = self.abort.set(abort);
        // After the handle is set: either this sees the flag of `end`, or `end` sees the handle.
        if self.is_ended.load(Ordering::SeqCst) {
            self.end();
        }
    }

    /// Ends the connection at once, with all requests on it. A connection that has not begun ends as soon as it begins.
    pub(crate) fn end(&self) {
        self.is_ended.store(true, Ordering::SeqCst);
        if let Some(abort) = self.abort.get() {
            abort.abort();
        }
    }

    /// The time since which it has no request. `None` while it has one.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.idle_since.load(Ordering::Relaxed));
        (self.exchanges() == 0).then(|| self.began + since)
    }

    /// Requests in progress.
    pub(crate) fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Requests that have begun.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes of bodies that were sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether bytes wait for the client to read.
    pub(crate) fn waits_for_client(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
            || self.handed.load(Ordering::Relaxed) > self.sent()
    }
}

/// A request and its answer, until the last byte has been sent; cheap to clone. It ends when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Exchange(Arc<Inner>);

struct Inner {
    connection: Arc<Connection>,
    /// False for the connection itself.
    is_request: bool,
    client: IpAddr,
    handed: AtomicU64,
    sent: AtomicU64,
    /// The mirror is making the next bytes.
    producing: AtomicBool,
    /// The bytes that it took from the connection's allowance.
    allowance: AtomicU64,
    /// The mirror waits for more of the request.
    reading: AtomicBool,
    /// All bytes were handed over.
    is_complete: AtomicBool,
    /// Ends only this exchange. Without it, the whole connection ends.
    abort: OnceLock<AbortHandle>,
    /// Woken when bytes were sent.
    sender: AtomicWaker,
    rest: Mutex<Rest>,
}

/// Fields that are seldom used.
#[derive(Default)]
struct Rest {
    /// The length of the body, if it is known.
    length: Option<u64>,
    end: Option<End>,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl Exchange {
    /// Begins a request of this client. The mirror is making its answer.
    pub(crate) fn begin(connection: &Arc<Connection>, client: IpAddr) -> Self {
        connection.exchanges.fetch_add(1, Ordering::Relaxed);
        connection.requests.fetch_add(1, Ordering::Relaxed);
        Self::new(connection, client, true)
    }

    /// An exchange for the connection itself, for all of its requests.
    pub(crate) fn of_connection(connection: &Arc<Connection>) -> Self {
        Self::new(connection, connection.address, false)
    }

    fn new(connection: &Arc<Connection>, client: IpAddr, is_request: bool) -> Self {
        Self(Arc::new(Inner {
            connection: Arc::clone(connection),
            is_request,
            client,
            handed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            producing: AtomicBool::new(true),
            allowance: AtomicU64::new(0),
            reading: AtomicBool::new(false),
            is_complete: AtomicBool::new(true),
            abort: OnceLock::new(),
            sender: AtomicWaker::new(),
            rest: Mutex::default(),
        }))
    }

    /// An exchange without a connection, for calls of an application in tests.
    #[cfg(test)]
    pub(crate) fn with_nobody() -> Self {
        Self::with(IpAddr::from([0, 0, 0, 0]))
    }

    /// The same with a client at this address.
    #[cfg(test)]
    pub(crate) fn with(client: IpAddr) -> Self {
        Self::begin(&Connection::new(0, client), client)
    }

    /// The address of the client.
    pub(crate) fn client(&self) -> IpAddr {
        self.0.client
    }

    /// The peer whose shares it uses.
    pub(crate) fn peer(&self) -> Peer {
        Peer::from(self.0.client)
    }

    /// The connection that it is on.
    pub(crate) fn connection(&self) -> &Arc<Connection> {
        &self.0.connection
    }

    /// A weak reference.
    pub(crate) fn downgrade(&self) -> WeakExchange {
        WeakExchange(Arc::downgrade(&self.0))
    }

    /// Keeps something until the last byte has been sent.
    pub(crate) fn keep(&self, kept: impl Any + Send + Sync) {
        self.0.rest.lock().kept.push(Box::new(kept));
    }

    /// Takes this many bytes from the allowance that its connection has outside the account, until the exchange ends.
    pub(crate) fn take_allowance(&self, bytes: u64, allowance: u64) -> bool {
        let used = &self.0.connection.allowance_used;
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= allowance);
        let taken = used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        let taken = taken.is_ok();
        if taken {
            self.0.allowance.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }

    /// Notes whether the mirror waits for more of the request.
    pub(crate) fn set_reading(&self, reading: bool) {
        self.0.reading.store(reading, Ordering::Relaxed);
    }

    /// Sets the handle that ends only this exchange.
    pub(crate) fn ends_by(&self, abort: AbortHandle) {
        let _set_before = self.0.abort.set(abort);
    }

    /// Begins the body of the answer. `length` is its length, if known. `end` is called at its end.
    pub(super) fn begin_body(&self, length: Option<u64>, end: Option<End>) {
        self.0.is_complete.store(false, Ordering::Relaxed);
        let mut rest = self.0.rest.lock();
        rest.end = end;
        rest.length = length;
        drop(rest);
        self.produced();
    }

    /// Notes that the mirror is making the next bytes.
    pub(crate) fn producing(&self) {
        if !self.0.producing.swap(true, Ordering::Relaxed) {
            self.0.connection.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn produced(&self) {
        if self.0.producing.swap(false, Ordering::Relaxed) {
            self.0.connection.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that this many bytes were handed over to be sent.
    pub(crate) fn hand_over(&self, bytes: usize) {
        self.produced();
        let bytes = bytes as u64;
        self.0.handed.fetch_add(bytes, Ordering::Relaxed);
        self.0.connection.handed.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Notes that this many bytes were sent.
    pub(crate) fn note_sent(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.0.sent.fetch_add(bytes, Ordering::Relaxed);
        self.0.connection.sent.fetch_add(bytes, Ordering::Relaxed);
        self.0.sender.wake();
    }

    /// Notes that all bytes of the body were handed over.
    pub(crate) fn complete(&self) {
        self.0.is_complete.store(true, Ordering::Relaxed);
    }

    /// Bytes that were handed over and not sent yet.
    pub(crate) fn unsent(&self) -> u64 {
        let handed = self.0.handed.load(Ordering::Relaxed);
        handed.saturating_sub(self.sent())
    }

    /// The waker to call when bytes were sent.
    pub(crate) fn sender(&self) -> &AtomicWaker {
        &self.0.sender
    }

    /// Bytes of the body that were sent. For the connection itself: bytes of all bodies.
    pub(crate) fn sent(&self) -> u64 {
        if self.0.is_request {
            self.0.sent.load(Ordering::Relaxed)
        } else {
            self.0.connection.sent()
        }
    }

    /// Whether the kernel sends files on its connection, so the process does not read them.
    pub(crate) fn sends_files(&self) -> bool {
        self.0.connection.sends_files.load(Ordering::Relaxed)
    }

    /// Whether it waits for the client and not for the mirror.
    pub(crate) fn waits_for_client(&self) -> bool {
        if !self.0.is_request {
            let connection = &self.0.connection;
            return self.0.reading.load(Ordering::Relaxed)
                && (connection.exchanges() == 0 || connection.waits_for_client());
        }
        !self.0.producing.load(Ordering::Relaxed)
            || self.0.reading.load(Ordering::Relaxed)
            || self.unsent() > 0
    }

    /// Cuts the answer.
    pub(crate) fn cut(&self) {
        match self.0.abort.get() {
            Some(abort) => abort.abort(),
            None => self.0.connection.end(),
        }
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Exchange")
            .field(&self.0.client)
            .finish()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let connection = &self.connection;
        if !*self.producing.get_mut() {
            connection.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        let (handed, sent) = (*self.handed.get_mut(), *self.sent.get_mut());
        // Bytes that were handed over and then dropped no longer wait.
        connection.handed.fetch_sub(handed, Ordering::Relaxed);
        connection.handed.fetch_add(sent, Ordering::Relaxed);
        let rest = self.rest.get_mut();
        if let Some(end) = rest.end.take() {
            let is_whole = match rest.length {
                Some(length) => sent >= length,
                None => *self.is_complete.get_mut() && sent == handed,
            };
            end(Sent {
                bytes: sent,
                is_cut: !is_whole,
            });
        }
        let allowance = *self.allowance.get_mut();
        connection
            .allowance_used
            .fetch_sub(allowance, Ordering::Relaxed);
        if !self.is_request {
            return;
        }
        let idle_since = connection.began.elapsed().as_millis();
        let idle_since = u64::try_from(idle_since).unwrap_or(u64::MAX);
        connection.idle_since.store(idle_since, Ordering::Relaxed);
        connection.exchanges.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An exchange that may have ended; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct WeakExchange(Weak<Inner>);

impl WeakExchange {
    /// Whether it has not ended.
    pub(crate) fn is_under_way(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// The exchange, if it has not ended.
    pub(crate) fn get(&self) -> Option<Exchange> {
        self.0.upgrade().map(Exchange)
    }
}
