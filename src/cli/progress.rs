//! The progress over many files: a bar on a terminal, a line now and then elsewhere.

use std::time::Duration;

use indicatif::{DecimalBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::terminal::Terminal;
use crate::archive::ArchiveEvent;

/// How often a line is written where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The bar, if the number of files is known.
const BAR: &str = "{bar:30} {human_pos} of {human_len} {prefix}, {msg}, {eta} left";

/// The same if it is not.
const SPINNER: &str = "{spinner} {human_pos} {prefix}, {msg}";

/// Shows how many files are done. Dropping it removes the bar.
pub(super) struct Progress {
    terminal: Terminal,
    what: &'static str,
    bar: Option<ProgressBar>,
    total: Option<u64>,
    began: Instant,
    line_due: Instant,
}

impl Progress {
    /// Begins to show the progress over `total` things of this name.
    pub(super) fn new(terminal: &Terminal, what: &'static str, total: Option<u64>) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(BAR)),
            None => ProgressBar::no_length().with_style(style(SPINNER)),
        };
        let began = Instant::now();
        Self {
            bar: terminal.add_bar(bar.with_prefix(what)),
            terminal: terminal.clone(),
            what,
            total,
            began,
            line_due: began + LINE_EVERY,
        }
    }

    /// How long it has been shown.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Moves the bar, or writes a line if one is due.
    pub(super) fn update(&mut self, done: u64, message: &str) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            bar.set_message(message.to_owned());
        } else if Instant::now() >= self.line_due {
            self.line_due = Instant::now() + LINE_EVERY;
            self.terminal.note(&self.line(done, message));
        }
    }

    fn line(&self, done: u64, message: &str) -> String {
        let (files, what) = (HumanCount(done), self.what);
        let Some(total) = self.total else {
            return format!("{files} {what}, {message}");
        };
        let left = match self.time_left(done, total) {
            Some(left) => format!(", {} left", HumanDuration(left)),
            None => String::new(),
        };
        format!("{files} of {} {what}, {message}{left}", HumanCount(total))
    }

    /// The remaining files take as long as those before.
    fn time_left(&self, done: u64, total: u64) -> Option<Duration> {
        let left = total.saturating_sub(done);
        let milliseconds = u64::try_from(self.began.elapsed().as_millis()).ok()?;
        let left = milliseconds.checked_mul(left)?.checked_div(done)?;
        Some(Duration::from_millis(left))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a test reads them.
    ProgressStyle::with_template(template).unwrap_or_else(|_bad| ProgressStyle::default_bar())
}

/// The progress of an export or an import.
pub(super) struct ArchiveProgress {
    terminal: Terminal,
    progress: Option<Progress>,
    files: u64,
    bytes: u64,
}

impl ArchiveProgress {
    pub(super) fn new(terminal: &Terminal) -> Self {
        Self {
            terminal: terminal.clone(),
            progress: None,
            files: 0,
            bytes: 0,
        }
    }

    pub(super) fn show(&mut self, event: ArchiveEvent) {
        match event {
            ArchiveEvent::Begun { crate_files } => {
                let progress = Progress::new(&self.terminal, "crate files", Some(crate_files));
                self.progress = Some(progress);
            }
            ArchiveEvent::Passed { bytes } => {
                self.files += 1;
                self.bytes += bytes;
                if let Some(progress) = &mut self.progress {
                    progress.update(self.files, &DecimalBytes(self.bytes).to_string());
                }
            }
            ArchiveEvent::Damaged(checksum) => self.terminal.note(&format!(
                "problem: {checksum}: the archive has something else under this checksum"
            )),
            ArchiveEvent::FetchedInTheFuture => self.terminal.note(
                "warning: the archive says that its index was fetched at a time that is still to come: that time is taken as unknown",
            ),
            ArchiveEvent::Stored(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::terminal::testing::remembering;

    #[test]
    fn the_templates_of_the_bars_are_valid() {
        for template in [BAR, SPINNER] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_terminal_there_is_a_line_every_ten_seconds() {
        let (terminal, written) = remembering();
        let mut progress = Progress::new(&terminal, "files", Some(100));
        for done in 1..=25 {
            tokio::time::advance(Duration::from_secs(1)).await;
            progress.update(done, "2 kB");
        }
        assert_eq!(
            written.notes(),
            "10 of 100 files, 2 kB, 2 minutes left\n20 of 100 files, 2 kB, 80 seconds left\n"
        );
    }
}
