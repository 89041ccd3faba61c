//! Takes `//` and dot segments out of the path before routing, as crates.io does.
//!
//! The `api` of an old config.json ends in a slash, so cargo asks for `//api/v1/…`. Percent-encoded dots and slashes
//! are left as they are.

use axum::http::Uri;
use axum::http::uri::PathAndQuery;

/// See the module.
pub(super) fn normalize(uri: &mut Uri) {
    if needs_work(uri.path())
        && let Some(normalized) = normalized_uri(uri)
    {
        *uri = normalized;
    }
}

fn needs_work(path: &str) -> bool {
    path.as_bytes()
        .windows(2)
        .any(|pair| matches!(pair, b"//" | b"/."))
}

fn normalized_uri(uri: &Uri) -> Option<Uri> {
    let path = normalized(uri.path());
    let path_and_query = match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).ok()?);
    Uri::from_parts(parts).ok()
}

/// Empty and `.` segments vanish, `..` takes the one before it along and stops at the root. A trailing slash goes too.
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
    fn takes_out_empty_and_dot_segments() {
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
            assert!(needs_work(path));
            assert_eq!(normalized(path), expected, "{path}");
        }
        for untouched in ["/", "/api/v1/crates/", "/a.b/c.", "/a/%2e%2e/b"] {
            assert!(!needs_work(untouched), "{untouched}");
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
