//! HTTP/2 on one connection, and its bounds: one client holds a hundred answers there, and none of hyper's limits is for
//! one that asks and does not read.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::Stack;
use super::answer::{AnswerBody, SHARED_CONNECTION_PIECE_BYTES};
use super::connection::{Common, Draining, Limits, body_of};
use super::exchange::{Admission, Asked, Connection, Exchange};

/// Requests at a time on one connection. A client that has more waits for an answer before the next one; the protocol
/// asks for 100 or more.
const STREAMS_MAX: u32 = 128;

/// All headers of a request together, unpacked.
const HEADER_BYTES_MAX: u32 = 32 * 1024;

/// What is taken out of the body of one answer before the client has room for it.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// What a client may send of one body before it is read. Nobody has a reason to send much to a read-only mirror.
const UPLOAD_WINDOW_BYTES: u32 = 32 * 1024;

/// The same, for all bodies of one connection together: the least that the protocol allows.
const CONNECTION_WINDOW_BYTES: u32 = 65_535;

/// What a request costs besides its headers and its body: the stream, its task, and the head of its answer.
const STREAM_BYTES: u64 = 6 * 1024;

/// The most headers of a request; HTTP/1 has the same limit. A client can name one header a thousand times for a few bytes.
const HEADERS_MAX: usize = 100;

/// What a header costs besides its name and its value: its place in the table, which grows by doubling, and a copy of it.
const HEADER_BYTES: u64 = 256;

/// How long one request may take with all of its answer.
const STREAM_TIME_MAX: Duration = Duration::from_secs(12 * 3_600);

/// How often the clients of answers under way are looked at, as a part of the time that they may stall.
const LOOKS_IN_A_STALL: u32 = 6;

/// How often a client is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long it may take to say so. The question waits behind all that is on its way to the client, and so does a slow line.
const PING_WAIT_MAX: Duration = Duration::from_secs(60);

/// Serves a connection until it ends, is told to end, or breaks a limit.
pub(crate) async fn serve<S>(
    stream: S,
    connection: &Arc<Connection>,
    stack: impl Stack,
    common: Common,
    draining: &mut Draining,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let limits = common.limits;
    let streams = Streams::default();
    let service = PerConnection {
        stack,
        connection: Arc::clone(connection),
        common,
        streams: streams.clone(),
    };
    let serving = builder(streams).serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let mut look = pin!(sleep_until(Instant::now()));
    let mut progress = Progress::of(connection);
    let (mut told, mut asked_to_leave) = (false, false);
    loop {
        tokio::select! {
            biased;
            ended = &mut serving => return ended.map_err(io::Error::other),
            _ = draining.changed(), if !told => {
                told = true;
                serving.as_mut().graceful_shutdown();
            }
            () = &mut look => match progress.verdict(connection, &limits) {
                Verdict::Fine(until) => look.as_mut().reset(until),
                Verdict::Idle if !asked_to_leave => {
                    asked_to_leave = true;
                    serving.as_mut().graceful_shutdown();
                    look.as_mut().reset(Instant::now() + limits.write_stall_max);
                }
                // Dropping the connection closes it and ends whatever is under way on it.
                Verdict::Idle => return Err(timed_out("the client was asked to leave and did not")),
                Verdict::Stalled => return Err(timed_out("the client does not take its answers")),
            },
        }
    }
}

