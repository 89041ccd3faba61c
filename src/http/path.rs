//! The path of a request: taking out `//` and dot segments, and the path in `PUBLIC_URL`.
//!
//! Some proxies remove the path in `PUBLIC_URL` from requests, others leave it. Both kinds of requests work.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// The first segments of our own paths. If the prefix begins with one of these, a request that begins with the prefix
/// may already be without it.
const OWN_FIRST_SEGMENTS: [&str; 6] = ["api", "at", "crates", "git", "index", "policy"];

/// What can follow a prefix that begins like one of our own paths.
const AFTER_AMBIGUOUS: [&str; 14] = [
    "",
    "api",
    "at",
    "changes",
    "config.toml",
    "crates",
    "git",
    "index",
    "livez",
    "me",
    "metrics",
    "policy",
    "readyz",
    "status",
];

/// A path in front of all paths of the mirror.
///
/// Invariants: it is normalised, begins with a slash, does not end with one, and is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathPrefix {
    path: String,
    is_ambiguous: bool,
}

impl PathPrefix {
    /// The path of a base URL. `None` if there is none.
    pub(super) fn of(base_url: &str) -> Option<Self> {
        let url = url::Url::parse(base_url).ok()?;
        let path = normalized(url.path());
        let first = path.split('/').nth(1).filter(|first| !first.is_empty())?;
        Some(Self {
            is_ambiguous: OWN_FIRST_SEGMENTS.contains(&first),
            path,
        })
    }

    /// Removes the prefix from a normalised path. `/mirrorfoo` does not begin with the prefix `/mirror`.
    pub(super) fn remove_from(&self, uri: &mut Uri) {
        let Some(rest) = self.rest_of(uri.path()) else {
            return;
        };
        let rest = if rest.is_empty() { "/" } else { rest };
        if let Some(stripped) = with_path(uri, rest) {
            *uri = stripped;
        }
    }

    fn rest_of<'p>(&self, path: &'p str) -> Option<&'p str> {
        let rest = path.strip_prefix(self.path.as_str())?;
        let is_all = || rest.is_empty().then_some("");
        let below = rest.strip_prefix('/').or_else(is_all)?;
        // With the prefix `/index`, `/index/se/rd/serde` is an index file whose prefix the proxy has removed.
        (!self.is_ambiguous || begins_like_ours(below)).then_some(rest)
    }
}

/// Whether one of our own paths can begin with these segments.
fn begins_like_ours(path: &str) -> bool {
    let mut segments = path.split('/');
    let first = segments.next().unwrap_or_default();
    AFTER_AMBIGUOUS.contains(&first)
        && match first {
            // These two are directories of the index, too: `at/om/atom`, `me/mc/memchr`.
            "at" => segments.nth(1) == Some("index"),
            "me" => segments.all(str::is_empty),
            _ => true,
        }
}

/// Takes `//` and dot segments out of the path, as crates.io does.
///
/// The `api` of an old config.json ends in a slash, so cargo asks for `//api/v1/…`. Percent-encoded dots and slashes stay
/// as they are.
pub(super) fn normalize(uri: &mut Uri) {
    if needs_normalizing(uri.path())
        && let Some(normalized) = with_path(uri, &normalized(uri.path()))
    {
        *uri = normalized;
    }
}

fn needs_normalizing(path: &str) -> bool {
    path.as_bytes()
        .windows(2)
        .any(|pair| matches!(pair, b"//" | b"/."))
}

/// The same URI with another path.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let path_and_query = match uri.query() {
        Some(query) => PathAndQuery::try_from(format!("{path}?{query}")),
        None => PathAndQuery::try_from(path),
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path_and_query.ok()?);
    Uri::from_parts(parts).ok()
}

