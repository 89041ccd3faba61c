//! `GET /`: the state of the mirror and how to point cargo at it, for people. No page here lists crates.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{Html, IntoResponse, Response};

use super::health::Readiness;
use crate::http::error::ApiError;
use crate::http::semantics::base_url::base_url;
use crate::http::state::AppState;

/// The only style of the page. A change of it needs the new hash in [`CONTENT_SECURITY_POLICY`]: a test says which.
const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
th { text-align: left; padding-right: 1rem; vertical-align: top; white-space: nowrap; }
td { overflow-wrap: anywhere; }
pre { background: #f3f3f3; padding: 1rem; overflow-x: auto; }
";

/// The page may use its style and nothing else. Some of its texts come from outside.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'sha256-dKk3b+9/wDZm6o2lDTPLYgpIb958vSbziS5Tt0+Sgvc='; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The status and set-up page.
pub(crate) async fn show(
    State(state): State<Arc<AppState>>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let base = base_url(&state.settings, &uri, &headers)?;
    let serves_git = state.settings.public_url.is_some();
    let page = page(
        &Readiness::of(&state),
        &crate_files(&state),
        &base,
        serves_git,
    );
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "host, x-forwarded-proto"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    Ok((headers, Html(page)).into_response())
}

/// Where crate files come from, and how many there were so far.
fn crate_files(state: &AppState) -> String {
    let Some(crate_files) = &state.crate_files else {
        return format!("redirected to {}", state.settings.download.base());
    };
    let counters = crate_files.counters();
    let (hits, fetched) = (counters.hits.get(), counters.fetched.get());
    let place = crate_files.store().place();
    if crate_files.fetches() {
        format!("kept in {place}; {hits} were stored already, {fetched} were fetched")
    } else {
        format!("those in {place}, no others; {hits} were sent")
    }
}

fn page(readiness: &Readiness, crate_files: &str, base: &str, serves_git: bool) -> String {
    let index = &readiness.index;
    let state = readiness.reason.as_deref().unwrap_or("ready");
    let mut rows = String::new();
    let mut row = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _infallible = writeln!(rows, "<tr><th>{name}</th><td>{}</td></tr>", escaped(value));
    };
    row("State", state);
    row("Upstream index", &index.upstream);
    row("Commit", index.commit.as_deref().unwrap_or("none yet"));
    if let Some(crates) = index.crates {
        row("Crates", &crates.to_string());
    }
    if let Some(age) = index.age_seconds {
        row("Last successful fetch", &format!("{age} s ago"));
    }
    if let Some(error) = &index.last_error {
        row("Last failure", error);
    }
    row("Crate files", crate_files);
    if let Some(push) = &readiness.push {
        row("Pushed to", &push.remote);
        row(
            "Pushes",
            &format!("{} succeeded, {} failed", push.pushes, push.failures),
        );
        if let Some(error) = &push.last_error {
            row("Last failed push", error);
        }
    }
    let base = escaped(base);
    let git_note = if serves_git {
        ""
    } else {
        " (off: <code>PUBLIC_URL</code> is not set)"
    };
    format!(
        "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>crates-io-mirror</title>
<style>{STYLE}</style>
</head>
<body>
<h1>crates-io-mirror</h1>
<p>A read-only mirror of crates.io.</p>
<table>
{rows}</table>
<h2>Set-up</h2>
<p>In <code>~/.cargo/config.toml</code>, cargo is told to use this mirror:</p>
<pre>[source.crates-io]
replace-with = \"mirror\"
[source.mirror]
registry = \"sparse+{base}/index/\"
[registries.mirror]
index = \"sparse+{base}/index/\"</pre>
<p><code>cargo info</code> needs <code>--registry mirror</code>, and <code>cargo vendor</code> needs
<code>--respect-source-config</code>. Search on crates.io itself.</p>
<p>In CI, without a file:</p>
<pre>export CARGO_REGISTRIES_MIRROR_INDEX=sparse+{base}/index/
cargo --config 'source.crates-io.replace-with=\"mirror\"' fetch</pre>
<p>A cargo before 1.68, or one that uses git, takes <code>{base}/git/index</code> in both places{git_note}.</p>
<p>With a git index of your own, its <code>config.json</code> points at this mirror:</p>
<pre>{{\"dl\": \"{base}/api/v1/crates\", \"api\": \"{base}\"}}</pre>
</body>
</html>
"
    )
}

/// A text in HTML that shows it literally.
fn escaped(text: &str) -> String {
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_policy_allows_the_style_of_the_page() {
        let hash = STANDARD.encode(Sha256::digest(STYLE));
        assert!(
            CONTENT_SECURITY_POLICY.contains(&format!("'sha256-{hash}'")),
            "{hash}"
        );
    }

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(
            escaped("<a href=\"x\">'&"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;"
        );
    }
}
