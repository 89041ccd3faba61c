//! The URL of the upstream index. It may contain credentials, which must never be shown.

use std::fmt;
use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use url::Url;

/// The address of the upstream index, with its credentials stored separately.
///
/// Invariants:
/// - It is a `https`, `http`, `git`, `ssh` or `file` URL, the short `user@host:path` form of ssh, or a local path that
///   begins with `/`, `./` or `../`.
/// - [`fmt::Display`], [`fmt::Debug`] and [`RemoteUrl::address`] never contain a password. Only the address of an ssh
///   URL contains a user name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RemoteUrl {
    address: String,
    shown: String,
    credentials: Option<Credentials>,
    /// Texts that must never be shown.
    secrets: Vec<String>,
    is_local: bool,
}

/// The default port of ssh. The `url` crate knows the default ports of the other schemes.
const SSH_PORT: u16 = 22;

/// A user name, and possibly a password. Has no `Debug` on purpose.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// The user name; may be a token.
    pub(crate) user: String,
    /// The password; empty if there is none.
    pub(crate) password: String,
}

/// Why a text is not the address of an index. Shown as what is expected instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RemoteUrlError {
    /// It is not a URL.
    #[error(
        "a URL like https://host/path.git, user@host:path, or a path that begins with /, ./ or ../"
    )]
    NotAUrl,
    /// There is an `@` behind the host.
    #[error("%40 and %2F for an @ and a slash in a user, password or path")]
    StrayAt,
    /// The URL has another scheme.
    #[error("an https, http, git, ssh or file URL, or a path")]
    Scheme,
}

impl RemoteUrl {
    /// Parses a value of the setting `GIT_REPO_URL`.
    pub(crate) fn parse(text: &str) -> Result<Self, RemoteUrlError> {
        let url = Self::parse_recorded(text)?;
        let is_path = ["/", "./", "../"].iter().any(|path| text.starts_with(path));
        // `github.com/org/index` is a URL without its scheme, and not a directory.
        if url.is_local && !is_path && !text.contains("://") {
            return Err(RemoteUrlError::NotAUrl);
        }
        Ok(url)
    }

    /// Parses the upstream in an archive's manifest. Earlier versions accepted any relative path.
    pub(crate) fn parse_recorded(text: &str) -> Result<Self, RemoteUrlError> {
        if !text.contains("://") {
            // A mistyped URL must not be taken for a path: paths are shown unchanged, with any password in them.
            let beginning = text.split('/').next().unwrap_or_default();
            return match Self::short_ssh(text) {
                Some(url) => Ok(url),
                None if beginning.contains(['@', ':']) => Err(RemoteUrlError::NotAUrl),
                None => Ok(Self::local(text)),
            };
        }
        let url = Url::parse(text).map_err(|_not_a_url| RemoteUrlError::NotAUrl)?;
        // Most likely a password contains a slash, which ends the host part of a URL.
        if url.scheme() != "file" && url.path().contains('@') {
            return Err(RemoteUrlError::StrayAt);
        }
        match url.scheme() {
            "file" => Ok(Self::local(text)),
            "https" | "http" | "git" | "ssh" if url.host_str().is_none_or(str::is_empty) => {
                Err(RemoteUrlError::NotAUrl)
            }
            "https" | "http" | "git" => Ok(Self::remote(url, false)),
            "ssh" => Ok(Self::remote(url, true)),
            _ => Err(RemoteUrlError::Scheme),
        }
    }

    /// The address that git connects to, without credentials. An ssh URL keeps its user name, because ssh needs it.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The credentials for the upstream.
    pub(crate) fn credentials(&self) -> Option<&Credentials> {
        self.credentials.as_ref()
    }

    /// Whether this is a path on this machine. libgit2's local transport does not support shallow clones.
    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    /// The path, if this is a path on this machine.
    pub(super) fn local_path(&self) -> Option<PathBuf> {
        self.is_local.then(|| match Url::parse(&self.address) {
            Ok(url) if url.scheme() == "file" => url
                .to_file_path()
                .unwrap_or_else(|()| PathBuf::from(url.path())),
            _ => PathBuf::from(&self.address),
        })
    }

