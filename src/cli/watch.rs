//! How far a verb is that passes over crate files one by one.

use std::time::{Duration, Instant};

use indicatif::{DecimalBytes, HumanCount, ProgressBar, ProgressStyle};

use super::terminal::Terminal;

/// How often a line is written where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// What the bar looks like.
const BAR: &str = "{bar:30} {human_pos} of {human_len} crate files, {msg}, {eta} left";

/// Shows how many crate files have passed.
pub(crate) struct Watch {
    terminal: Terminal,
    bar: Option<ProgressBar>,
    total: u64,
    files: u64,
    bytes: u64,
    line_due: Instant,
}

impl Watch {
    /// Nothing has passed yet.
    pub(crate) fn new(terminal: &Terminal) -> Self {
        Self {
            terminal: terminal.clone(),
            bar: None,
            total: 0,
            files: 0,
            bytes: 0,
            line_due: Instant::now() + LINE_EVERY,
        }
    }

    /// So many files are to be expected.
    pub(crate) fn expect(&mut self, files: u64) {
        // The template is a constant, and a test reads it.
        let style = ProgressStyle::with_template(BAR);
        let bar = ProgressBar::new(files)
            .with_style(style.unwrap_or_else(|_bad| ProgressStyle::default_bar()));
        self.total = files;
        self.bar = self.terminal.add_bar(bar);
    }

    /// One more has passed.
    pub(crate) fn passed(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
        if let Some(bar) = &self.bar {
            bar.set_position(self.files);
            bar.set_message(DecimalBytes(self.bytes).to_string());
        } else if Instant::now() >= self.line_due {
            self.line_due = Instant::now() + LINE_EVERY;
            let (files, total) = (HumanCount(self.files), HumanCount(self.total));
            let bytes = DecimalBytes(self.bytes);
            self.terminal
                .note(&format!("{files} of {total} crate files, {bytes}"));
        }
    }

    /// Says something, past the bar.
    pub(crate) fn say(&self, line: &str) {
        self.terminal.note(line);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_the_bar_can_be_read() {
        assert!(ProgressStyle::with_template(BAR).is_ok());
    }
}