fn timed_out(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

/// How far the client had come at a look.
struct Progress {
    sent: u64,
    at: Instant,
}

/// What is to be done about a connection.
enum Verdict {
    /// Nothing before this time.
    Fine(Instant),
    /// There was no request for too long.
    Idle,
    /// The client does not take what it asked for.
    Stalled,
}

impl Progress {
    fn of(connection: &Connection) -> Self {
        Self {
            sent: connection.sent(),
            at: Instant::now(),
        }
    }

    /// What is to be done now. A client gets on if it takes anything at all: which of its answers it takes first is up to
    /// it. While others need what the answers hold, `shares` looks at each of them.
    fn verdict(&mut self, connection: &Connection, limits: &Limits) -> Verdict {
        let now = Instant::now();
        if let Some(since) = connection.idle_since() {
            *self = Self::of(connection);
            let until = since + limits.idle_max;
            return if until <= now {
                Verdict::Idle
            } else {
                // Something may begin a moment later, and stall.
                Verdict::Fine(until.min(now + limits.write_stall_max / LOOKS_IN_A_STALL))
            };
        }
        if !connection.waits_for_client() || connection.sent() != self.sent {
            *self = Self::of(connection);
        }
        // One look more than fits into the time: an answer that began after the first of them has all of it.
        if now.duration_since(self.at) > limits.write_stall_max {
            return Verdict::Stalled;
        }
        Verdict::Fine(now + limits.write_stall_max / LOOKS_IN_A_STALL)
    }
}

/// hyper's limits on resets and on frames that carry nothing are kept as they are.
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

/// Runs the streams of a connection as tasks that can be ended one by one. Cheap to clone.
#[derive(Clone, Default)]
struct Streams(Arc<Mutex<Option<Exchange>>>);

impl Streams {
    /// The stream that is run next is that of this exchange: hyper calls the service and runs what it returns before it
    /// does anything else.
    fn next_is(&self, exchange: &Exchange) {
        *self.latest() = Some(exchange.clone());
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Option<Exchange>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let task = tokio::spawn(tokio::time::timeout(STREAM_TIME_MAX, stream));
        if let Some(exchange) = self.latest().take() {
            exchange.ends_by(task.abort_handle());
        }
    }
}

/// Calls the stack once the account has memory for the request, or refuses it.
struct PerConnection<S> {
    stack: S,
    connection: Arc<Connection>,
    common: Common,
    streams: Streams,
}

impl<S: Stack> hyper::service::Service<hyper::Request<Incoming>> for PerConnection<S> {
    type Response = axum::http::Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering<S, S::Future>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let proxies = &self.common.trusted_proxies;
        let client = proxies.client(self.connection.address(), request.headers());
        let exchange = Exchange::begin(&self.connection, client);
        self.streams.next_is(&exchange);
        let account = &self.common.account;
        let bytes = cost(&request);
        let mut asked = Asked {
            request: request.map(body_of),
            exchange: exchange.clone(),
            admission: Admission::Granted,
        };
        if asked.request.headers().len() > HEADERS_MAX {
            asked.request.headers_mut().clear();
            asked.admission = Admission::TooManyHeaders;
            let answered = self.stack.clone().call(asked);
            let state = State::Called { answered };
            return Answering { state, exchange };
        }
        let has_share = account.try_keep(&exchange, bytes);
        let state = if !has_share && account.is_fair(&exchange, bytes) {
            let account = account.clone();
            let waiting = async move {
                if account.keep(&asked.exchange, bytes).await.is_err() {
                    asked.admission = Admission::NoShare;
                }
                asked
            };
            State::Waiting {
                waiting: Box::pin(waiting),
                stack: self.stack.clone(),
            }
        } else {
            if !has_share {
                asked.admission = Admission::NoShare;
            }
            State::Called {
                answered: self.stack.clone().call(asked),
            }
        };
        Answering { state, exchange }
    }
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

pin_project! {
    /// An answer that is being made.
    struct Answering<S, F> {
        #[pin]
        state: State<S, F>,
        exchange: Exchange,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, F> {
        Waiting { waiting: BoxFuture<'static, Asked>, stack: S },
        Called { #[pin] answered: F },
    }
}

impl<S: Stack> Future for Answering<S, S::Future> {
    type Output = Result<axum::http::Response<AnswerBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answered = loop {
            match this.state.as_mut().project() {
                StateProjection::Waiting { waiting, stack } => {
                    let asked = ready!(waiting.as_mut().poll(context));
                    let answered = stack.clone().call(asked);
                    this.state.set(State::Called { answered });
                }
                StateProjection::Called { answered } => break ready!(answered.poll(context))?,
            }
        };
        let exchange = this.exchange;
        let response = exchange.answer(answered);
        Poll::Ready(Ok(response.map(|body| {
            AnswerBody::new(body, SHARED_CONNECTION_PIECE_BYTES, exchange.clone())
        })))
    }
}
