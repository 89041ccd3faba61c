//! The accept loop, the threads that serve connections, and the end of both.
//!
//! One thread accepts and deals connections out to workers, one for each processor, each with an event loop of its own:
//! a connection never moves, so nothing is shared and nobody is woken across threads (`benches/compare/redirect.sh`).
//! `axum::serve` has no such workers, and no limits on heads, idle connections or the time to drain.
//!
//! What does not live here: what is spoken on one connection (`connection`), the certificate (`tls`), the bounds of
//! HTTP/2 (`http2` and `traffic`).

mod connection;
mod http2;
#[cfg(target_os = "linux")]
mod send_file;
#[cfg(test)]
mod tests;
mod tls;
mod traffic;

use std::convert::Infallible;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tower::Service;

pub(crate) use connection::Limits;
pub(crate) use tls::{CertificateError, CurrentCertificate, TlsCertificate};

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
#[derive(Clone, Debug)]
pub(crate) struct ServeOptions {
    /// How many threads serve connections.
    pub(crate) workers: NonZeroUsize,
    /// How long requests under way may take once the mirror was told to stop.
    pub(crate) drain_max: Duration,
    /// The certificate, if TLS is spoken.
    pub(crate) certificate: Option<CurrentCertificate>,
    /// How long clients may take.
    pub(crate) limits: Limits,
    /// How many connections may be open at a time.
    pub(crate) connections_max: usize,
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
        workers.push(Worker::start(number, stack.clone(), options.clone())?);
    }
    accept(&listener, &workers, &stop, options.connections_max).await?;
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
    connections_max: usize,
) -> io::Result<()> {
    // Further ones wait in the system's queue. Without a bound they would take the descriptors that git and the clone need.
    let room = Arc::new(Semaphore::new(connections_max));
    for worker in workers.iter().cycle() {
        let accepted = async {
            let place = Arc::clone(&room).acquire_owned().await;
            (accept_one(listener).await, place)
        };
        let (stream, place) = tokio::select! {
            accepted = accepted => accepted,
            () = stop.cancelled() => return Ok(()),
        };
        let accepted = Accepted {
            stream,
            _place: place.map_err(io::Error::other)?,
        };
        tokio::select! {
            taken = worker.connections.send(accepted) => taken.map_err(|_closed| worker_died())?,
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

/// A connection, and its place among those that may be open.
struct Accepted {
    stream: std::net::TcpStream,
    _place: OwnedSemaphorePermit,
}

/// A thread with an event loop of its own. It ends when no more connections can come and all are finished.
struct Worker {
    connections: mpsc::Sender<Accepted>,
    ended: oneshot::Receiver<Drained>,
    thread: std::thread::JoinHandle<()>,
}

impl Worker {
    fn start(number: usize, stack: impl Stack, options: ServeOptions) -> io::Result<Self> {
        let (connections, waiting) = mpsc::channel(WAITING_CONNECTIONS_MAX);
        let (end, ended) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name(format!("http-{number}"))
            .spawn(move || {
                let drained = runtime.block_on(work(waiting, stack, options));
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
    mut waiting: mpsc::Receiver<Accepted>,
    stack: impl Stack,
    options: ServeOptions,
) -> Drained {
    let drain_max = options.drain_max;
    // Every connection holds a receiver to its end, so that the sender can tell all of them and see them go.
    let (draining, _) = watch::channel(());
    while let Some(Accepted {
        stream,
        _place: place,
    }) = waiting.recv().await
    {
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                let connection = connection::serve(
                    stream,
                    stack.clone(),
                    options.certificate.clone(),
                    options.limits,
                    draining.subscribe(),
                );
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => recover(&error).await,
        }
    }
    draining.send_replace(());
    tokio::select! {
        () = draining.closed() => Drained::All,
        () = tokio::time::sleep(drain_max) => Drained::DeadlineReached,
    }
}
