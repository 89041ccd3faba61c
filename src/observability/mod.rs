//! Logging set-up.
//!
//! Events are written to standard output by a thread of their own: a reader that stalls must not hold up requests. When
//! too many bytes wait, new events are dropped, and a later event says how many.

mod line;
mod queue;

use std::io::{self, IsTerminal, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

pub(crate) use line::without_controls;
use queue::{LogQueue, LogQueueGuard};

use crate::config::{Config, LogFormat};
use crate::stdout;

/// Keeps logging alive; dropping it writes what still waits.
#[derive(Debug)]
#[must_use = "logging ends when this is dropped"]
pub struct Logging {
    _guard: LogQueueGuard,
}

/// Starts logging as the settings say. Does nothing if a test has already started it.
pub fn start_logging(config: &Config) -> Logging {
    let colours = io::stdout().is_terminal();
    let (queue, guard) = LogQueue::start(LogOutput::default(), |dropped| {
        tracing::warn!(
            dropped,
            "log events were dropped: they came faster than they were read"
        );
    });
    let take = move |event: Option<&[u8]>| match event {
        Some(event) => queue.push(event),
        None => queue.note_dropped(),
    };
    install(config, &config.log_filter, take, colours);
    Logging { _guard: guard }
}

/// Standard output, as the log sees it: when it cannot be written, one line on standard error says so, and the mirror
/// goes on.
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
            // If nobody can read that either, there is no way to say it.
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

/// Starts the logging of a verb, whose results are on standard output: `write` gets each event as it happens.
pub(crate) fn start_logging_of_verb(
    config: &Config,
    filter: &str,
    write: impl Fn(&[u8]) + Send + Sync + 'static,
) {
    let take = move |event: Option<&[u8]>| {
        if let Some(event) = event {
            write(event);
        }
    };
    install(config, filter, take, false);
}

fn install<F>(config: &Config, filter: &str, take: F, colours: bool)
where
    F: Fn(Option<&[u8]>) + Send + Sync + 'static,
{
    let events = Events {
        take,
        format: config.log_format,
        colours,
    };
    // The filter was checked when the settings were read.
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(events);
    let _already_started = match config.log_format {
        LogFormat::Text => subscriber.with_ansi(colours).try_init(),
        LogFormat::Json => subscriber
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .try_init(),
    };
}

/// Where formatted events go: to `take`, each as one line, or as `None` if it cannot be one.
struct Events<F> {
    take: F,
    format: LogFormat,
    colours: bool,
}

impl<'w, F: Fn(Option<&[u8]>) + 'w> MakeWriter<'w> for Events<F> {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> &'w Self {
        self
    }
}

impl<F: Fn(Option<&[u8]>)> Write for &Events<F> {
    /// The formatter writes each event at once.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        (self.take)(line::tidied(event, self.format, self.colours).as_deref());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
