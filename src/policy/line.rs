//! The fields of an index line that rules read.

use std::borrow::Cow;

use serde::Deserialize;
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

/// Fields whose type differs between versions of the index, or may do so one day, are read as they were written: a line
/// that an old cargo can use must not escape the rules because of a field that this cargo does not read.
#[derive(Deserialize)]
struct Written<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    vers: Cow<'a, str>,
    #[serde(borrow, default)]
    cksum: Option<&'a RawValue>,
    #[serde(borrow, default)]
    yanked: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pubtime: Option<&'a RawValue>,
}

impl<'a> Line<'a> {
    /// Parses a line. `None` for one that is no JSON object with the name of a crate and a version: cargo skips it.
    pub(crate) fn parse(line: &'a [u8]) -> Option<Self> {
        // serde also reads the fields from an array.
        if !line.trim_ascii_start().starts_with(b"{") {
            return None;
        }
        let written: Written<'a> = serde_json::from_slice(line).ok()?;
        let text = |raw: Option<&'a RawValue>| -> Option<Cow<'a, str>> {
            // Nearly all have no escapes, and are borrowed.
            let raw = raw?.get();
            match raw.strip_prefix('"').and_then(|raw| raw.strip_suffix('"')) {
                Some(plain) if !plain.contains('\\') => Some(Cow::Borrowed(plain)),
                _ => serde_json::from_str::<String>(raw).ok().map(Cow::Owned),
            }
        };
        Some(Self {
            version: semver::Version::parse(&written.vers).ok()?,
            name: written.name,
            text: written.vers,
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
    }

    #[test]
    fn what_cargo_skips_is_no_line() {
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
