//! The fields of an index line that rules read.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::package::{Checksum, Timestamp};

/// One version, as its index line describes it.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// The name of the crate as it was published.
    pub(crate) name: Cow<'a, str>,
    /// The version as it was written.
    pub(crate) text: Cow<'a, str>,
    /// The version as numbers and identifiers.
    pub(crate) version: semver::Version,
    /// When it was published, if the line says so.
    pub(crate) published: Option<Timestamp>,
    /// Whether the upstream has yanked it.
    pub(crate) yanked: bool,
    /// The checksum of its crate file, if it is one.
    pub(crate) checksum: Option<Checksum>,
}

/// The versions among these lines, each with its place.
pub(super) fn versions_in<'a, 'l>(
    lines: &'a [Option<Line<'l>>],
) -> impl Iterator<Item = (usize, &'a Line<'l>)> {
    let lines = lines.iter().enumerate();
    lines.filter_map(|(place, line)| Some((place, line.as_ref()?)))
}

/// The fields of a line as they were written.
///
/// They are read without a look at their types: a line that some cargo can use must not escape the rules because of a field
/// that it does not read. For the same reason a field may occur twice. The last one counts; a line with two yanked flags
/// cannot be edited, and is left out.
#[derive(Default)]
struct Written<'a> {
    name: Option<&'a RawValue>,
    vers: Option<&'a RawValue>,
    cksum: Option<&'a RawValue>,
    yanked: Option<&'a RawValue>,
    pubtime: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Written<'de> {
    fn deserialize<D: Deserializer<'de>>(line: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Written<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut line: A) -> Result<Written<'de>, A::Error> {
                let mut written = Written::default();
                while let Some(key) = line.next_key::<Key>()? {
                    let field = match key {
                        Key::Name => &mut written.name,
                        Key::Vers => &mut written.vers,
                        Key::Cksum => &mut written.cksum,
                        Key::Yanked => &mut written.yanked,
                        Key::Pubtime => &mut written.pubtime,
                        Key::Other => {
                            line.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *field = Some(line.next_value()?);
                }
                Ok(written)
            }
        }

        line.deserialize_map(Fields)
    }
}

/// The name of a field, escaped or not.
#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "lowercase")]
enum Key {
    Name,
    Vers,
    Cksum,
    Yanked,
    Pubtime,
    #[serde(other)]
    Other,
}

impl<'a> Line<'a> {
    /// Parses a line. `None` for one that is no JSON object with the name of a crate and a version: cargo skips it.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        let written: Written<'a> = serde_json::from_slice(line).ok()?;
        let text = |raw: Option<&'a RawValue>| -> Option<Cow<'a, str>> {
            // Nearly all have no escapes, and are borrowed.
            let raw = raw?.get();
            match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
                Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
                _ => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
            }
        };
        let version = text(written.vers)?;
        Some(Self {
            name: text(written.name)?,
            version: semver::Version::parse(&version).ok()?,
            text: version,
            published: text(written.pubtime)
                .and_then(|time| Timestamp::try_from(time.into_owned()).ok()),
            yanked: written.yanked.is_some_and(|flag| flag.get() == "true"),
            checksum: text(written.cksum).and_then(|checksum| checksum.parse().ok()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_whatever_its_form() {
        let checksum = "ab".repeat(32);
        for line in [
            format!(
                r#"{{"name":"Foo","vers":"1.2.3","deps":[],"cksum":"{checksum}","features":{{}},"yanked":true,"pubtime":"2026-01-02T03:04:05Z"}}"#
            ),
            format!(
                " {{ \"name\" : \"Foo\", \"vers\" : \"1.2.\\u0033\", \"v\": 9, \"new\": [{{}}], \"cksum\" : \"{checksum}\", \"yanked\" : true, \"pubtime\" : \"2026-01-02T03:04:05\\u005a\" }}\r\n"
            ),
        ] {
            let line = Line::parse(line.as_bytes()).unwrap();
            assert_eq!((&*line.name, &*line.text), ("Foo", "1.2.3"));
            assert_eq!(line.published.unwrap().unix_seconds(), 1_767_323_045);
            assert!(line.yanked && line.checksum.is_some());
        }
        let odd = br#"{"name":"a","vers":"1.0.0","cksum":5,"yanked":null,"pubtime":[1]}"#;
        let odd = Line::parse(odd).unwrap();
        assert!(!odd.yanked && odd.published.is_none() && odd.checksum.is_none());
        let twice = br#"{"name":"a","vers":"1.0.0","yanked":true,"yanked":false}"#;
        assert!(!Line::parse(twice).unwrap().yanked);
    }

    #[test]
    fn a_line_that_cargo_skips_is_no_line() {
        for junk in [
            "",
            "junk",
            "[]",
            "{}",
            r#"{"name":"a"}"#,
            r#"{"name":"a","vers":"1.0"}"#,
        ] {
            assert!(Line::parse(junk.as_bytes()).is_none(), "{junk}");
        }
    }
}
