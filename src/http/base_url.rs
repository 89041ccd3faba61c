//! The mirror's own base URL, as its clients see it.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri, header};

use super::error::ApiError;
use super::state::AppState;

/// The mirror's own base URL, without a trailing slash: as set, else as the client reached it.
///
/// # Errors
/// 400 for a `Host` that is not a valid authority.
pub(super) fn base_url(
    state: &AppState,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<String, ApiError> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
