//! cargo's `dl` template, with its five placeholders.

use std::fmt;

use crate::package::{Checksum, CrateName, CrateVersion, IndexPath};

/// The text that cargo appends to a template without placeholders.
const DEFAULT_SUFFIX: &str = "/{crate}/{version}/download";

/// The placeholders of cargo (cargo book, "Registry index configuration").
const PLACEHOLDERS: [(&str, Placeholder); 5] = [
    ("crate", Placeholder::Crate),
    ("version", Placeholder::Version),
    ("prefix", Placeholder::Prefix),
    ("lowerprefix", Placeholder::LowerPrefix),
    ("sha256-checksum", Placeholder::Checksum),
];

/// The place of crate files: a URL with cargo's placeholders for a crate's name, version, index directories and checksum.
///
/// Invariants: whatever replaces the placeholders, it is an absolute `http` or `https` URL of visible ASCII; it has at least
/// one placeholder.
///
/// It is taken apart once, so expanding it costs one allocation.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct DownloadTemplate {
    pieces: Vec<Piece>,
    /// The scheme, host and path in front of the crate files, without credentials and without a trailing slash.
    pub(crate) base: String,
    /// A URL with the scheme, the host and the port of all files, without credentials.
    pub(crate) origin: url::Url,
    /// Whether the template contains the checksum, so that a URL needs the index.
    pub(crate) needs_checksum: bool,
    /// Whether it contains a user or a password.
    pub(crate) has_credentials: bool,
    /// Whether it contains a query string or a fragment. Either may be a secret.
    pub(crate) has_query: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Placeholder {
    Crate,
    Version,
    Prefix,
    LowerPrefix,
    Checksum,
}

#[derive(Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(Placeholder),
}

/// Why a text is not a download template. Shown as what is expected instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    /// It is not an absolute URL.
    #[error("a URL like https://host/{{crate}}/{{version}}")]
    NotAUrl,
    /// Clients cannot be redirected to this scheme.
    #[error("an http or https URL")]
    Scheme,
    /// A brace belongs to none of the placeholders.
    #[error(
        "no placeholder but {{crate}}, {{version}}, {{prefix}}, {{lowerprefix}} and {{sha256-checksum}}"
    )]
    Placeholder,
    /// A character cannot stand in a `Location` header.
    #[error("a URL in ASCII without control characters")]
    Character,
}

impl DownloadTemplate {
    /// Takes a template apart. One without placeholders gets cargo's `/{crate}/{version}/download`.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let has_placeholder = PLACEHOLDERS
            .iter()
            .any(|(name, _)| text.contains(&format!("{{{name}}}")));
        let full = if has_placeholder {
            text.to_owned()
        } else {
            format!("{}{DEFAULT_SUFFIX}", text.trim_end_matches('/'))
        };
        if !full.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TemplateError::Character);
        }
        let pieces = take_apart(&full).ok_or(TemplateError::Placeholder)?;
        // The other rules are the same for every crate, so one sample is enough.
        let url = url::Url::parse(&sample(&pieces)).map_err(|_not_a_url| TemplateError::NotAUrl)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TemplateError::Scheme);
        }
        Ok(Self {
            needs_checksum: pieces.contains(&Piece::Placeholder(Placeholder::Checksum)),
            has_credentials: !url.username().is_empty() || url.password().is_some(),
            has_query: url.query().is_some() || url.fragment().is_some(),
            base: base_of(&full, &url),
            origin: without_credentials(url),
            pieces,
        })
    }

    /// The URL of a crate file that probably does not exist, with any credentials.
    pub(super) fn sample(&self) -> String {
        sample(&self.pieces)
    }

    /// The URL of a crate file, with the name as typed. A `+` in the version becomes `%2B`, because object stores read a
    /// bare `+` as a space. Without a checksum its placeholder becomes empty.
    pub(crate) fn expand(
        &self,
        name: &CrateName,
        version: &CrateVersion,
        checksum: Option<&Checksum>,
    ) -> String {
        let mut url = String::with_capacity(160);
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => url.push_str(text),
                Piece::Placeholder(Placeholder::Crate) => url.push_str(name.as_str()),
                Piece::Placeholder(Placeholder::Version) => {
                    for (place, part) in version.as_str().split('+').enumerate() {
                        if place > 0 {
                            url.push_str("%2B");
                        }
                        url.push_str(part);
                    }
                }
                Piece::Placeholder(Placeholder::Prefix) => url.push_str(&name.prefix()),
                Piece::Placeholder(Placeholder::LowerPrefix) => {
                    url.push_str(IndexPath::from(name).prefix());
                }
                Piece::Placeholder(Placeholder::Checksum) => {
                    url.push_str(&checksum.map_or_else(String::new, Checksum::to_string));
                }
            }
        }
        url
    }
}