    /// Whether two addresses are most likely the same repository: the same host, port and path. Ignores the scheme, the
    /// user, and the optional `.git` at the end.
    pub(crate) fn is_same_place_as(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    fn place(&self) -> String {
        let place = match Url::parse(&self.address) {
            Ok(url) if url.scheme() == "file" => url.path().to_owned(),
            Ok(url) if url.has_host() => {
                // Only an unusual port counts: it tells apart servers on one machine.
                let port = url.port().filter(|port| *port != SSH_PORT);
                let port = port.map_or_else(String::new, |port| format!(":{port}"));
                format!(
                    "{}{port}/{}",
                    url.host_str().unwrap_or_default(),
                    url.path()
                )
            }
            // The short form of ssh, or a path.
            _ if self.is_local => std::fs::canonicalize(&self.address).map_or_else(
                |_missing| self.address.clone(),
                |path| path.to_string_lossy().into_owned(),
            ),
            _ => self.shown.replacen(':', "/", 1),
        };
        let parts = place.split('/').filter(|part| !part.is_empty());
        let place = parts.collect::<Vec<_>>().join("/").to_lowercase();
        place.trim_end_matches(".git").to_owned()
    }

    /// A text that differs between upstreams, even if they are displayed alike, and that does not reveal secrets.
    pub(crate) fn fingerprint(&self) -> String {
        // SHA-1 is enough: this only tells upstreams apart and protects nothing.
        let id = git2::Oid::hash_object(git2::ObjectType::Blob, self.address.as_bytes());
        id.map(|id| id.to_string()).unwrap_or_default()
    }

    /// Removes the secrets of this URL from a text, in case a library put one there.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            // A secret of one or two letters is a part of many words, and replacing it there would reveal it.
            if secret.len() > 2 {
                text = text.replace(secret.as_str(), "***");
            }
        }
        text
    }

    fn local(path: &str) -> Self {
        Self {
            address: path.to_owned(),
            shown: path.to_owned(),
            credentials: None,
            secrets: Vec::new(),
            is_local: true,
        }
    }

    /// Parses `user@host:path`, the short form of ssh: a colon before any slash, and a host before the colon.
    fn short_ssh(text: &str) -> Option<Self> {
        let (host, path) = text.split_once(':')?;
        let (user, host) = host.split_once('@')?;
        if host.is_empty() || user.is_empty() || host.contains('/') || user.contains('/') {
            return None;
        }
        Some(Self {
            address: text.to_owned(),
            shown: format!("{host}:{path}"),
            credentials: Some(Credentials {
                user: user.to_owned(),
                password: String::new(),
            }),
            secrets: Vec::new(),
            is_local: false,
        })
    }

    fn remote(mut url: Url, keep_user: bool) -> Self {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let credentials =
            (!url.username().is_empty() || url.password().is_some()).then(|| Credentials {
                user: decode(url.username()),
                password: url.password().map(decode).unwrap_or_default(),
            });
        // The setters fail only for URLs without a host, which `parse_recorded` has refused.
        let _no_host = url.set_password(None);
        let mut secrets: Vec<String> = url.query().map(str::to_owned).into_iter().collect();
        if let Some(credentials) = &credentials {
            secrets.push(credentials.password.clone());
            // Not the user name of ssh: it is nearly always `git`, and the address contains it.
            secrets.extend((!keep_user).then(|| credentials.user.clone()));
        }
        let with_user = url.to_string();
        let _no_host = url.set_username("");
        let bare = url.to_string();
        url.set_fragment(None);
        if url.query().is_some() {
            // A query may contain a token.
            url.set_query(Some("***"));
        }
        Self {
            address: if keep_user { with_user } else { bare },
            shown: url.to_string(),
            credentials,
            secrets,
            is_local: false,
        }
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.shown)
    }
}

