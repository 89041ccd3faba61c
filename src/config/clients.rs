//! The settings of connections from clients: the mirror's own URL, TLS, and what browsers are told of TLS.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::ConfigError;
use crate::server::{CertificateError, TlsCertificate};

/// The first segments that the path of a base URL must not have.
const RESERVED: [&str; 7] = [
    "changes",
    "config.toml",
    "livez",
    "me",
    "metrics",
    "readyz",
    "status",
];

/// The base URL that clients reach this mirror at (`PUBLIC_URL`).
///
/// Invariants: `http` or `https`; no credentials, query or fragment; no trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicUrl(String);

impl PublicUrl {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let fail = |remedy| ConfigError::new("PUBLIC_URL", text, remedy);
        let url =
            Url::parse(text).map_err(|_not_a_url| fail("a URL like https://mirror.example"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(fail("an http or https URL"));
        }
        if !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some()
        {
            return Err(fail("a URL without user, password, query and fragment"));
        }
        // Platforms and people ask for these without the path. The mirror could not tell which of the two was asked for.
        let first = url
            .path_segments()
            .and_then(|mut path| path.find(|part| !part.is_empty()));
        if first.is_some_and(|first| RESERVED.contains(&first)) {
            return Err(fail(
                "a URL whose path does not begin like one of the mirror's own pages",
            ));
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// `TLS_CERT` and `TLS_KEY`: both or neither.
pub(super) fn tls(
    certificate: Option<String>,
    key: Option<String>,
) -> Result<Option<TlsCertificate>, ConfigError> {
    let (certificate, key) = match (certificate, key) {
        (None, None) => return Ok(None),
        (Some(certificate), Some(key)) => (certificate, key),
        (Some(_), None) => {
            let remedy = "the file with the private key of TLS_CERT, or neither of the two";
            return Err(ConfigError::new("TLS_KEY", "", remedy));
        }
        (None, Some(_)) => {
            let remedy = "the file with the certificate of TLS_KEY, or neither of the two";
            return Err(ConfigError::new("TLS_CERT", "", remedy));
        }
    };
    let read = TlsCertificate::read(PathBuf::from(&certificate), PathBuf::from(&key));
    read.map(Some).map_err(|error| {
        let (variable, value, remedy) = match error {
            CertificateError::CertificateUnreadable(_) => {
                ("TLS_CERT", &certificate, "a file that can be read")
            }
            CertificateError::NoCertificate => (
                "TLS_CERT",
                &certificate,
                "a PEM file with the certificate of this host, and the chain behind it",
            ),
            CertificateError::KeyUnreadable(_) => ("TLS_KEY", &key, "a file that can be read"),
            CertificateError::NoKey => (
                "TLS_KEY",
                &key,
                "a PEM file with a private key, not encrypted: RSA with 2048 to 4096 bits, P-256, P-384 or Ed25519",
            ),
            CertificateError::KeyOnP521 => (
                "TLS_KEY",
                &key,
                "a key on the curve P-256 or P-384, RSA or Ed25519: the curve P-521 is not supported",
            ),
            CertificateError::KeyOfAnother => {
                ("TLS_KEY", &key, "the key of the certificate in TLS_CERT")
            }
        };
        ConfigError::new(variable, value, remedy)
    })
}

/// `HSTS_MAX_AGE_SECS`. Browsers ignore it over plain HTTP, and behind a proxy the domain may be shared: it is for the
/// mirror's own TLS only.
pub(super) fn hsts(text: &str, has_certificate: bool) -> Result<u32, ConfigError> {
    let bad = |remedy| ConfigError::new("HSTS_MAX_AGE_SECS", text, remedy);
    let seconds = text
        .parse()
        .map_err(|_not_a_number| bad("a whole number of seconds, at most 4294967295"))?;
    if has_certificate {
        Ok(seconds)
    } else {
        Err(bad("TLS_CERT to be set, too"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_whose_path_is_a_page_of_the_mirror_is_bad() {
        for bad in [
            "https://h/readyz",
            "https://h//livez/a",
            "http://h/metrics/",
        ] {
            assert!(PublicUrl::parse(bad).is_err(), "{bad}");
        }
        for good in [
            "https://h",
            "https://h/index",
            "https://h/a/readyz",
            "https://h/at",
        ] {
            assert!(PublicUrl::parse(good).is_ok(), "{good}");
        }
    }
}
