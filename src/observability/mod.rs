//! Logging, what the mirror counts, and traces.
//!
//! A separate thread writes events to standard output, so that a slow reader does not delay requests. When too many bytes
//! wait, new events are dropped, and a later event says how many.

mod event;
mod last_failure;
pub(crate) mod metrics;
mod queue;
#[cfg(feature = "otlp")]
pub(crate) mod traces;

use std::io::{self, IsTerminal, Write};

use prometheus_client::metrics::counter::Counter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;

use event::EventLayer;
pub(crate) use event::LogFormat;
pub(crate) use last_failure::LastFailure;
use queue::{LogQueue, LogQueueGuard};

use crate::clock::Clock;
use crate::stdout;

/// Keeps logging alive. Dropping it writes the events that still wait.
#[derive(Debug)]
#[must_use = "logging ends when this is dropped"]
pub struct Logging {
    _guard: LogQueueGuard,
    /// How many events were dropped.
    pub(crate) dropped: Counter,
}

/// Starts the logging of the server. `filter` has the syntax of [`EnvFilter`] and was checked. Does nothing if a test has
/// already started logging.
pub(crate) fn start_logging(format: LogFormat, filter: &str) -> Logging {
    let colours = io::stdout().is_terminal();
    let (queue, guard) = LogQueue::start(LogOutput::default(), |dropped| {
        tracing::warn!(
            dropped,
            "log events were dropped: they came faster than they were read"
        );
    });
    let dropped = queue.dropped().clone();
    log_to(format, filter, colours, move |event| queue.push(event));
    Logging {
        _guard: guard,
        dropped,
    }
}

/// Standard output. When it cannot be written, one line on standard error says so, and the mirror goes on.
#[derive(Default)]
struct LogOutput {
    was_reported: bool,
}

impl LogOutput {
    fn reporting<T>(&mut self, written: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &written
            && !std::mem::replace(&mut self.was_reported, true)
        {
            let said = stdout::cannot_be_written(error);
            // If standard error cannot be written either, there is no way to say it.
            let _unread = writeln!(
                io::stderr(),
                "{said}; the log is lost, and the mirror goes on"
            );
        }
        written
    }
}

impl Write for LogOutput {
    fn write(&mut self, events: &[u8]) -> io::Result<usize> {
        let written = stdout::check().and_then(|()| io::stdout().write(events));
        self.reporting(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = io::stdout().flush();
        self.reporting(flushed)
    }
}

/// Passes each event to `take`, as one line. Does nothing if a test has already started logging.
pub(crate) fn log_to(
    format: LogFormat,
    filter: &str,
    colours: bool,
    take: impl Fn(&[u8]) + Send + Sync + 'static,
) {
    let events = EventLayer {
        format,
        colours,
        clock: Clock::system(),
        take,
    };
    let subscriber = tracing_subscriber::registry()
        .with(EnvFilter::new(filter))
        .with(events);
    let _already_started = tracing::subscriber::set_global_default(subscriber);
}