impl fmt::Debug for RemoteUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.shown, formatter)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shown_texts_contain_no_credentials() {
        for (text, address, shown) in [
            (
                "https://h.example/index.git",
                "https://h.example/index.git",
                "https://h.example/index.git",
            ),
            (
                "https://bob:s3cret@h.example/i",
                "https://h.example/i",
                "https://h.example/i",
            ),
            (
                "https://t0ken@h.example/i",
                "https://h.example/i",
                "https://h.example/i",
            ),
            (
                "http://:s3cret@h:8080/i?private=x#y",
                "http://h:8080/i?private=x#y",
                "http://h:8080/i?***",
            ),
            (
                "ssh://git:s3cret@h.example/i",
                "ssh://git@h.example/i",
                "ssh://h.example/i",
            ),
            (
                "git@h.example:org/i.git",
                "git@h.example:org/i.git",
                "h.example:org/i.git",
            ),
            (
                "git://h.example/i",
                "git://h.example/i",
                "git://h.example/i",
            ),
            ("/srv/index", "/srv/index", "/srv/index"),
            (
                "file:///srv/index",
                "file:///srv/index",
                "file:///srv/index",
            ),
            ("../index", "../index", "../index"),
        ] {
            let url = RemoteUrl::parse(text).unwrap();
            assert_eq!((url.address(), url.to_string().as_str()), (address, shown));
            assert_eq!(format!("{url:?}"), format!("{shown:?}"));
        }
    }

    #[test]
    fn credentials_are_decoded_and_redacted() {
        let url = RemoteUrl::parse("https://b%40b:p%2Fw%20d@h.example/i").unwrap();
        let credentials = url.credentials().unwrap();
        assert_eq!(
            (credentials.user.as_str(), credentials.password.as_str()),
            ("b@b", "p/w d")
        );
        assert_eq!(url.redact("said b@b with p/w d"), "said *** with ***");
    }

    #[test]
    fn other_schemes_and_mistyped_urls_are_refused() {
        for (text, why) in [
            ("ftp://h/i", RemoteUrlError::Scheme),
            ("sparse+https://h/i", RemoteUrlError::Scheme),
            ("https://", RemoteUrlError::NotAUrl),
            ("ssh:///i", RemoteUrlError::NotAUrl),
            ("bob:s3cret@h.example/i.git", RemoteUrlError::NotAUrl),
            ("bob:s3cret@h.example:i.git", RemoteUrlError::NotAUrl),
            ("https:/bob:s3cret@h/i", RemoteUrlError::NotAUrl),
            ("https://bob:12/s3cret@h/i", RemoteUrlError::StrayAt),
            ("://x", RemoteUrlError::NotAUrl),
            ("git.example/org/index", RemoteUrlError::NotAUrl),
            ("index", RemoteUrlError::NotAUrl),
            ("~/index", RemoteUrlError::NotAUrl),
            (".index", RemoteUrlError::NotAUrl),
        ] {
            assert_eq!(RemoteUrl::parse(text).unwrap_err(), why, "{text}");
        }
    }

    #[test]
    fn different_forms_of_one_address_are_the_same_place() {
        let url = |text| RemoteUrl::parse(text).unwrap();
        for same in [
            "https://Git.example/Org/index.git",
            "http://git.example:80/org/index/",
            "https://t0ken@git.example/org//index",
            "ssh://git@git.example:22/org/index.git",
            "git@git.example:org/index.git",
        ] {
            assert!(
                url(same).is_same_place_as(&url("https://git.example/org/index")),
                "{same}"
            );
        }
        for other in [
            "https://git.example/org/copy",
            "https://git.example:8443/org/index",
            "https://h/org/index",
            "/org/index",
        ] {
            assert!(!url(other).is_same_place_as(&url("https://git.example/org/index")));
        }
        assert!(url("file:///srv/index").is_same_place_as(&url("/srv/index.git/")));
    }

    #[test]
    fn upstreams_that_are_displayed_alike_have_different_fingerprints() {
        let fingerprint = |text| RemoteUrl::parse(text).unwrap().fingerprint();
        assert_ne!(
            fingerprint("https://h/i?repo=a"),
            fingerprint("https://h/i?repo=b")
        );
        assert_eq!(fingerprint("https://a:b@h/i"), fingerprint("https://h/i"));
        let url = RemoteUrl::parse("ssh://git@h/i").unwrap();
        assert_eq!(url.redact("git says no"), "git says no");
    }

    proptest! {
        #[test]
        fn a_password_is_never_shown(user in "[a-z]{0,8}", password in "[A-Z]{8,20}", scheme in "https|http|git|ssh") {
            let url = RemoteUrl::parse(&format!("{scheme}://{user}:{password}@h.example/i")).unwrap();
            let shown = format!("{url} {url:?} {}", url.address());
            prop_assert!(!shown.contains(&password));
        }
    }
}
