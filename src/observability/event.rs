//! How an event becomes one line, as text or as JSON.
//!
//! Values of fields come from outside: paths, errors of upstreams, names in archives. They must not start a new line, move
//! the cursor of a terminal, show something else than they are, or fill the memory in which events wait. So each value is
//! escaped and cut while it is written.
//!
//! The formatter of `tracing-subscriber` does neither. It took 2 µs for the event of a request, as long as everything else
//! that the mirror itself does for a redirect (`benches/compare/one_core.sh`).

use std::cell::RefCell;
use std::fmt::{self, Debug, Write as _};
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::clock::Clock;
use crate::printable::{is_printable, push_escaped};

/// The longest value of a field, in written bytes.
const VALUE_BYTES_MAX: usize = 1024;

/// The longest event, in bytes. Fields that no longer fit are left out.
const EVENT_BYTES_MAX: usize = 8 * 1024;

/// Marks the place where a value was cut.
const CUT: char = '…';

/// How log events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// One readable line for each event.
    Text,
    /// One JSON object for each event.
    Json,
}

/// Writes each event as one line and passes it on.
pub(super) struct EventLayer<F> {
    pub(super) format: LogFormat,
    /// Whether levels have colours.
    pub(super) colours: bool,
    pub(super) clock: Clock,
    /// Receives each line, with its line break.
    pub(super) take: F,
}

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

impl<S: Subscriber, F: Fn(&[u8]) + 'static> Layer<S> for EventLayer<F> {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        LINE.with(|line| match line.try_borrow_mut() {
            Ok(mut line) => (self.take)(self.write(event, &mut line)),
            // Writing a value logged another event.
            Err(_in_use) => (self.take)(self.write(event, &mut Line::default())),
        });
    }
}

impl<F> EventLayer<F> {
    fn write<'l>(&self, event: &Event<'_>, line: &'l mut Line) -> &'l [u8] {
        let metadata = event.metadata();
        let (level, target) = (metadata.level(), metadata.target());
        line.text.clear();
        if self.format == LogFormat::Json {
            line.text.push_str("{\"timestamp\":\"");
        }
        line.write_time(self.clock.now());
        match self.format {
            LogFormat::Text => {
                let (colour, level) = shown(*level);
                let (before, after) = match self.colours {
                    true => (colour, "\u{1b}[0m"),
                    false => ("", ""),
                };
                line.text
                    .extend([" ", before, level, after, " ", target, ":"]);
            }
            LogFormat::Json => {
                let (before, between) = ("\",\"level\":\"", "\",\"target\":\"");
                line.text
                    .extend([before, level.as_str(), between, target, "\""]);
            }
        }
        event.record(&mut Fields {
            text: &mut line.text,
            format: self.format,
        });
        if self.format == LogFormat::Json {
            line.text.push('}');
        }
        line.text.push('\n');
        line.text.as_bytes()
    }
}

/// How a level is shown as text: red, yellow, green, blue or magenta, in five columns.
fn shown(level: Level) -> (&'static str, &'static str) {
    match level {
        Level::ERROR => ("\u{1b}[31m", "ERROR"),
        Level::WARN => ("\u{1b}[33m", " WARN"),
        Level::INFO => ("\u{1b}[32m", " INFO"),
        Level::DEBUG => ("\u{1b}[34m", "DEBUG"),
        Level::TRACE => ("\u{1b}[35m", "TRACE"),
    }
}

/// The current line. Each thread reuses one.
#[derive(Default)]
struct Line {
    text: String,
    /// The last second that was written, and its text.
    second: u64,
    shown: String,
}

impl Line {
    /// RFC 3339, in UTC, to the microsecond. The text of the second is reused while it is the same.
    fn write_time(&mut self, now: SystemTime) {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let second = since.as_secs();
        if second != self.second || self.shown.is_empty() {
            let time = i64::try_from(second)
                .ok()
                .and_then(|second| DateTime::from_timestamp(second, 0));
            self.second = second;
            self.shown = time.unwrap_or_default().format("%FT%T").to_string();
        }
        self.text.push_str(&self.shown);
        // Writing to a String cannot fail.
        let _infallible = write!(self.text, ".{:06}Z", since.subsec_micros());
    }
}

