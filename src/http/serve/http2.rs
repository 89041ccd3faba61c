//! HTTP/2 on one connection, and its bounds: one client holds a hundred answers there, and none of hyper's limits is for
//! one that asks and does not read.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until};

use super::Stack;
use super::connection::{Draining, Limits, body_of};
use super::traffic::{Exchange, Traffic, Verdict, WatchedBody};

/// Requests at a time on one connection. Whoever has more waits for an answer before the next one; the protocol asks for
/// 100 or more.
const STREAMS_MAX: u32 = 128;

/// All headers of a request together, unpacked.
const HEADER_BYTES_MAX: u32 = 32 * 1024;

/// What is taken out of the body of one answer before the client has room for it.
const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// What a client may send of one body before it is read. Nobody has a reason to send much to a read-only mirror.
const UPLOAD_WINDOW_BYTES: u32 = 64 * 1024;

/// The same, for all bodies of one connection together.
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// How often a client is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(30);

/// How long it may take to say so. The question waits behind all that is on its way to the client, and so does a slow line.
const PING_WAIT_MAX: Duration = Duration::from_secs(60);

/// Serves a connection until it ends, is told to end, or breaks a limit.
pub(super) async fn serve<S>(
    stream: S,
    stack: impl Stack,
    limits: Limits,
    draining: &mut Draining,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let traffic = Traffic::new();
    let service = Watched {
        stack,
        traffic: traffic.clone(),
    };
    let connection = builder().serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut look = pin!(sleep_until(Instant::now()));
    let (mut told, mut asked_to_leave) = (false, false);
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => return ended.map_err(io::Error::other),
            _ = draining.changed(), if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut look => match traffic.verdict(limits.write_stall_max, limits.idle_max) {
                Verdict::Fine(until) => look.as_mut().reset(until),
                Verdict::Idle if !asked_to_leave => {
                    asked_to_leave = true;
                    connection.as_mut().graceful_shutdown();
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

/// hyper's limits on resets and on frames that carry nothing are kept as they are.
fn builder() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
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

/// The stack as hyper calls it, with an eye on what becomes of the answers.
struct Watched<S> {
    stack: S,
    traffic: Traffic,
}

impl<S: Stack> hyper::service::Service<hyper::Request<Incoming>> for Watched<S> {
    type Response = axum::http::Response<WatchedBody>;
    type Error = Infallible;
    type Future = WatchedFuture<S::Future>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let exchange = self.traffic.begin();
        WatchedFuture {
            inner: self.stack.clone().call(request.map(body_of)),
            exchange,
        }
    }
}

pin_project! {
    /// See [`Watched`].
    struct WatchedFuture<F> {
        #[pin]
        inner: F,
        exchange: Exchange,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for WatchedFuture<F> {
    type Output = Result<axum::http::Response<WatchedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(context))?;
        Poll::Ready(Ok(response.map(|body| this.exchange.clone().watch(body))))
    }
}
