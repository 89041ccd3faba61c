//! The accept loop, the threads that serve connections, and the end of both.
//!
//! One thread accepts connections and deals them out to workers. There is one worker for each processor, with its own event
//! loop. A connection never moves, so workers share nothing and never wake each other (`benches/compare/redirect.sh`).
//! `axum::serve` has no such workers, and no limits on heads, idle connections or the time to drain.
//!
//! The protocol on one connection is in `connection`, the certificate in `tls`, the sharing of limited things in `shares`.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::application::Application;
use super::connection;
use super::connection_table::ConnectionTable;
use super::exchange::Connection;
use super::settings::{ServerSettings, Serving};
use super::shares::Shares;
use crate::memory::return_freed_blocks;
use crate::observability::metrics::CountedOne;

/// Bytes that can wait in the system's buffer before a socket counts as full. The default is a third of up to 4 MB. A
/// client that reads 20 kB/s would then look for a minute as if it read nothing.
#[cfg(target_os = "linux")]
const WAITING_BYTES_MAX: u32 = 128 * 1024;

/// How many connections may still be ending while others take their places.
const ENDING_MAX: usize = 16;

/// Threads of one worker that read files and repositories. Each may have its own stack and heap.
const BLOCKING_THREADS_MAX: usize = 16;

/// How often the process gives freed memory back to the system, if there is much of it.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// How far the account must be below its peak for that, in bytes.
const TIDY_BYTES_MIN: u64 = 2 * 1024 * 1024;

/// The same for connections.
const TIDY_CONNECTIONS_MIN: usize = 16;

/// How long to wait after the system refused to accept a connection, most often because there is no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepted connections that may wait for a busy worker.
const WAITING_CONNECTIONS_MAX: usize = 256;

/// How the draining ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Drained {
    /// All requests have their answers.
    All,
    /// The deadline cut some off.
    DeadlineReached,
}

/// Serves connections until told to stop, then finishes requests in progress.
///
/// # Errors
/// If a worker cannot be started or has died.
pub(crate) async fn serve(
    listener: TcpListener,
    application: impl Application,
    stop: CancellationToken,
    settings: ServerSettings,
) -> io::Result<Drained> {
    let settings = Arc::new(settings);
    let mut workers = Vec::with_capacity(settings.workers.get());
    for number in 0..settings.workers.get() {
        let worker = Worker::start(number, application.clone(), Arc::clone(&settings))?;
        workers.push(worker);
    }
    let connections = Arc::new(ConnectionTable::new(settings.connections_max));
    tokio::select! {
        accepted = accept(&listener, &workers, &stop, (&connections, &settings.connections)) => accepted?,
        never = tidy(&settings.account, &connections) => match never {},
    }
    drop(listener);
    // This drops the senders of connections. So all workers are told before the first one is awaited, and drain at the
    // same time.
    let ending: Vec<_> = workers
        .into_iter()
        .map(|worker| (worker.ended, worker.thread))
        .collect();
    let mut drained = Drained::All;
    for (ended, thread) in ending {
        let ended = ended.await;
        // The thread has sent its result or has panicked, so this does not wait.
        match (ended, thread.join()) {
            (Ok(ended), Ok(())) => drained = drained.max(ended),
            _ => return Err(worker_died()),
        }
    }
    Ok(drained)
}

/// Gives freed memory between blocks in use back to the system.
#[expect(clippy::infinite_loop, reason = "it ends with `accept`")]
async fn tidy(account: &Shares, connections: &ConnectionTable) -> Infallible {
    let mut most_connections = 0;
    loop {
        tokio::time::sleep(TIDY_EVERY).await;
        let (used, peak) = account.usage();
        let open = connections.count();
        most_connections = most_connections.max(open);
        if peak - used >= TIDY_BYTES_MIN || most_connections - open >= TIDY_CONNECTIONS_MIN {
            most_connections = open;
            // This takes the locks of the allocator for some milliseconds. The panic hook logs a panic.
            let _done = tokio::task::spawn_blocking(return_freed_blocks).await;
        }
    }
}