/// Appends the fields of one event to its line.
struct Fields<'l> {
    text: &'l mut String,
    format: LogFormat,
}

impl Fields<'_> {
    /// Appends ` name=` or `,"name":`, unless the longest value would no longer fit. Names are our own.
    fn begin(&mut self, field: &Field) -> bool {
        let name = field.name();
        if self.text.len() + name.len() + VALUE_BYTES_MAX + 16 > EVENT_BYTES_MAX {
            return false;
        }
        let (before, after) = match self.format {
            LogFormat::Text if name == "message" => {
                self.text.push(' ');
                return true;
            }
            LogFormat::Text => (" ", "="),
            LogFormat::Json => (",\"", "\":"),
        };
        self.text.extend([before, name, after]);
        true
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        if self.begin(field) {
            let _infallible = write!(self.text, "{value}");
        }
    }

    fn text(
        &mut self,
        field: &Field,
        is_quoted: bool,
        write: impl FnOnce(&mut Value<'_>) -> fmt::Result,
    ) {
        if !self.begin(field) {
            return;
        }
        let is_quoted = is_quoted || self.format == LogFormat::Json;
        if is_quoted {
            self.text.push('"');
        }
        let mut value = Value {
            left: VALUE_BYTES_MAX,
            is_cut: false,
            is_quoted,
            text: self.text,
        };
        // An error only means that the value was cut.
        let _is_cut = write(&mut value);
        if is_quoted {
            self.text.push('"');
        }
    }
}

impl Visit for Fields<'_> {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let is_quoted = field.name() != "message";
        self.text(field, is_quoted, |text| text.write_str(value));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field, false, |text| write!(text, "{value:?}"));
    }
}

/// Escapes and cuts a value.
struct Value<'l> {
    text: &'l mut String,
    /// How many bytes of it may still be written.
    left: usize,
    is_cut: bool,
    is_quoted: bool,
}

impl fmt::Write for Value<'_> {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let mut bytes = part.bytes();
        if part.len() <= self.left && !bytes.any(|byte| may_need_escape(byte, self.is_quoted)) {
            self.left -= part.len();
            self.text.push_str(part);
            return Ok(());
        }
        part.chars()
            .try_for_each(|character| self.write_char(character))
    }

    fn write_char(&mut self, character: char) -> fmt::Result {
        let before = self.text.len();
        match character {
            '"' | '\\' if self.is_quoted => self.text.extend(['\\', character]),
            _ if is_printable(character) => self.text.push(character),
            // As `\u001b`, which is JSON, too.
            _ => push_escaped(self.text, character),
        }
        let Some(left) = self.left.checked_sub(self.text.len() - before) else {
            self.text.truncate(before);
            if !std::mem::replace(&mut self.is_cut, true) {
                self.text.push(CUT);
            }
            return Err(fmt::Error);
        };
        self.left = left;
        Ok(())
    }
}

