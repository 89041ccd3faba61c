//! The accept loop, the threads that serve connections, and the end of both.
//!
//! One thread accepts and deals connections out to workers, one for each processor, each with an event loop of its own:
//! a connection never moves, so nothing is shared and nobody is woken across threads (`benches/compare/redirect.sh`).
//! `axum::serve` has no such workers, and no limits on heads, idle connections or the time to drain.

use std::convert::Infallible;
use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{mpsc, oneshot};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::Service;

/// The longest wait for the head of a request, the first one or the next one on a connection that is kept open.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(60);

/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long a client may take to accept the next piece of an answer. One that stalls holds memory.
const WRITE_STALL_MAX: Duration = Duration::from_secs(30);

/// How long to wait after the system refused to hand over a connection, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepted connections that may wait for a busy worker.
const WAITING_CONNECTIONS_MAX: usize = 256;

/// Which one ended the draining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Drained {
    /// Every request was answered.
    All,
    /// Some were cut off.
    DeadlineReached,
}

/// How to serve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServeOptions {
    /// How many threads serve connections.
    pub(crate) workers: NonZeroUsize,
    /// How long requests under way may take once the mirror was told to stop.
    pub(crate) drain_max: Duration,
}

/// What every connection needs: the stack of `http::middleware`.
pub(crate) trait Stack:
    Service<Request, Response = Response, Error = Infallible, Future: Send> + Clone + Send + 'static
{
}

impl<S> Stack for S where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// Serves connections until told to stop, then finishes what is under way.
///
/// # Errors
/// If a worker cannot be started or has died.
pub(crate) async fn serve(
    listener: TcpListener,
    stack: impl Stack,
    stop: CancellationToken,
    options: ServeOptions,
) -> io::Result<Drained> {
    let mut workers = Vec::with_capacity(options.workers.get());
    for number in 0..options.workers.get() {
        workers.push(Worker::start(number, stack.clone(), options.drain_max)?);
    }
    accept(&listener, &workers, &stop).await?;
    drop(listener);
    // All are told before any is waited for, so that they drain at the same time.
    let mut ending = Vec::with_capacity(workers.len());
    for worker in workers {
        drop(worker.connections);
        ending.push((worker.ended, worker.thread));
    }
    let mut drained = Drained::All;
    for (ended, thread) in ending {
        drained = drained.max(join(ended, thread).await?);
    }
    Ok(drained)
}

async fn accept(
    listener: &TcpListener,
    workers: &[Worker],
    stop: &CancellationToken,
) -> io::Result<()> {
    for worker in workers.iter().cycle() {
        let stream = tokio::select! {
            stream = accept_one(listener) => stream,
            () = stop.cancelled() => return Ok(()),
        };
        tokio::select! {
            taken = worker.connections.send(stream) => taken.map_err(|_closed| worker_died())?,
            () = stop.cancelled() => return Ok(()),
        }
    }
    Ok(())
}

/// The next connection, ready to be moved to another event loop.
async fn accept_one(listener: &TcpListener) -> std::net::TcpStream {
    loop {
        match listener.accept().await.and_then(|(stream, _peer)| {
            // Answers are small and whole: waiting for more to send only adds delay.
            stream.set_nodelay(true)?;
            stream.into_std()
        }) {
            Ok(stream) => return stream,
            Err(error) => recover(&error).await,
        }
    }
}

/// After an error of one connection the next is accepted at once; after one of the system, when it had time to recover.
async fn recover(error: &io::Error) {
    let of_one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::InvalidInput
    );
    if !of_one_connection {
        tracing::warn!(error = %error, "a connection could not be accepted");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }
}

fn worker_died() -> io::Error {
    io::Error::other("a thread that serves connections has died")
}

/// A thread with an event loop of its own. It ends when no more connections can come and all are finished.
struct Worker {
    connections: mpsc::Sender<std::net::TcpStream>,
    ended: oneshot::Receiver<Drained>,
    thread: std::thread::JoinHandle<()>,
}

impl Worker {
    fn start(number: usize, stack: impl Stack, drain_max: Duration) -> io::Result<Self> {
        let (connections, waiting) = mpsc::channel(WAITING_CONNECTIONS_MAX);
        let (end, ended) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name(format!("http-{number}"))
            .spawn(move || {
                let drained = runtime.block_on(work(waiting, stack, drain_max));
                // A look-up in the index that still runs has nobody left to answer.
                runtime.shutdown_background();
                // The other side is gone only when the whole process is about to be.
                let _nobody_waits = end.send(drained);
            })?;
        Ok(Self {
            connections,
            ended,
            thread,
        })
    }
}

async fn join(
    ended: oneshot::Receiver<Drained>,
    thread: std::thread::JoinHandle<()>,
) -> io::Result<Drained> {
    let drained = ended.await;
    // The thread has said its last word, or has panicked: either way this does not wait.
    match (drained, thread.join()) {
        (Ok(drained), Ok(())) => Ok(drained),
        _ => Err(worker_died()),
    }
}

async fn work(
    mut waiting: mpsc::Receiver<std::net::TcpStream>,
    stack: impl Stack,
    drain_max: Duration,
) -> Drained {
    let graceful = GracefulShutdown::new();
    let builder = builder();
    while let Some(stream) = waiting.recv().await {
        let stream = match TcpStream::from_std(stream) {
            Ok(stream) => stream,
            Err(error) => {
                recover(&error).await;
                continue;
            }
        };
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_STALL_MAX));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = builder.serve_connection(stream, PerConnection(stack.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that breaks the protocol or goes away is its own affair.
            if let Err(error) = connection.await {
                tracing::debug!(error = %error, "a connection ended early");
            }
        });
    }
    tokio::select! {
        () = graceful.shutdown() => Drained::All,
        () = tokio::time::sleep(drain_max) => Drained::DeadlineReached,
    }
}

/// The stack as hyper calls it. Every layer of it is always ready, as axum's `Router` is, so `poll_ready` is left out.
struct PerConnection<S>(S);

impl<S: Stack> hyper::service::Service<hyper::Request<Incoming>> for PerConnection<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = S::Future;

    fn call(&self, request: hyper::Request<Incoming>) -> S::Future {
        self.0.clone().call(request.map(Body::new))
    }
}

fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
}