/// Removes empty and `.` segments, and a trailing slash. `..` removes the segment before it and stops at the root.
fn normalized(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    format!("/{}", segments.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_base_url_without_a_path_has_no_prefix() {
        for url in ["https://h.example", "http://h.example:8080/", "https://h//"] {
            assert_eq!(PathPrefix::of(url), None, "{url}");
        }
    }

    #[test]
    fn the_prefix_is_removed_once_and_only_as_whole_segments() {
        for (base, path, expected) in [
            (
                "https://h/mirror",
                "/mirror/index/config.json",
                "/index/config.json",
            ),
            ("https://h/mirror", "/mirror/a?b=/mirror", "/a?b=/mirror"),
            (
                "https://h/mirror",
                "/index/config.json",
                "/index/config.json",
            ),
            ("https://h/mirror", "/mirror", "/"),
            ("https://h/mirror", "/mirror/", "/"),
            ("https://h/mirror", "/mirror?x", "/?x"),
            ("https://h/mirror", "/mirrorfoo/livez", "/mirrorfoo/livez"),
            ("https://h/mirror", "/mirror%2flivez", "/mirror%2flivez"),
            ("https://h/mirror", "/Mirror/livez", "/Mirror/livez"),
            ("https://h/mirror", "/mirror/mirror/livez", "/mirror/livez"),
            ("https://h//a//b/", "/a/b/livez", "/livez"),
            ("https://h/a b/", "/a%20b/livez", "/livez"),
            // Prefixes that begin like our own paths.
            (
                "https://h/index",
                "/index/se/rd/serde",
                "/index/se/rd/serde",
            ),
            (
                "https://h/index",
                "/index/config.json",
                "/index/config.json",
            ),
            (
                "https://h/index",
                "/index/index/config.json",
                "/index/config.json",
            ),
            (
                "https://h/crates",
                "/crates/api/v1/crates/a",
                "/api/v1/crates/a",
            ),
            (
                "https://h/crates",
                "/crates/a/a-1.0.0.crate",
                "/crates/a/a-1.0.0.crate",
            ),
            ("https://h/crates", "/crates/config.toml", "/config.toml"),
            ("https://h/git", "/git/status", "/status"),
            ("https://h/index", "/index/me", "/me"),
            (
                "https://h/index",
                "/index/me/mc/memchr",
                "/index/me/mc/memchr",
            ),
            ("https://h/index", "/index/at/om/atom", "/index/at/om/atom"),
            (
                "https://h/index",
                "/index/at/2026-01-01/index/at/om/atom",
                "/at/2026-01-01/index/at/om/atom",
            ),
            (
                "https://h/crates",
                "/crates/at/at-1.0.0.crate",
                "/crates/at/at-1.0.0.crate",
            ),
            (
                "https://h/at",
                "/at/2026-01-01/index/se/rd/serde",
                "/at/2026-01-01/index/se/rd/serde",
            ),
            (
                "https://h/at",
                "/at/at/2026-01-01/index/se/rd/serde",
                "/at/2026-01-01/index/se/rd/serde",
            ),
            (
                "https://h/at",
                "/at/index/se/rd/serde",
                "/index/se/rd/serde",
            ),
            ("https://h/api", "/api/v1/crates/a", "/api/v1/crates/a"),
            ("https://h/api", "/api/api/v1/crates/a", "/api/v1/crates/a"),
            (
                "https://h/git/x",
                "/git/index/info/refs",
                "/git/index/info/refs",
            ),
            (
                "https://h/git/x",
                "/git/x/git/index/info/refs",
                "/git/index/info/refs",
            ),
        ] {
            let mut uri: Uri = path.parse().unwrap();
            PathPrefix::of(base).unwrap().remove_from(&mut uri);
            assert_eq!(uri.to_string(), expected, "{base} {path}");
        }
        let mut absolute: Uri = "http://h:80/mirror/livez?a".parse().unwrap();
        PathPrefix::of("https://h/mirror")
            .unwrap()
            .remove_from(&mut absolute);
        assert_eq!(absolute.to_string(), "http://h:80/livez?a");
    }

    #[test]
    fn a_normalized_path_has_no_empty_and_no_dot_segments() {
        for (path, expected) in [
            ("//api/v1/../v2", "/api/v2"),
            ("/api/./v1", "/api/v1"),
            ("/../../etc/passwd", "/etc/passwd"),
            ("//api/v1/crates/", "/api/v1/crates"),
            ("//", "/"),
            ("/.", "/"),
            ("/..", "/"),
            ("/.hidden//x", "/.hidden/x"),
            ("/a/%2e%2e//b", "/a/%2e%2e/b"),
        ] {
            assert!(needs_normalizing(path));
            assert_eq!(normalized(path), expected, "{path}");
        }
        for untouched in ["/", "/api/v1/crates/", "/a.b/c.", "/a/%2e%2e/b"] {
            assert!(!needs_normalizing(untouched), "{untouched}");
        }
    }

    proptest! {
        #[test]
        fn the_result_is_a_fixed_point_below_the_root(path in "(/|\\.|\\.\\.|[a-z]|%2e|%2f){0,30}") {
            let once = normalized(&path);
            prop_assert!(once.starts_with('/') && !once.contains("//"));
            prop_assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
            prop_assert_eq!(normalized(&once), once);
        }
    }
}
