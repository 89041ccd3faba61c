//! What a client accepts (RFC 9110, section 12.5): its media types, and the choices in its other headers of this kind.

use axum::http::{HeaderMap, HeaderName, header};

/// The choices in all lines of a header, each with its quality. A line that is not ASCII has none.
pub(super) fn choices(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = (&str, f32)> {
    let lines = headers.get_all(name).into_iter();
    let choices = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','));
    choices.map(|choice| {
        let mut parts = choice.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        (name, parts.find_map(quality).unwrap_or(1.0))
    })
}

/// Whether a client would rather have HTML than anything else that it names, as browsers do when they show a page. A client
/// that takes everything alike does not: it names nothing.
pub(crate) fn prefers_html(headers: &HeaderMap) -> bool {
    let (mut best, mut is_html) = (0.0, false);
    for (media_type, quality) in choices(headers, header::ACCEPT) {
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
    let quality_of = |wanted: &str| {
        let named = choices(headers, header::ACCEPT)
            .filter(|(media_type, _)| media_type.eq_ignore_ascii_case(wanted));
        named.fold(0.0, |best: f32, (_, quality)| best.max(quality))
    };
    let wanted = quality_of(media_type);
    wanted > 0.0 && wanted >= quality_of(instead_of)
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