impl fmt::Debug for DownloadTemplate {
    /// Shows the base only: a template may carry credentials.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("DownloadTemplate")
            .field(&self.base)
            .finish()
    }
}

fn sample(pieces: &[Piece]) -> String {
    let sample = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Placeholder(_) => "x".to_owned(),
    };
    pieces.iter().map(sample).collect()
}

/// `None` if a brace belongs to none of the placeholders. No URL has a plain brace.
fn take_apart(template: &str) -> Option<Vec<Piece>> {
    let (first, others) = template.split_once('{')?;
    let mut pieces = vec![Piece::Text(first.to_owned())];
    for part in others.split('{') {
        let (name, text) = part.split_once('}')?;
        let (_, placeholder) = PLACEHOLDERS.iter().find(|(known, _)| *known == name)?;
        pieces.push(Piece::Placeholder(*placeholder));
        pieces.push(Piece::Text(text.to_owned()));
    }
    pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
    let is_stray = |piece: &Piece| matches!(piece, Piece::Text(text) if text.contains('}'));
    (!pieces.iter().any(is_stray)).then_some(pieces)
}

fn without_credentials(mut url: url::Url) -> url::Url {
    // Neither can fail: an http URL always has a host.
    let _no_host = url.set_username("");
    let _no_host = url.set_password(None);
    url
}

