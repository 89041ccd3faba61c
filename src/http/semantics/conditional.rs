//! Entity tags, and conditional requests: `If-None-Match` (RFC 9110, section 13.1.2).
//!
//! The mirror ignores `If-Modified-Since`, because no answer carries `Last-Modified`.

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, header};

/// The entity tag for a name in hexadecimal digits. `end` is its quote at the end, with what comes before that.
pub(crate) fn entity_tag(name: &[u8], end: &str) -> HeaderValue {
    // Of exactly its length, so that it becomes a header's value without another block of memory.
    let tag = [b"\"".as_slice(), name, end.as_bytes()].concat();
    // This is always a valid value.
    HeaderValue::from_maybe_shared(Bytes::from(tag)).unwrap_or(HeaderValue::from_static("\"\""))
}

/// Whether `If-None-Match` names this entity tag.
pub(crate) fn knows_tag(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let is_tag = |known: &str| (known.as_bytes() == tag.as_bytes()).then_some(());
    known_tag(headers, is_tag).is_some()
}

/// The result of `known` for the first entity tag in `If-None-Match` that it knows. Tags come in their quotes and without
/// `W/`, because the comparison is the weak one.
pub(crate) fn known_tag<T>(headers: &HeaderMap, known: impl Fn(&str) -> Option<T>) -> Option<T> {
    lines(headers).flat_map(tags).find_map(known)
}

/// Whether `If-None-Match` is `*`: the client is content with whatever it has.
pub(crate) fn has_any(headers: &HeaderMap) -> bool {
    lines(headers).any(|line| line.trim() == "*")
}

fn lines(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter();
    lines.filter_map(|line| line.to_str().ok())
}

/// The entity tags of a list. A malformed tag ends the list and matches nothing.
fn tags(list: &str) -> impl Iterator<Item = &str> {
    let mut rest = list;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let tag = rest.strip_prefix("W/").unwrap_or(rest);
        let end = tag.strip_prefix('"')?.find('"')? + 2;
        let (tag, after) = tag.split_at_checked(end)?;
        rest = after;
        Some(tag)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(line: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(line).unwrap());
        has_any(&headers) || known_tag(&headers, |tag| (tag == "\"abc\"").then_some(())).is_some()
    }

    #[test]
    fn lists_weak_forms_and_the_star_match() {
        for line in [
            "\"abc\"",
            "W/\"abc\"",
            "*",
            " * ",
            "\"x\", \"abc\"",
            "\"x\",W/\"abc\",\"y\"",
            "\"a,b\" , \"abc\"",
        ] {
            assert!(matches(line), "{line}");
        }
        for line in [
            "",
            "abc",
            "\"abc",
            "abc\"",
            "\"abcd\"",
            "w/\"abc\"",
            "x\"abc\"",
            "\"x\" junk \"abc\"",
            "\"*\"",
            "**",
        ] {
            assert!(!matches(line), "{line}");
        }
        assert!(
            !has_any(&HeaderMap::new()) && known_tag(&HeaderMap::new(), |_tag| Some(())).is_none()
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(line in "[ -~]{0,40}") {
            matches(&line);
        }
    }
}
