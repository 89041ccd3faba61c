//! An index file as of a time: the versions that were published by then.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{IndexLine, Timestamp};

/// The field of a line that tells when the version was published. It is read apart from the other fields, so that a line
/// of any format tells it.
#[derive(Deserialize)]
struct Published<'a> {
    #[serde(borrow, default)]
    pubtime: Option<&'a RawValue>,
}

/// The lines of an index file without those that were published after `time`. They stay byte for byte, and so does what
/// is no line of a version. `None` if cargo could read none of them: then there was no such crate at that time.
///
/// A line without a publish time stays, as in cargo's own filter by publish time.
pub(crate) fn as_of(file: &[u8], time: &Timestamp) -> Option<Vec<u8>> {
    let mut kept = Vec::with_capacity(file.len());
    let mut is_crate = false;
    // Each line keeps its line break, so a file without later versions keeps its blob id.
    for line in file.split_inclusive(|byte| *byte == b'\n') {
        if published_at(line).is_none_or(|published| published <= *time) {
            // Reading a whole line takes several times as long. Most often the first one is enough.
            is_crate = is_crate || IndexLine::parse(line).is_some();
            kept.extend_from_slice(line);
        }
    }
    kept.shrink_to_fit();
    is_crate.then_some(kept)
}

/// When the version of a line was published, if the line tells.
fn published_at(line: &[u8]) -> Option<Timestamp> {
    // serde also reads the fields from an array.
    if !line.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let line: Published<'_> = serde_json::from_slice(line).ok()?;
    serde_json::from_str(line.pubtime?.get()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use serde_json::Value;

    use super::*;

    /// Real index files.
    const FILES: [&str; 5] = [
        include_str!("../../tests/fixtures/index/ad/le/adler2"),
        include_str!("../../tests/fixtures/index/in/fl/inflector"),
        include_str!("../../tests/fixtures/index/se/rd/serde_core"),
        include_str!("../../tests/fixtures/index/sh/le/shlex"),
        include_str!("../../tests/fixtures/index/ti/ny/tinyvec_macros"),
    ];

    /// Lines that cargo cannot read. Some tell a publish time.
    const JUNK: [&str; 8] = [
        "",
        " ",
        "not json",
        "{}",
        r#"["2020-01-01T00:00:00Z"]"#,
        r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","pubtime":"yesterday"}"#,
        r#"{"name":"a","vers":"1.0.0","pubtime":"2020-01-01T00:00:00Z"}"#,
        r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","pubtime":"2020-01-01T00:00:00Z""#,
    ];

    fn time(text: &str) -> Timestamp {
        Timestamp::try_from(text.to_owned()).unwrap()
    }

    fn left(file: &str, at: &str) -> Option<String> {
        as_of(file.as_bytes(), &time(at)).map(|left| String::from_utf8(left).unwrap())
    }

    /// A line as crates.io writes it: the fixtures have spaces.
    fn compact(line: &str) -> String {
        let (mut in_text, mut is_escaped) = (false, false);
        let keep = |letter: &char| {
            let is_kept = in_text || *letter != ' ';
            in_text ^= *letter == '"' && !is_escaped;
            is_escaped = *letter == '\\' && !is_escaped;
            is_kept
        };
        line.chars().filter(keep).collect()
    }

    #[test]
    fn later_versions_are_left_out_and_the_others_stay_byte_for_byte() {
        let file = FILES[4];
        let (first, second) = file.split_once('\n').unwrap();
        assert!(second.contains("2023-02-02T23:03:04Z"));
        for (at, expected) in [
            ("2020-08-09T16:30:40Z", None),
            ("2020-08-09T16:30:41Z", Some(format!("{first}\n"))),
            ("2023-02-02T23:03:03Z", Some(format!("{first}\n"))),
            ("2023-02-02T23:03:04Z", Some(file.to_owned())),
            ("9999-12-31T23:59:59Z", Some(file.to_owned())),
        ] {
            assert_eq!(left(file, at), expected, "{at}");
            let compacted = left(&compact(file), at);
            assert_eq!(compacted, expected.map(|file| compact(&file)), "{at}");
        }
    }

    #[test]
    fn line_breaks_stay_as_they_are() {
        let line = |number: u8| {
            let at = format!("202{number}-01-01T00:00:00Z");
            format!(r#"{{"name":"a","vers":"{number}.0.0","deps":[],"cksum":"","pubtime":"{at}"}}"#)
        };
        let (one, two, three) = (line(1), line(2), line(3));
        for (file, expected) in [
            (format!("{one}\r\n{two}\r\n"), format!("{one}\r\n{two}\r\n")),
            (format!("{one}\r\n{three}\r\n"), format!("{one}\r\n")),
            (format!("{one}\n{two}"), format!("{one}\n{two}")),
            (format!("{three}\n{two}"), two.clone()),
            (format!("{two}\n{three}"), format!("{two}\n")),
            (format!("\n{three}\n\n{one}\n\n"), format!("\n\n{one}\n\n")),
        ] {
            assert_eq!(
                left(&file, "2022-06-01T00:00:00Z"),
                Some(expected),
                "{file:?}"
            );
        }
    }

    #[test]
    fn a_line_without_a_publish_time_stays_and_junk_stays_beside_a_readable_line() {
        let (old, future) = (
            r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":""}"#,
            r#"{"name":"a","vers":"2.0.0","deps":{"new":"shape"},"cksum":"","pubtime":7,"v":9}"#,
        );
        let later = r#"{"name":"a","vers":"2.0.0","deps":{"new":"shape"},"cksum":"","pubtime":"2021-01-01T00:00:00Z","v":9}"#;
        let null = r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","pubtime":null}"#;
        let escaped = r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","pubt\u0069me":"2021-01-01T00:00:00\u005a"}"#;
        // Fields of a dependency do not count, and neither does text that looks like a field.
        let nested = r#"{"name":"a","vers":"1.0.0","deps":[{"name":"b","req":"*","pubtime":"2021-01-01T00:00:00Z"}],"cksum":"\"pubtime\":\"2021-01-01T00:00:00Z\"","features":{}}"#;
        for (line, at_2020, at_2021) in [
            (old, true, true),
            (future, true, true),
            (later, false, true),
            (null, true, true),
            (escaped, false, true),
            (nested, true, true),
        ] {
            for (at, is_left) in [
                ("2020-01-01T00:00:00Z", at_2020),
                ("2021-01-01T00:00:00Z", at_2021),
            ] {
                for junk in JUNK {
                    let file = format!("{junk}\n{line}\n{junk}");
                    assert_eq!(left(&file, at), is_left.then_some(file), "{at}");
                }
            }
        }
        for junk in JUNK {
            assert_eq!(left(junk, "2022-01-01T00:00:00Z"), None, "{junk}");
        }
    }

    #[test]
    fn a_version_of_a_leap_second_is_older_than_the_next_day() {
        let line =
            r#"{"name":"a","vers":"1.0.0","deps":[],"cksum":"","pubtime":"2016-12-31T23:59:60Z"}"#;
        for (at, is_left) in [
            ("2016-12-31T23:59:59Z", false),
            ("2016-12-31T23:59:60Z", true),
            ("2017-01-01T00:00:00Z", true),
        ] {
            assert_eq!(left(line, at).is_some(), is_left, "{at}");
        }
    }

    /// A line of a file, and its publish time. `None` for junk, too, because it always stays.
    #[derive(Clone, Debug)]
    struct Row {
        text: String,
        published: Option<String>,
        is_readable: bool,
    }

    fn rows() -> impl Strategy<Value = Row> {
        let real: Vec<&str> = FILES.iter().flat_map(|file| file.lines()).collect();
        let real = (select(real), any::<bool>(), 0..4_u8).prop_map(|(line, is_compact, change)| {
            let json: Value = serde_json::from_str(line).unwrap();
            let published = json["pubtime"].as_str().unwrap().to_owned();
            let mut text = if is_compact {
                compact(line)
            } else {
                line.to_owned()
            };
            let mut known = Some(published.clone());
            if change == 0 {
                text = text.replace(&format!(", \"pubtime\": \"{published}\""), "");
                text = text.replace(&format!(",\"pubtime\":\"{published}\""), "");
                assert!(!text.contains("pubtime"));
                known = None;
            } else if change == 1 {
                text = text
                    .replacen('{', "{\"v\":7,", 1)
                    .replace(", \"v\": 2", "")
                    .replace(",\"v\":2", "");
            }
            Row {
                text,
                published: known,
                is_readable: true,
            }
        });
        let junk = select(&JUNK[..6]).prop_map(|text| Row {
            text: text.to_owned(),
            published: None,
            is_readable: false,
        });
        prop_oneof![5 => real, 1 => junk]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn exactly_the_lines_up_to_the_time_are_left(
            rows in proptest::collection::vec((rows(), select(&["\n", "\r\n"][..])), 0..6),
            ends in any::<bool>(),
            chosen in any::<Index>(),
            second in 0..3_i64,
        ) {
            let known: Vec<&String> = rows.iter().filter_map(|(row, _)| row.published.as_ref()).collect();
            let near = known.get(chosen.index(known.len().max(1))).map_or("2020-01-01T00:00:00Z", |time| time.as_str());
            let at = Timestamp::from_unix_seconds(time(near).unix_seconds() + second - 1).unwrap();
            let (mut file, mut expected, mut is_crate) = (String::new(), String::new(), false);
            for (number, (row, end)) in rows.iter().enumerate() {
                let end = if ends || number + 1 < rows.len() { *end } else { "" };
                let line = format!("{}{end}", row.text);
                file.push_str(&line);
                if row.published.as_deref().is_none_or(|published| time(published) <= at) {
                    expected.push_str(&line);
                    is_crate |= row.is_readable;
                }
            }
            let left = as_of(file.as_bytes(), &at).map(|left| String::from_utf8(left).unwrap());
            prop_assert_eq!(left, is_crate.then_some(expected));
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(as_of(&bytes, &Timestamp::epoch()));
        }
    }
}
