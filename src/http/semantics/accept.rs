//! Media types: `Accept` (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

/// Whether a client would rather have HTML than anything else that it names, as browsers do when they show a page. A client
/// that takes everything alike does not: it names nothing.
pub(crate) fn prefers_html(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter();
    let ranges = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    let (mut best, mut is_html) = (0.0, false);
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let quality = parts.find_map(quality).unwrap_or(1.0);
        // Of equals the first counts: browsers name HTML first.
        if quality > best && !media_type.contains('*') && media_type.contains('/') {
            best = quality;
            is_html = ["text/html", "application/xhtml+xml"]
                .iter()
                .any(|html| media_type.eq_ignore_ascii_case(html));
        }
    }
    is_html
}

/// Whether a client names a media type, and does not like another one better. A wildcard names nothing.
pub(crate) fn asks_for(headers: &HeaderMap, media_type: &str, instead_of: &str) -> bool {
    let (mut wanted, mut other) = (0.0_f32, 0.0_f32);
    let lines = headers.get_all(header::ACCEPT).iter();
    let ranges = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    for range in ranges {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let its = parts.find_map(quality).unwrap_or(1.0);
        if name.eq_ignore_ascii_case(media_type) {
            wanted = wanted.max(its);
        } else if name.eq_ignore_ascii_case(instead_of) {
            other = other.max(its);
        }
    }
    wanted > 0.0 && wanted >= other
}

/// The value of a parameter, if it is the quality. Nonsense counts as zero.
fn quality(parameter: &str) -> Option<f32> {
    let (name, value) = parameter.split_once('=')?;
    let is_quality = name.trim().eq_ignore_ascii_case("q");
    is_quality.then(|| value.trim().parse().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn html_is_for_clients_that_prefer_it() {
        let chromium =
            "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8";
        for (line, expected) in [
            (chromium, true),
            ("text/html", true),
            ("TEXT/HTML; charset=utf-8", true),
            ("application/json;q=0.5, text/html;q=0.6", true),
            ("*/*", false),
            ("text/*", false),
            ("", false),
            ("junk", false),
            ("application/json", false),
            ("application/json, text/html", false),
            ("text/html;q=0.5, application/json", false),
            ("text/html;q=0", false),
            ("text/html;q=x", false),
            ("text/html;q=NaN", false),
            ("image/avif,image/webp,*/*;q=0.8", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(line).unwrap());
            assert_eq!(prefers_html(&headers), expected, "{line}");
        }
        assert!(!prefers_html(&HeaderMap::new()));
    }
}