async fn accept(
    listener: &TcpListener,
    workers: &[Worker],
    stop: &CancellationToken,
    connections: (&Arc<ConnectionTable>, &Gauge),
) -> io::Result<()> {
    // Without a bound, connections would take the file descriptors that git and the clone need.
    let places = Arc::new(Semaphore::new(connections.0.max + ENDING_MAX));
    for worker in workers.iter().cycle() {
        let accepted = tokio::select! {
            accepted = accept_one(listener, &places, connections) => accepted?,
            () = stop.cancelled() => return Ok(()),
        };
        tokio::select! {
            taken = worker.connections.send(accepted) => taken.map_err(|_closed| worker_died())?,
            () = stop.cancelled() => return Ok(()),
        }
    }
    Ok(())
}

/// The next connection, ready to be moved to another event loop.
async fn accept_one(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    (connections, count): (&Arc<ConnectionTable>, &Gauge),
) -> io::Result<Accepted> {
    loop {
        let place = Arc::clone(places).acquire_owned().await;
        let place = place.map_err(io::Error::other)?;
        let accepted = listener.accept().await.and_then(|(stream, address)| {
            // Answers are small and complete, so waiting for more to send only adds delay.
            stream.set_nodelay(true)?;
            #[cfg(target_os = "linux")]
            SockRef::from(&stream).set_tcp_notsent_lowat(WAITING_BYTES_MAX)?;
            Ok((stream.into_std()?, address))
        });
        match accepted {
            Ok((stream, address)) => {
                // A connection without a place is dropped, which closes it.
                if let Some(connection) = connections.open(address.ip().to_canonical()) {
                    return Ok(Accepted {
                        stream,
                        place: Place {
                            connection,
                            connections: Arc::clone(connections),
                            _permit: place,
                            _counted: CountedOne::of(count),
                        },
                    });
                }
            }
            Err(error) => recover(&error).await,
        }
    }
}

/// Waits after an error of the system, so that it can recover. After an error of one connection there is no wait.
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

/// A connection with its place among the open ones.
struct Accepted {
    stream: std::net::TcpStream,
    place: Place,
}

/// A place among the open connections. Dropping it frees the place.
struct Place {
    connection: Arc<Connection>,
    connections: Arc<ConnectionTable>,
    _permit: OwnedSemaphorePermit,
    _counted: CountedOne,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.forget(&self.connection);
    }
}

/// A thread with its own event loop. It ends when no more connections can come and all are finished.
struct Worker {
    connections: mpsc::Sender<Accepted>,
    /// The last thing that the thread does is to send this. If it panics, it sends nothing.
    ended: oneshot::Receiver<Drained>,
    thread: std::thread::JoinHandle<()>,
}

impl Worker {
    fn start(
        number: usize,
        application: impl Application,
        settings: Arc<ServerSettings>,
    ) -> io::Result<Self> {
        let (connections, waiting) = mpsc::channel(WAITING_CONNECTIONS_MAX);
        let (end, ended) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread()
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name(format!("http-{number}"))
            .spawn(move || {
                let drained = runtime.block_on(work(waiting, application, settings));
                // A look-up in the index that still runs has no client any more.
                runtime.shutdown_background();
                // The receiver is gone only if the whole process ends.
                let _nobody_waits = end.send(drained);
            })?;
        Ok(Self {
            connections,
            ended,
            thread,
        })
    }
}

async fn work(
    mut waiting: mpsc::Receiver<Accepted>,
    application: impl Application,
    settings: Arc<ServerSettings>,
) -> Drained {
    // Every connection keeps a receiver until it ends. So the sender can tell all of them, and see them end.
    let (draining, _) = watch::channel(());
    while let Some(Accepted { stream, place }) = waiting.recv().await {
        match TcpStream::from_std(stream) {
            Ok(stream) => {
                let connection = Arc::clone(&place.connection);
                let serving = Serving {
                    connection: Arc::clone(&connection),
                    application: application.clone(),
                    settings: Arc::clone(&settings),
                    draining: draining.subscribe(),
                };
                let serving = connection::serve(stream, serving);
                let task = tokio::spawn(async move {
                    serving.await;
                    drop(place);
                });
                connection.ends_by(task.abort_handle());
            }
            Err(error) => recover(&error).await,
        }
    }
    draining.send_replace(());
    tokio::select! {
        () = draining.closed() => Drained::All,
        () = tokio::time::sleep(settings.drain_max) => Drained::DeadlineReached,
    }
}
