//! `GET /`: the state of the mirror and how to point cargo at it, for people. No page here lists crates.

use std::fmt::Write;

use axum::extract::State;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{Html, IntoResponse, Response};

use super::error::ApiError;
use super::health::Readiness;
use super::state::AppState;

/// The status and set-up page.
pub(super) async fn show(
    State(state): State<AppState>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let base = base_url(&state, &uri, &headers)?;
    let page = page(&Readiness::of(&state), &base);
    let headers = [
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "host, x-forwarded-proto"),
    ];
    Ok((headers, Html(page)).into_response())
}

/// The mirror's own base URL, without a trailing slash: as set, else as the client reached it.
///
/// # Errors
/// 400 for a `Host` that is not a valid authority.
fn base_url(state: &AppState, uri: &Uri, headers: &HeaderMap) -> Result<String, ApiError> {
    if let Some(url) = &state.settings.public_url {
        return Ok(url.clone());
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    // A request to a proxy names the host in its first line, which then counts.
    let host = uri
        .authority()
        .map(Authority::as_str)
        .or_else(|| text(header::HOST))
        .filter(|host| is_authority(host))
        .ok_or_else(|| ApiError::BadRequest("the Host header is not a host name".to_owned()))?;
    // A chain of proxies appends; the first is the one that the client spoke to.
    let forwarded = headers
        .get("x-forwarded-proto")
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(',').next())
        .map(str::trim);
    let scheme = match forwarded {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    };
    Ok(format!("{scheme}://{host}"))
}

fn is_authority(host: &str) -> bool {
    // Whatever is more than a host and a port would show up in another part of the URL.
    let url = url::Url::parse(&format!("http://{host}/"));
    url.is_ok_and(|url| url.username().is_empty() && url.password().is_none() && url.path() == "/")
        && !host.contains(['@', '/', '?', '#', '\\'])
}

fn page(readiness: &Readiness, base: &str) -> String {
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
    let base = escaped(base);
    format!(
        "<!DOCTYPE html>
<html lang=\"en\">
<head>
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width\">
<title>crates-io-mirror</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 48rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
th {{ text-align: left; padding-right: 1rem; vertical-align: top; white-space: nowrap; }}
td {{ overflow-wrap: anywhere; }}
pre {{ background: #f3f3f3; padding: 1rem; overflow-x: auto; }}
</style>
</head>
<body>
<h1>crates-io-mirror</h1>
<p>A read-only mirror of crates.io.</p>
<table>
{rows}</table>
<h2>Set-up</h2>
<p>In your fork of the index, <code>config.json</code> points at this mirror:</p>
<pre>{{\"dl\": \"{base}/api/v1/crates\", \"api\": \"{base}\"}}</pre>
<p>In <code>~/.cargo/config.toml</code>, cargo is told to use that fork:</p>
<pre>[source.crates-io]
replace-with = \"mirror\"

[source.mirror]
registry = \"https://git.example/your-fork-of/crates.io-index.git\"</pre>
</body>
</html>
"
    )
}

/// A text as HTML shows it literally.
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
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(
            escaped("<a href=\"x\">'&"),
            "&lt;a href=&quot;x&quot;&gt;&#39;&amp;"
        );
    }

    #[test]
    fn a_host_is_an_authority_without_credentials() {
        for good in ["h", "h.example:8080", "127.0.0.1:1", "[::1]:80"] {
            assert!(is_authority(good), "{good}");
        }
        for bad in ["", "a b", "h/x", "u@h", "h:port", "<h>"] {
            assert!(!is_authority(bad), "{bad}");
        }
    }
}
