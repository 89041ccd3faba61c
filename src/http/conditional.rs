//! Conditional requests: `If-None-Match` (RFC 9110, section 13.1.2).
//!
//! `If-Modified-Since` is not looked at: no answer carries `Last-Modified`.

use axum::http::{HeaderMap, header};

/// Whether any `If-None-Match` line is `*` or lists an entity tag that `is_current` says yes to. The comparison is the
/// weak one: a `W/` in front does not count. Tags are given in their quotes.
pub(super) fn matches_any(headers: &HeaderMap, is_current: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(header::IF_NONE_MATCH).iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .any(|line| line.trim() == "*" || tags(line).any(&is_current))
}

/// The entity tags of a list. What is malformed ends the list: it matches nothing.
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
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn matches(line: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_str(line).unwrap());
        matches_any(&headers, |tag| tag == "\"abc\"")
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
        assert!(!matches_any(&HeaderMap::new(), |_tag| true));
    }

    proptest! {
        #[test]
        fn reading_never_panics(line in "[ -~]{0,40}") {
            matches(&line);
        }
    }
}
