//! The terminal: results on standard output, everything else on standard error, and a progress bar below both.
//!
//! Subcommands write all their text through this file, so that tests can read it.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use parking_lot::Mutex;

use crate::printable::printable;
use crate::stdout;

/// The streams of a subcommand.
#[derive(Clone)]
pub(super) struct Terminal {
    results: Stream,
    notes: Stream,
    /// Draws progress bars; `None` if standard error is no terminal.
    bars: Option<MultiProgress>,
    /// Whether the failure to write results was reported.
    was_reported: Arc<AtomicBool>,
}

type Stream = Arc<Mutex<dyn Write + Send>>;

impl Terminal {
    /// The streams of this process.
    pub(super) fn of_process() -> Self {
        let target = ProgressDrawTarget::stderr;
        let bars = io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(target()));
        Self {
            results: Arc::new(Mutex::new(io::stdout())),
            notes: Arc::new(Mutex::new(io::stderr())),
            bars,
            was_reported: Arc::default(),
        }
    }

    /// Fails if there is no standard output, and reports that once.
    pub(super) fn check_results(&self) -> io::Result<()> {
        self.reporting(stdout::check())
    }

    /// Writes one line of results. A closed pipe is an error, which is reported here: without a reader the work has no use.
    pub(super) fn result(&self, line: &str) -> io::Result<()> {
        self.reporting(self.write(&self.results, line))
    }

    /// Writes help, which comes with colours for a terminal.
    pub(super) fn print_help(&self, print: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.reporting(stdout::check().and_then(|()| print()))
    }

    /// Writes a text of this program as it is.
    pub(super) fn print_text(&self, text: &[u8]) -> io::Result<()> {
        self.reporting(stdout::check().and_then(|()| self.write_all(&self.results, text)))
    }

    fn reporting(&self, written: io::Result<()>) -> io::Result<()> {
        if let Err(error) = &written
            && !self.was_reported.swap(true, Ordering::Relaxed)
        {
            self.note(&stdout::cannot_be_written(error));
        }
        written
    }

    /// Writes one line for people. If it cannot be written, the work goes on.
    pub(super) fn note(&self, line: &str) {
        drop(self.write(&self.notes, line));
    }

    /// Shows a bar, if there is a terminal.
    pub(super) fn add_bar(&self, bar: ProgressBar) -> Option<ProgressBar> {
        self.bars.as_ref().map(|bars| bars.add(bar))
    }

    /// Writes an event of the log, which is a whole line. If it cannot be written, the work goes on.
    pub(super) fn log(&self, event: &[u8]) {
        drop(self.write_all(&self.notes, event));
    }

    /// Writes a printable line: texts from lock files, archives, policies and upstreams must not move the cursor.
    fn write(&self, stream: &Stream, line: &str) -> io::Result<()> {
        let line = printable(line);
        self.write_all(stream, format!("{line}\n").as_bytes())
    }

    fn write_all(&self, stream: &Stream, text: &[u8]) -> io::Result<()> {
        let write = || {
            let mut stream = stream.lock();
            stream.write_all(text)?;
            stream.flush()
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }
}

/// A terminal for tests.
#[cfg(test)]
pub(crate) mod testing {
    use super::{Arc, Mutex, Terminal};

    /// What was written to a terminal.
    pub(crate) struct Written {
        results: Arc<Mutex<Vec<u8>>>,
        notes: Arc<Mutex<Vec<u8>>>,
    }

    impl Written {
        /// All lines of results.
        pub(crate) fn results(&self) -> String {
            String::from_utf8(self.results.lock().clone()).unwrap()
        }

        /// All other lines.
        pub(crate) fn notes(&self) -> String {
            String::from_utf8(self.notes.lock().clone()).unwrap()
        }
    }

    /// A terminal without progress bars, and what is written to it.
    pub(crate) fn remembering() -> (Terminal, Written) {
        let written = Written {
            results: Arc::default(),
            notes: Arc::default(),
        };
        let (results, notes) = (Arc::clone(&written.results), Arc::clone(&written.notes));
        let terminal = Terminal {
            results,
            notes,
            bars: None,
            was_reported: Arc::default(),
        };
        (terminal, written)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::remembering;

    #[test]
    fn what_is_not_printable_is_never_written_raw() {
        let (terminal, written) = remembering();
        terminal.note("a\x1b[2Jb\rc\u{9b}d");
        terminal.result("e\nf\tg\u{202e}h").unwrap();
        assert_eq!(written.notes(), "a\\u001b[2Jb\\u000dc\\u009bd\n");
        assert_eq!(written.results(), "e\\u000af\\u0009g\\u202eh\n");
    }
}
