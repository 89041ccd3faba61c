//! Range requests (RFC 9110, section 14): one range of bytes.
//!
//! A request for several ranges gets the whole file. A server may always send that.

use std::ops::Range;

use axum::http::{HeaderMap, HeaderValue, Method, header};

/// The part of a file to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// These bytes; there is at least one.
    Range(Range<u64>),
    /// The requested range contains no byte of the file.
    Outside,
}

/// The part of a file of `size` bytes that a request asks for. `tag` is the file's entity tag in its quotes.
pub(crate) fn part_of(headers: &HeaderMap, method: &Method, tag: &HeaderValue, size: u64) -> Part {
    let range = headers.get(header::RANGE).filter(|_| method == Method::GET);
    let Some(range) = range.and_then(|range| range.to_str().ok()) else {
        return Part::Whole;
    };
    // The RFC asks for the strong comparison. There is no date to compare with.
    if headers
        .get(header::IF_RANGE)
        .is_some_and(|known| known != tag)
    {
        return Part::Whole;
    }
    parse(range, size).unwrap_or(Part::Whole)
}

/// Ignores what it does not understand, as the RFC says.
fn parse(text: &str, size: u64) -> Option<Part> {
    let (unit, range) = text.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return None;
    }
    let range = match (first.trim(), last.trim()) {
        ("", length) => size.saturating_sub(number(length)?)..size,
        (first, "") => number(first)?..size,
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return None;
            }
            first..last.saturating_add(1).min(size)
        }
    };
    Some(if range.start < range.end {
        Part::Range(range)
    } else {
        Part::Outside
    })
}

/// A number that is too large for `u64` is beyond every file.
fn number(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(lines: &[(header::HeaderName, &str)]) -> Part {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        part_of(
            &headers,
            &Method::GET,
            &HeaderValue::from_static("\"tag\""),
            100,
        )
    }

    #[test]
    fn one_range_is_understood_in_its_three_forms() {
        for (text, expected) in [
            ("bytes=0-0", Part::Range(0..1)),
            ("bytes=10-19", Part::Range(10..20)),
            ("Bytes = 10-19", Part::Range(10..20)),
            ("bytes=90-", Part::Range(90..100)),
            ("bytes=90-1000", Part::Range(90..100)),
            ("bytes=0-18446744073709551615", Part::Range(0..100)),
            ("bytes=-10", Part::Range(90..100)),
            ("bytes=-1000", Part::Range(0..100)),
            ("bytes=100-", Part::Outside),
            ("bytes=99999999999999999999-", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=5-4", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes", Part::Whole),
        ] {
            assert_eq!(part(&[(header::RANGE, text)]), expected, "{text}");
        }
    }

    #[test]
    fn a_range_of_another_file_is_not_sent() {
        let range = (header::RANGE, "bytes=0-0");
        for (known, expected) in [
            ("\"tag\"", Part::Range(0..1)),
            ("W/\"tag\"", Part::Whole),
            ("\"other\"", Part::Whole),
            ("Sun, 22 Nov 2026 00:00:00 GMT", Part::Whole),
        ] {
            let lines = [range.clone(), (header::IF_RANGE, known)];
            assert_eq!(part(&lines), expected, "{known}");
        }
    }

    proptest! {
        #[test]
        fn every_range_lies_inside_the_file(text in "(bytes=)?[0-9]{0,21}-?[0-9]{0,21}", size in 0..300_u64) {
            if let Some(Part::Range(range)) = parse(&text, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }
}
