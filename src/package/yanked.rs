//! Another yanked flag in an index line, and not another byte.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// The flag of a line as it is written, so that its place is known.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow, default, deserialize_with = "even_null")]
    yanked: Option<&'a RawValue>,
}

/// By itself `null` would pass for a field that is not there.
fn even_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

/// A line with this flag. Without one it gets `,"yanked":…` before its last brace. `None` if the result could be read in
/// two ways, or the line is not a JSON object.
pub(crate) fn with_yanked(line: &[u8], yanked: bool) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(line).ok()?;
    // serde also reads the fields from an array.
    text.trim_start().starts_with('{').then_some(())?;
    let written: Written<'_> = serde_json::from_str(text).ok()?;
    let flag = if yanked { "true" } else { "false" };
    let edited = match written.yanked {
        Some(value) => {
            // The value borrows from the text, so the distance between the two is its place.
            let start = (value.get().as_ptr() as usize).checked_sub(text.as_ptr() as usize)?;
            let (before, rest) = text.split_at_checked(start)?;
            let (_value, after) = rest.split_at_checked(value.get().len())?;
            [before, flag, after].concat()
        }
        None => {
            let (before, after) = text.split_at_checked(text.rfind('}')?)?;
            [before, ",\"yanked\":", flag, after].concat()
        }
    };
    let read: Written<'_> = serde_json::from_str(&edited).ok()?;
    (read.yanked?.get() == flag).then(|| edited.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(line: &str, yanked: bool) -> Option<String> {
        with_yanked(line.as_bytes(), yanked).map(|line| String::from_utf8(line).unwrap())
    }

    #[test]
    fn the_flag_changes_and_nothing_else() {
        for (line, expected) in [
            (
                r#"{"name":"a","yanked":false,"v":2}"#,
                r#"{"name":"a","yanked":true,"v":2}"#,
            ),
            (
                " { \"yanked\" :\tfalse , \"deps\" : [ {\"yanked\":false} ] }\r\n",
                " { \"yanked\" :\ttrue , \"deps\" : [ {\"yanked\":false} ] }\r\n",
            ),
            (
                r#"{"links":"\"yanked\":false","yank\u0065d":false}"#,
                r#"{"links":"\"yanked\":false","yank\u0065d":true}"#,
            ),
            (
                "{\"name\":\"a\",\"deps\":[{}]}\n",
                "{\"name\":\"a\",\"deps\":[{}],\"yanked\":true}\n",
            ),
            (r#"{"yanked":true}"#, r#"{"yanked":true}"#),
            (r#"{"yanked":null}"#, r#"{"yanked":true}"#),
        ] {
            assert_eq!(edited(line, true).as_deref(), Some(expected), "{line}");
        }
        let line = r#"{"name":"a","yanked":true}"#;
        assert_eq!(
            edited(line, false).as_deref(),
            Some(r#"{"name":"a","yanked":false}"#)
        );
    }

    #[test]
    fn a_line_that_cannot_be_edited_safely_is_refused() {
        for line in [
            "",
            "junk",
            "[]",
            r#"[{"a":1}]"#,
            "{}",
            r#"{"yanked":false,"yanked":false}"#,
            r#"{"yanked":false"#,
        ] {
            assert_eq!(edited(line, true), None, "{line}");
        }
    }
}