/// A quick check before the slow one: nearly all values are ASCII.
fn may_need_escape(byte: u8, is_quoted: bool) -> bool {
    !matches!(byte, 0x20..=0x7e) || is_quoted && matches!(byte, b'"' | b'\\')
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value as Json;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// The lines of what `events` logs, at 2023-11-14 22:13:20.
    fn lines(format: LogFormat, colours: bool, events: impl FnOnce()) -> Vec<String> {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let now = SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_000_007);
        let taking = Arc::clone(&taken);
        let layer = EventLayer {
            format,
            colours,
            clock: Clock::custom(move || now),
            take: move |line: &[u8]| {
                let line = String::from_utf8(line.to_vec()).unwrap();
                taking.lock().unwrap().push(line);
            },
        };
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, events);
        Arc::try_unwrap(taken).unwrap().into_inner().unwrap()
    }

    fn one_event() {
        tracing::info!(
            target: "t",
            client = %"192.0.2.1",
            path = "/a\"b\\c é…",
            status = 404_u16,
            cut = true,
            place = -1,
            kind = ?Some("x"),
            nothing = None::<&str>,
            "request {}",
            "answered"
        );
    }

    #[test]
    fn an_event_is_one_line_of_text() {
        let expected = "2023-11-14T22:13:20.000007Z  INFO t: request answered client=192.0.2.1 \
            path=\"/a\\\"b\\\\c é…\" status=404 cut=true place=-1 kind=Some(\"x\")\n";
        assert_eq!(lines(LogFormat::Text, false, one_event), [expected]);
    }

    #[test]
    fn an_event_is_one_line_of_json() {
        let lines = lines(LogFormat::Json, false, one_event);
        let [line] = lines.as_slice() else {
            panic!("{lines:?}");
        };
        let json: Json = serde_json::from_str(line).unwrap();
        let expected = serde_json::json!({
            "timestamp": "2023-11-14T22:13:20.000007Z", "level": "INFO", "target": "t",
            "message": "request answered", "client": "192.0.2.1", "path": "/a\"b\\c é…",
            "status": 404, "cut": true, "place": -1, "kind": "Some(\"x\")",
        });
        assert_eq!(json, expected);
        assert!(line.ends_with("}\n"));
    }

    #[test]
    fn only_levels_have_colours() {
        let lines = lines(LogFormat::Text, true, || {
            tracing::warn!(target: "t", a = "\u{1b}[2J", "b");
        });
        let expected =
            "2023-11-14T22:13:20.000007Z \u{1b}[33m WARN\u{1b}[0m t: b a=\"\\u001b[2J\"\n";
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn what_is_not_printable_is_escaped_wherever_it_is() {
        let hostile = "\x1b[2J\ny\r\u{9b}z\x7f\u{202e}x\u{e0041}";
        let escaped = "\\u001b[2J\\u000ay\\u000d\\u009bz\\u007f\\u202ex\\udb40\\udc41";
        let log =
            || tracing::warn!(target: "t", a = hostile, b = %hostile, c = ?hostile, "{hostile}");
        let text = lines(LogFormat::Text, false, log).concat();
        assert_eq!(text.matches(escaped).count(), 3, "{text}");
        let hidden = |text: &str| {
            text.chars()
                .filter(|c| !is_printable(*c))
                .collect::<String>()
        };
        assert_eq!(hidden(&text), "\n");
        let json = lines(LogFormat::Json, false, log).concat();
        assert_eq!(hidden(&json), "\n");
        let json: Json = serde_json::from_str(&json).unwrap();
        assert!(
            ["a", "b", "message"]
                .iter()
                .all(|name| json[name] == hostile)
        );
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        for long in ["é", "\n", "\"", "💩"] {
            let long = long.repeat(60_000);
            let log = || tracing::warn!(target: "t", a = long, b = %long, "c");
            for format in [LogFormat::Text, LogFormat::Json] {
                let line = lines(format, false, log).concat();
                let length = line.len();
                assert!((2 * VALUE_BYTES_MAX - 20..2 * VALUE_BYTES_MAX + 200).contains(&length));
                assert_eq!(line.matches(CUT).count(), 2);
                let json = serde_json::from_str::<Json>(&line);
                assert_eq!(json.is_ok(), format == LogFormat::Json);
            }
        }
    }

    #[test]
    fn fields_that_no_longer_fit_are_left_out() {
        let long = "x".repeat(60_000);
        let log = || {
            tracing::warn!(target: "t", a = long, b = long, c = long, d = long, e = long, f = long, g = long,
                h = long, i = long, "j");
        };
        let line = lines(LogFormat::Json, false, log).concat();
        assert!(line.len() <= EVENT_BYTES_MAX, "{}", line.len());
        let json: Json = serde_json::from_str(&line).unwrap();
        assert_eq!(json["message"], "j");
        assert!(json.get("g").is_some() && json.get("i").is_none());
    }
}
