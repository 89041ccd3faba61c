//! How far prefetching is: a bar on a terminal, a line now and then elsewhere.

use indicatif::{DecimalBytes, HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::terminal::Terminal;
use crate::package::CrateFile;
use crate::prefetch::tally::{EnsureError, Ensured, Tally};

/// What the bar looks like when the number of files is known.
const BAR: &str = "{bar:30} {human_pos} of {human_len} files, {msg}, {eta} left";

/// What it looks like when it is not.
const SPINNER: &str = "{spinner} {human_pos} files, {msg}";

/// Shows how far the work is.
pub(crate) struct Progress {
    terminal: Terminal,
    bar: Option<ProgressBar>,
    total: Option<u64>,
    began: Instant,
    /// The file that was begun last.
    current: String,
}

impl Progress {
    /// Begins to show progress towards this many files.
    pub(crate) fn new(terminal: Terminal, total: Option<u64>) -> Self {
        let bar = match total {
            Some(total) => ProgressBar::new(total).with_style(style(BAR)),
            None => ProgressBar::no_length().with_style(style(SPINNER)),
        };
        Self {
            bar: terminal.add_bar(bar),
            terminal,
            total,
            began: Instant::now(),
            current: String::new(),
        }
    }

    /// A file is being fetched.
    pub(crate) fn begun(&mut self, file: &CrateFile) {
        self.current = file.to_string();
    }

    /// A file was dealt with.
    pub(crate) fn done(
        &mut self,
        tally: &Tally,
        file: Option<&CrateFile>,
        result: &Result<Ensured, EnsureError>,
    ) {
        if let Err(error) = result {
            let file = file.map_or_else(|| "a file".to_owned(), ToString::to_string);
            self.terminal.note(&format!("problem: {file}: {error}"));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(tally.files());
            bar.set_message(format!("{}, {}", self.transferred(tally), self.current));
        }
    }

    /// Time for a line, where there is no bar.
    pub(crate) fn line(&self, tally: &Tally) {
        if self.bar.is_none() {
            self.terminal.note(&self.text(tally));
        }
    }

    /// Takes the bar away.
    pub(crate) fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn text(&self, tally: &Tally) -> String {
        let files = HumanCount(tally.files());
        let transferred = self.transferred(tally);
        let Some(total) = self.total else {
            return format!("{files} files, {transferred}, at {}", self.current);
        };
        let left = match self.time_left(tally, total) {
            Some(left) => format!(", {} left", HumanDuration(left)),
            None => String::new(),
        };
        let total = HumanCount(total);
        format!(
            "{files} of {total} files, {transferred}{left}, at {}",
            self.current
        )
    }

    fn transferred(&self, tally: &Tally) -> String {
        let bytes = tally.fetched_bytes;
        let seconds = self.began.elapsed().as_secs().max(1);
        format!(
            "{} fetched, {}/s",
            DecimalBytes(bytes),
            DecimalBytes(bytes / seconds)
        )
    }

    /// As long as the files so far took, for those that remain.
    fn time_left(&self, tally: &Tally, total: u64) -> Option<std::time::Duration> {
        let left = total.saturating_sub(tally.files());
        let milliseconds = u64::try_from(self.began.elapsed().as_millis()).ok()?;
        let left = milliseconds.checked_mul(left)?.checked_div(tally.files())?;
        Some(std::time::Duration::from_millis(left))
    }
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants, and a test draws them.
    ProgressStyle::with_template(template).unwrap_or_else(|_bad| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_templates_of_the_bars_can_be_read() {
        for template in [BAR, SPINNER] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
