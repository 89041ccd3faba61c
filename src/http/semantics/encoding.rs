//! Content encodings: `Accept-Encoding` (RFC 9110, section 12.5.3).

use axum::http::{HeaderMap, header};

use super::accept::choices;

/// The encodings that a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// As it is.
    Plain,
    /// Compressed with gzip.
    Gzip,
}

impl Encoding {
    /// The shortest encoding that a client accepts.
    pub(crate) fn accepted_by(headers: &HeaderMap) -> Self {
        let mut choices = choices(headers, header::ACCEPT_ENCODING);
        let is_gzip = |name: &str| name.eq_ignore_ascii_case("gzip");
        if choices.any(|(name, quality)| is_gzip(name) && quality > 0.0) {
            Self::Gzip
        } else {
            Self::Plain
        }
    }

    /// The name in `Content-Encoding`.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Gzip => Some("gzip"),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn clients_get_the_encoding_that_they_accept() {
        for (line, expected) in [
            ("gzip", Encoding::Gzip),
            ("deflate, gzip", Encoding::Gzip),
            ("br;q=1, GZIP;q=0.5", Encoding::Gzip),
            ("gzip;q=0", Encoding::Plain),
            ("gzip; q=0.0", Encoding::Plain),
            ("gzip;Q=0", Encoding::Plain),
            ("gzip;q=0;x=y", Encoding::Plain),
            ("gzip;q=x", Encoding::Plain),
            ("gzip;q=0, gzip", Encoding::Gzip),
            ("identity", Encoding::Plain),
            ("", Encoding::Plain),
            ("x-gzip2", Encoding::Plain),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(
                header::ACCEPT_ENCODING,
                HeaderValue::from_str(line).unwrap(),
            );
            assert_eq!(Encoding::accepted_by(&headers), expected, "{line}");
        }
    }
}
