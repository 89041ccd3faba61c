//! The mirror's own base URL, as clients see it.

use std::net::Ipv6Addr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};

use crate::http::error::ApiError;
use crate::http::state::Settings;

/// The headers that it depends on, for `Vary`.
pub(crate) const BASE_URL_VARIES: &str = "host, x-forwarded-proto";

/// The mirror's own base URL, without a trailing slash: from the setting, else from the request.
///
/// # Errors
/// 400 for a `Host` that is not a valid authority.
pub(crate) fn base_url(
    settings: &Settings,
    uri: &Uri,
    headers: &HeaderMap,
) -> Result<String, ApiError> {
    if let Some(url) = &settings.public_url {
        return Ok(url.clone());
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // A request to a proxy names the host in its first line. That host counts.
    let host = uri
        .authority()
        .map(Authority::as_str)
        .or_else(|| text("host"))
        .filter(|host| is_authority(host))
        .ok_or_else(|| ApiError::BadRequest("the Host header is not a host name".to_owned()))?;
    // Each proxy of a chain appends. The first entry is from the proxy that the client spoke to.
    let forwarded = text("x-forwarded-proto").and_then(|value| value.split(',').next());
    let forwarded = forwarded.map(str::trim);
    let scheme = match forwarded {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        Some(scheme) if scheme.eq_ignore_ascii_case("http") => "http",
        _ if settings.tls => "https",
        _ => "http",
    };
    Ok(format!("{scheme}://{host}"))
}

/// The path in front of all paths of the mirror, without a trailing slash: that of `PUBLIC_URL`, or nothing. Links on pages
/// begin with it.
pub(crate) fn root_path(settings: &Settings) -> &str {
    let url = settings.public_url.as_deref().unwrap_or_default();
    let behind_scheme = url.split_once("://").map_or("", |(_, rest)| rest);
    let path = behind_scheme
        .find('/')
        .and_then(|at| behind_scheme.get(at..));
    path.unwrap_or_default().trim_end_matches('/')
}

/// Whether a text is a host, with or without a port, and nothing else. It becomes a part of URLs that cargo reads, and there
/// braces are placeholders.
fn is_authority(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let good_port = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|port| port.parse::<u16>().is_ok());
    let good_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    good_port && !name.is_empty() && name.bytes().all(good_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_authority_without_credentials() {
        for good in ["h", "h.example:8080", "127.0.0.1:1", "[::1]:80"] {
            assert!(is_authority(good), "{good}");
        }
        for bad in [
            "", "a b", "h/x", "u@h", "h:port", "<h>", "{crate}", "a\"b", "a\tb", "evil%41", "h:",
            "h:99999", "[::1", "[h]", ":80",
        ] {
            assert!(!is_authority(bad), "{bad}");
        }
    }
}
