//! HTTP/2 on one connection, and its bounds.
//!
//! One client can have a hundred answers on one connection. No limit of hyper stops a client that sends requests and
//! reads nothing.

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::answer_body::{AnswerBody, SHARED_CONNECTION_PIECE_BYTES};
use super::application::{Admission, Application, Asked};
use super::exchange::{Connection, Exchange};
use super::settings::{Limits, Serving};
use super::shares::Shares;

/// Requests at a time on one connection. A client with more waits for an answer before the next one. The protocol
/// recommends 100 or more.
const STREAMS_MAX: u32 = 128;

/// All headers of a request together, unpacked.
const HEADER_BYTES_MAX: u32 = 32 * 1024;

/// How many bytes hyper takes from the body of an answer before the client grants a window for it.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// How many bytes of one body a client can send before they are read. A read-only mirror needs no large bodies.
const UPLOAD_WINDOW_BYTES: u32 = 32 * 1024;

/// The same for all bodies of one connection together: the least that the protocol allows.
const CONNECTION_WINDOW_BYTES: u32 = 65_535;

/// What a request costs besides its headers and its body: the stream, its task, and the head of its answer.
const STREAM_BYTES: u64 = 6 * 1024;

/// The most headers of a request. HTTP/1 has the same limit. A client can repeat a header a thousand times with a few
/// bytes.
const HEADERS_MAX: usize = 100;

/// The cost of a header besides its name and value: its place in the table, which doubles when it grows, and a copy of
/// it.
const HEADER_BYTES: u64 = 256;

/// The longest time for one request with its answer.
const STREAM_TIME_MAX: Duration = Duration::from_secs(12 * 3_600);

/// How many checks of the client's progress fit into the time that a client may stall.
const LOOKS_IN_A_STALL: u32 = 6;

/// How often the server sends a ping.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// The longest wait for the answer to a ping. The ping waits behind everything that is on its way to a slow client.
const PING_WAIT_MAX: Duration = Duration::from_secs(60);

/// Serves a connection until it ends, is told to end, or breaks a limit.
pub(super) async fn serve<S>(stream: S, serving: &mut Serving<impl Application>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Serving {
        connection,
        application,
        settings,
        draining,
    } = serving;
    let limits = settings.limits;
    let streams = Streams::default();
    let service = {
        let (connection, settings) = (Arc::clone(connection), Arc::clone(settings));
        let (application, streams) = (application.clone(), streams.clone());
        service_fn(move |request: hyper::Request<Incoming>| {
            let proxies = &settings.trusted_proxies;
            let client = proxies.client(connection.address, request.headers());
            let exchange = Exchange::begin(&connection, client);
            streams.next_is(&exchange);
            let bytes = cost(&request);
            let asked = Asked::new(request, exchange.clone());
            let (application, account) = (application.clone(), settings.account.clone());
            async move {
                let asked = admit(asked, bytes, &account).await;
                let response = application(asked).await.begin(&exchange);
                Ok::<_, Infallible>(
                    response
                        .map(|body| AnswerBody::new(body, SHARED_CONNECTION_PIECE_BYTES, exchange)),
                )
            }
        })
    };
    let serving = builder(streams).serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let mut look = pin!(sleep_until(Instant::now()));
    let mut progress = ClientProgress::of(connection);
    let (mut told, mut asked_to_leave) = (false, false);
    loop {
        tokio::select! {
            biased;
            ended = &mut serving => return ended.map_err(io::Error::other),
            _ = draining.changed(), if !told => {
                told = true;
                serving.as_mut().graceful_shutdown();
            }
            () = &mut look => match progress.look(connection, &limits) {
                ClientState::Fine(until) => look.as_mut().reset(until),
                ClientState::Idle if !asked_to_leave => {
                    asked_to_leave = true;
                    serving.as_mut().graceful_shutdown();
                    look.as_mut().reset(Instant::now() + limits.write_stall_max);
                }
                // Dropping the connection closes it, and ends everything on it.
                ClientState::Idle => {
                    return Err(timed_out("the client was asked to leave and did not"));
                }
                ClientState::Stalled => {
                    return Err(timed_out("the client does not take its answers"));
                }
            },
        }
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// Waits until the account has memory for a request, or refuses the request.
async fn admit(mut asked: Asked, bytes: u64, account: &Shares) -> Asked {
    let exchange = &asked.exchange;
    if asked.request.headers().len() > HEADERS_MAX {
        asked.request.headers_mut().clear();
        asked.admission = Admission::TooManyHeaders;
    } else if !account.try_keep(exchange, bytes) {
        // In a box, because most requests do not wait, and each stream has memory for its largest future.
        let is_kept = account.is_fair(exchange, bytes)
            && Box::pin(account.keep(exchange, bytes)).await.is_ok();
        if !is_kept {
            asked.admission = Admission::NoShare;
        }
    }
    asked
}

/// What a request costs from now to the end of its answer, in bytes.
fn cost(request: &hyper::Request<Incoming>) -> u64 {
    let headers = request.headers().iter();
    let headers: u64 = headers
        .map(|(name, value)| HEADER_BYTES + (name.as_str().len() + value.len()) as u64)
        .sum();
    let path = request.uri().path().len() as u64;
    let body = if request.body().is_end_stream() {
        0
    } else {
        u64::from(UPLOAD_WINDOW_BYTES)
    };
    STREAM_BYTES + headers + path + body
}

/// The progress of a client at one check.
struct ClientProgress {
    sent: u64,
    at: Instant,
}

/// The result of a check.
enum ClientState {
    /// The next check is due at this time.
    Fine(Instant),
    /// There was no request for too long.
    Idle,
    /// The client does not read what it asked for.
    Stalled,
}

impl ClientProgress {
    fn of(connection: &Connection) -> Self {
        Self {
            sent: connection.sent(),
            at: Instant::now(),
        }
    }

    /// Checks the client now. A client makes progress if it reads anything at all. It may read its answers in any
    /// order. While others need the memory of the answers, `shares` checks each answer.
    fn look(&mut self, connection: &Connection, limits: &Limits) -> ClientState {
        let now = Instant::now();
        if let Some(since) = connection.idle_since() {
            *self = Self::of(connection);
            let until = since + limits.idle_max;
            return if until <= now {
                ClientState::Idle
            } else {
                // A request may begin a moment later, and stall.
                ClientState::Fine(until.min(now + limits.write_stall_max / LOOKS_IN_A_STALL))
            };
        }
        if !connection.waits_for_client() || connection.sent() != self.sent {
            *self = Self::of(connection);
        }
        // One check more than fits into the time, so that an answer that began after the first check gets all of the
        // time.
        if now.duration_since(self.at) > limits.write_stall_max {
            return ClientState::Stalled;
        }
        ClientState::Fine(now + limits.write_stall_max / LOOKS_IN_A_STALL)
    }
}

/// Keeps hyper's own limits for resets and for empty frames.
fn builder(streams: Streams) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(streams);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buf_size(UNSENT_BYTES_MAX)
        .initial_stream_window_size(UPLOAD_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_WAIT_MAX);
    builder
}

/// Runs each stream of a connection as a task that can be ended alone. Cheap to clone.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<Option<Exchange>>>);

impl Streams {
    /// Sets the exchange of the next stream. hyper calls the service and starts its result before it does anything
    /// else.
    fn next_is(&self, exchange: &Exchange) {
        *self.0.lock() = Some(exchange.clone());
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let task = tokio::spawn(tokio::time::timeout(STREAM_TIME_MAX, stream));
        if let Some(exchange) = self.0.lock().take() {
            exchange.ends_by(task.abort_handle());
        }
    }
}