/// The text before the first placeholder, without a last `crates` folder, query, credentials and trailing slashes. Empty if
/// the placeholder is inside the host. `sample` is the template for some crate.
fn base_of(template: &str, sample: &url::Url) -> String {
    let head = template.split('{').next().unwrap_or_default();
    let head = head.split(['?', '#']).next().unwrap_or_default();
    let head = head
        .strip_suffix("/crates/")
        .unwrap_or(head)
        .trim_end_matches('/');
    match url::Url::parse(head) {
        // A user before a placeholder must not count as a host: `https://user:1{crate}@host/`.
        Ok(url) if url.host() != sample.host() || url.port() != sample.port() => String::new(),
        Ok(url) => {
            let url = without_credentials(url);
            url.as_str().trim_end_matches('/').to_owned()
        }
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expand(template: &str, name: &str, version: &str) -> String {
        DownloadTemplate::parse(template).unwrap().expand(
            &CrateName::try_from(name.to_owned()).unwrap(),
            &CrateVersion::try_from(version.to_owned()).unwrap(),
            Some(&"ab".repeat(32).parse().unwrap()),
        )
    }

    #[test]
    fn all_five_placeholders_are_expanded_as_cargo_does_it() {
        let sum = "ab".repeat(32);
        for (template, name, version, expected) in [
            (
                "https://h/c/{crate}/{crate}-{version}.crate",
                "Foo-b",
                "1.0.0",
                "https://h/c/Foo-b/Foo-b-1.0.0.crate",
            ),
            (
                "https://h/{prefix}/{lowerprefix}",
                "MixedCase",
                "1.0.0",
                "https://h/Mi/xe/mi/xe",
            ),
            ("https://h/{prefix}/{crate}", "a", "1.0.0", "https://h/1/a"),
            (
                "https://h/{lowerprefix}/{crate}",
                "ABC",
                "1.0.0",
                "https://h/3/a/ABC",
            ),
            (
                "https://h/{crate}?v={version}",
                "a",
                "1.0.0-x+b.1",
                "https://h/a?v=1.0.0-x%2Bb.1",
            ),
            (
                "https://h/crates",
                "foo",
                "1.0.0+b",
                "https://h/crates/foo/1.0.0%2Bb/download",
            ),
            (
                "https://h/crates/",
                "foo",
                "1.0.0",
                "https://h/crates/foo/1.0.0/download",
            ),
            (
                "https://{crate}.h/%7Bliteral%7D",
                "foo",
                "1.0.0",
                "https://foo.h/%7Bliteral%7D",
            ),
        ] {
            assert_eq!(expand(template, name, version), expected, "{template}");
        }
        assert_eq!(
            expand("http://h/{sha256-checksum}", "foo", "1.0.0"),
            format!("http://h/{sum}")
        );
    }

    #[test]
    fn knows_whether_it_needs_the_index() {
        let needs = |text| DownloadTemplate::parse(text).unwrap().needs_checksum;
        assert!(needs("https://h/{sha256-checksum}"));
        assert!(!needs("https://h/{crate}"));
    }

    #[test]
    fn a_template_that_is_no_target_for_a_redirect_is_refused() {
        for (text, why) in [
            ("", TemplateError::NotAUrl),
            ("crates/{crate}", TemplateError::NotAUrl),
            ("ftp://h/{crate}", TemplateError::Scheme),
            ("file:///crates/{crate}", TemplateError::Scheme),
            ("https://h/a b/{crate}", TemplateError::Character),
            ("https://h/\r\n{crate}", TemplateError::Character),
            ("https://h/京/{crate}", TemplateError::Character),
            ("https://h/{name}", TemplateError::Placeholder),
            ("https://h/{crate}/{Version}", TemplateError::Placeholder),
            ("https://h/{{crate}}", TemplateError::Placeholder),
            ("https://h/{crate}/{version", TemplateError::Placeholder),
            ("https://h/{crate}/version}", TemplateError::Placeholder),
            ("https://h/{sha256_checksum}", TemplateError::Placeholder),
        ] {
            assert_eq!(DownloadTemplate::parse(text).unwrap_err(), why, "{text:?}");
        }
    }

    #[test]
    fn the_base_has_no_credentials_and_no_crates_folder() {
        for (text, base) in [
            (
                "https://h.example/crates/{crate}/{crate}-{version}.crate",
                "https://h.example",
            ),
            (
                "https://user:secret@h.example/x/crates/{crate}",
                "https://h.example/x",
            ),
            (
                "https://h.example/api/v1/crates",
                "https://h.example/api/v1",
            ),
            ("https://h.example?key={crate}", "https://h.example"),
            ("https://secret:1{crate}@h.example/x", ""),
            ("https://secret{crate}@h.example/x", ""),
            ("https:/user:secret@h.example/{crate}", "https://h.example"),
            ("https://user:secret{crate}@h.example/x/{version}", ""),
            ("https://h{crate}.example/x", ""),
        ] {
            let template = DownloadTemplate::parse(text).unwrap();
            assert_eq!(&template.base, base);
            assert!(!format!("{template:?}").contains("secret"));
        }
    }

    #[test]
    fn a_template_says_whether_it_has_credentials_or_a_query() {
        for (text, credentials, query) in [
            ("https://h.example/{crate}", false, false),
            ("https://h.example/@scope/{crate}", false, false),
            ("https://user:secret@h.example/{crate}", true, false),
            ("https://token@h.example/{crate}", true, false),
            ("https://:secret@h.example/{crate}", true, false),
            ("https://s%40cret:%3A@h.example/{crate}", true, false),
            ("https:/user:secret@h.example/{crate}", true, false),
            ("https:\\\\user:secret@h.example/{crate}", true, false),
            ("https://{crate}@h.example/", true, false),
            ("https://{crate}:secret@h.example/", true, false),
            ("https://h.example/{crate}?sig=secret", false, true),
            ("https://h.example/{crate}?v={version}", false, true),
            ("https://h.example/{crate}#secret", false, true),
        ] {
            let template = DownloadTemplate::parse(text).unwrap();
            assert_eq!(template.has_credentials, credentials, "{text}");
            assert_eq!(template.has_query, query, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_expansion_is_a_url_of_visible_ascii(
            name in "[a-zA-Z][a-zA-Z0-9_-]{0,63}",
            version in "[0-9]\\.[0-9]\\.[0-9](-[a-z]{1,4})?(\\+[a-z0-9]{1,4})?",
            template in "https://h/(\\{crate\\}|\\{version\\}|\\{prefix\\}|\\{lowerprefix\\}|\\{sha256-checksum\\}|[a-z/]){1,9}",
        ) {
            let url = expand(&template, &name, &version);
            prop_assert!(url::Url::parse(&url).is_ok());
            prop_assert!(url.bytes().all(|byte| byte.is_ascii_graphic()) && !url.contains('+'));
        }

        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}") {
            drop(DownloadTemplate::parse(&text));
        }
    }
}
