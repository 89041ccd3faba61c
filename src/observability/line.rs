//! What one event may be: one line without control characters, and not too long.
//!
//! Values of fields come from outside (paths, errors of upstreams, names in archives). They must neither start a line of
//! their own, nor move the cursor of a terminal, nor fill the memory in which events wait.

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::{Map, Value};

use crate::config::LogFormat;

/// The longest event that is written, in bytes.
pub(super) const EVENT_BYTES_MAX: usize = 8 * 1024;

/// The longest text in an event that had to be shortened, in bytes.
const SHORTENED_FIELD_BYTES: usize = 512;

/// What stands where a text was cut.
const CUT: char = '…';

/// A text with its control characters as `\u001b` and the like, which is how JSON writes them, too.
pub(crate) fn without_controls(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character.is_control())
}

/// An event as it is written, with its line break; `None` if it cannot be made short enough.
///
/// `has_colours` says that the formatter puts escape sequences of its own around values. It has escaped those inside.
pub(super) fn tidied(event: &[u8], format: LogFormat, has_colours: bool) -> Option<Cow<'_, [u8]>> {
    let line = event.strip_suffix(b"\n").unwrap_or(event);
    if event.len() <= EVENT_BYTES_MAX && !may_have_controls(line) {
        return Some(Cow::Borrowed(event));
    }
    let text = String::from_utf8_lossy(line);
    let is_wanted = |character| has_colours && character == '\u{1b}';
    let text = escaped(&text, |character| {
        character.is_control() && !is_wanted(character)
    });
    let mut text = if text.len() < EVENT_BYTES_MAX {
        text.into_owned()
    } else {
        shortened(&text, format)?
    };
    text.push('\n');
    Some(Cow::Owned(text.into_bytes()))
}

/// A quick look: the slow one comes only after it. C1 control characters begin with 0xC2 in UTF-8.
fn may_have_controls(line: &[u8]) -> bool {
    line.iter()
        .any(|byte| *byte < 0x20 || matches!(*byte, 0x7f | 0xc2))
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_escaped(character) {
            // Writing to a String cannot fail.
            let _infallible = write!(line, "\\u{:04x}", u32::from(character));
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

/// JSON stays JSON: its texts are cut, not the line.
fn shortened(line: &str, format: LogFormat) -> Option<String> {
    match format {
        LogFormat::Text => Some(cut(line, EVENT_BYTES_MAX)),
        LogFormat::Json => {
            let mut fields: Map<String, Value> = serde_json::from_str(line).ok()?;
            for value in fields.values_mut() {
                if let Value::String(text) = value {
                    *text = cut(text, SHORTENED_FIELD_BYTES);
                }
            }
            let line = serde_json::to_string(&fields).ok()?;
            (line.len() < EVENT_BYTES_MAX).then_some(line)
        }
    }
}

/// At most so many bytes of a text, the sign that says so included.
fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() < bytes_max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes_max.saturating_sub(1 + CUT.len_utf8()));
    let mut beginning = text.get(..end).unwrap_or_default().to_owned();
    beginning.push(CUT);
    beginning
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tidied_text(event: &str, format: LogFormat) -> Option<String> {
        tidied(event.as_bytes(), format, false)
            .map(|event| String::from_utf8(event.into_owned()).unwrap())
    }

    #[test]
    fn an_ordinary_event_is_left_as_it_is() {
        for event in ["INFO a=1 \"quoted\" é…\n", "{\"a\":\"b\\u001b\"}\n"] {
            for format in [LogFormat::Text, LogFormat::Json] {
                assert_eq!(tidied_text(event, format).unwrap(), event);
            }
        }
    }

    #[test]
    fn control_characters_are_escaped_and_an_event_is_one_line() {
        let event = "a=\"\x1b[2J\" b=x\ny\r\u{9b}z\x7f\n";
        let expected = "a=\"\\u001b[2J\" b=x\\u000ay\\u000d\\u009bz\\u007f\n";
        assert_eq!(tidied_text(event, LogFormat::Text).unwrap(), expected);
        let json = tidied_text("{\"a\":\"\u{9b}\x7f\"}\n", LogFormat::Json).unwrap();
        assert_eq!(json, "{\"a\":\"\\u009b\\u007f\"}\n");
        let coloured = tidied(b"\x1b[2mINFO\x1b[0m a\nb\n", LogFormat::Text, true).unwrap();
        assert_eq!(&*coloured, b"\x1b[2mINFO\x1b[0m a\\u000ab\n");
        assert_eq!(without_controls("a\x1bb"), "a\\u001bb");
    }

    #[test]
    fn a_long_event_is_cut_between_characters() {
        let event = format!("INFO path={}\n", "é".repeat(EVENT_BYTES_MAX));
        let text = tidied_text(&event, LogFormat::Text).unwrap();
        assert!(text.len() <= EVENT_BYTES_MAX && text.ends_with("é…\n"));
    }

    #[test]
    fn a_long_event_in_json_is_shortened_to_json() {
        let long = "é\\n".repeat(EVENT_BYTES_MAX);
        let event = format!("{{\"level\":\"INFO\",\"path\":\"{long}\",\"status\":404}}\n");
        let text = tidied_text(&event, LogFormat::Json).unwrap();
        assert!(text.len() < 2 * SHORTENED_FIELD_BYTES, "{text}");
        let json: Value = serde_json::from_str(&text).unwrap();
        assert!(json["path"].as_str().unwrap().starts_with("é\né"));
        assert_eq!(
            (&json["level"], &json["status"]),
            (&"INFO".into(), &404.into())
        );
    }

    #[test]
    fn what_cannot_be_shortened_is_not_written() {
        assert_eq!(
            tidied_text(&"x".repeat(2 * EVENT_BYTES_MAX), LogFormat::Json),
            None
        );
        let fields: Map<String, Value> = (0..1_000)
            .map(|number| (number.to_string(), "0123456789".into()))
            .collect();
        let event = serde_json::to_string(&fields).unwrap();
        assert_eq!(tidied_text(&event, LogFormat::Json), None);
    }
}
