//! The proxy of a URL: decided here for every library, by curl's rules.
//!
//! `http_proxy` (lower case only: a web server may set the other one from a header), `https_proxy` and `HTTPS_PROXY`, then
//! `all_proxy` and `ALL_PROXY`; `no_proxy` and `NO_PROXY` name hosts that are reached directly. No I/O.

use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

/// The variables. Each takes precedence over the ones behind it with the same purpose. Names are case-sensitive.
pub(crate) const VARIABLES: [&str; 7] = [
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "all_proxy",
    "ALL_PROXY",
    "no_proxy",
    "NO_PROXY",
];

/// The hosts of the clouds' metadata services. A proxy would get the identity of another machine.
const METADATA_HOSTS: &str =
    "169.254.169.254,169.254.170.2,169.254.170.23,metadata.google.internal,fd00:ec2::254";

/// The default port of a proxy, as for curl.
const PORT: u16 = 1080;

/// The proxies of `http` and `https` URLs, and the exceptions from both.
///
/// Invariant: its `Debug` output contains no user and no password.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Proxies {
    http: Option<Url>,
    https: Option<Url>,
    exceptions: Exceptions,
}

/// The hosts that are reached directly.
///
/// Invariant: `*`, which stands for all hosts, is the only one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Exceptions(Vec<String>);

/// A variable whose value is no HTTP proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAProxy(pub(crate) &'static str);

impl Proxies {
    /// Reads the variables; an empty one counts as not set.
    ///
    /// # Errors
    /// The first variable whose value is no HTTP proxy.
    pub(crate) fn read<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Result<Self, NotAProxy> {
        let first = |names: [&'static str; 2]| {
            let set = names
                .into_iter()
                .filter_map(|name| Some((name, value(name)?)));
            let mut set = set.filter(|(_name, text)| !text.is_empty());
            set.next()
        };
        let proxy = |names| match first(names) {
            Some((name, text)) => parse(text).map(Some).ok_or(NotAProxy(name)),
            None => Ok(None),
        };
        let all = proxy(["all_proxy", "ALL_PROXY"])?;
        let exceptions = first(["no_proxy", "NO_PROXY"]).map_or("", |(_name, text)| text);
        Ok(Self {
            http: proxy(["http_proxy", "http_proxy"])?.or_else(|| all.clone()),
            https: proxy(["https_proxy", "HTTPS_PROXY"])?.or(all),
            exceptions: Exceptions::parse(exceptions),
        })
    }

    /// The proxy for a URL; `None` for a direct connection.
    pub(crate) fn of(&self, url: &Url) -> Option<&Url> {
        let proxy = self.of_scheme(url.scheme())?;
        let host = url.host()?;
        (!self.exceptions.contain(&host)).then_some(proxy)
    }

    fn of_scheme(&self, scheme: &str) -> Option<&Url> {
        match scheme {
            "http" => self.http.as_ref(),
            "https" => self.https.as_ref(),
            _ => None,
        }
    }

    /// The hosts of the proxies.
    pub(crate) fn hosts(&self) -> Vec<String> {
        let proxies = self.http.iter().chain(&self.https);
        proxies
            .filter_map(|url| Some(url.host_str()?.to_owned()))
            .collect()
    }

    /// The same decision for a client that takes one proxy for all URLs of a scheme, and a list of exceptions. Without a
    /// proxy such a client reads the environment by its own rules, so there is always one.
    pub(crate) fn for_scheme(&self, scheme: &str) -> (String, String) {
        let everything = "*,0.0.0.0/0,::/0";
        match self.of_scheme(scheme) {
            Some(proxy) if !self.exceptions.contain_all() => {
                let hosts = self.exceptions.0.iter().map(String::as_str);
                let direct: Vec<&str> = std::iter::once(METADATA_HOSTS).chain(hosts).collect();
                (proxy.to_string(), direct.join(","))
            }
            _ => ("http://127.0.0.1:9".to_owned(), everything.to_owned()),
        }
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |url: &Option<Url>| url.as_ref().map(shown);
        formatter
            .debug_struct("Proxies")
            .field("http", &shown(&self.http))
            .field("https", &shown(&self.https))
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

/// A proxy without its user and password.
pub(crate) fn shown(proxy: &Url) -> String {
    let host = proxy.host_str().unwrap_or_default();
    let hidden = if proxy.username().is_empty() && proxy.password().is_none() {
        ""
    } else {
        "***@"
    };
    let port = proxy.port_or_known_default().unwrap_or(PORT);
    format!("{}://{hidden}{host}:{port}", proxy.scheme())
}

/// A URL of a proxy, with `http` where there is no scheme.
fn parse(text: &str) -> Option<Url> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = scheme.to_ascii_lowercase();
    let mut url = Url::parse(&format!("{scheme}://{rest}")).ok()?;
    if !matches!(scheme.as_str(), "http" | "https") || !url.has_host() {
        return None;
    }
    // The parser drops a port that is the default of the scheme. An unknown scheme has no default.
    let named = Url::parse(&format!("proxy://{rest}")).ok()?.port();
    if scheme == "http" && named.is_none() {
        url.set_port(Some(PORT)).ok()?;
    }
    url.set_path("");
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

impl Exceptions {
    fn parse(text: &str) -> Self {
        if text.trim() == "*" {
            return Self(vec!["*".to_owned()]);
        }
        let words = text.split(|character: char| character == ',' || character.is_whitespace());
        let hosts = words.map(|word| word.trim_matches('.').to_ascii_lowercase());
        // Among others, `*` means nothing.
        let hosts = hosts.filter(|host| !host.is_empty() && host != "*");
        Self(hosts.collect())
    }

    fn contain_all(&self) -> bool {
        self.0 == ["*"]
    }

    fn contain(&self, host: &Host<&str>) -> bool {
        if self.contain_all() {
            return true;
        }
        let address: IpAddr = match host {
            Host::Domain(name) => {
                let name = name.trim_end_matches('.').to_ascii_lowercase();
                let is_in = |domain: &String| {
                    let subdomain = name.strip_suffix(domain.as_str());
                    subdomain.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                };
                return self.0.iter().any(is_in);
            }
            Host::Ipv4(address) => (*address).into(),
            Host::Ipv6(address) => (*address).into(),
        };
        let mut networks = self.0.iter();
        networks.any(|network| is_in_network(address, network))
    }
}

/// Whether an address is this one, or in this network: `10.0.0.0/8`.
fn is_in_network(address: IpAddr, network: &str) -> bool {
    let (base, bits) = match network.split_once('/') {
        Some((base, bits)) => (base, Some(bits)),
        None => (network, None),
    };
    let base = base.trim_start_matches('[').trim_end_matches(']').parse();
    let (differing, width) = match (address, base) {
        (IpAddr::V4(ours), Ok(IpAddr::V4(theirs))) => {
            (u128::from(ours.to_bits() ^ theirs.to_bits()), 32_u32)
        }
        (IpAddr::V6(ours), Ok(IpAddr::V6(theirs))) => (ours.to_bits() ^ theirs.to_bits(), 128),
        _ => return false,
    };
    let bits = bits.map_or(Some(width), |bits| bits.parse().ok());
    let shift = bits.and_then(|bits| width.checked_sub(bits));
    // A shift by the whole width, for /0, is `None`: every address matches.
    shift.is_some_and(|shift| differing.checked_shr(shift).unwrap_or(0) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &'static str)]) -> Result<Proxies, NotAProxy> {
        let pairs = pairs.to_vec();
        Proxies::read(move |name| {
            let found = pairs.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| *value)
        })
    }

    fn proxy_of(pairs: &[(&str, &'static str)], url: &str) -> String {
        let proxies = read(pairs).unwrap();
        let url = Url::parse(url).unwrap();
        proxies
            .of(&url)
            .map_or_else(|| "direct".to_owned(), ToString::to_string)
    }

    #[test]
    fn each_scheme_has_its_variables_as_for_curl() {
        let (http, https) = ("http://h.example/", "https://h.example/");
        for (pairs, of_http, of_https) in [
            (&[][..], "direct", "direct"),
            (&[("http_proxy", "http://a:1")], "http://a:1/", "direct"),
            (&[("HTTP_PROXY", "http://a:1")], "direct", "direct"),
            (&[("https_proxy", "http://a:1")], "direct", "http://a:1/"),
            (&[("HTTPS_PROXY", "a:1")], "direct", "http://a:1/"),
            (
                &[("https_proxy", "http://a:1"), ("HTTPS_PROXY", "http://b:1")],
                "direct",
                "http://a:1/",
            ),
            (
                &[("https_proxy", ""), ("HTTPS_PROXY", "http://b:1")],
                "direct",
                "http://b:1/",
            ),
            (&[("ALL_PROXY", "http://a:1")], "http://a:1/", "http://a:1/"),
            (
                &[
                    ("all_proxy", "http://a:1"),
                    ("http_proxy", "HTTPS://b:1/x?y"),
                ],
                "https://b:1/",
                "http://a:1/",
            ),
            (
                &[("ALL_PROXY", "proxy")],
                "http://proxy:1080/",
                "http://proxy:1080/",
            ),
            (
                &[("ALL_PROXY", "http://proxy:80")],
                "http://proxy/",
                "http://proxy/",
            ),
            (
                &[("ALL_PROXY", "https://proxy")],
                "https://proxy/",
                "https://proxy/",
            ),
            (
                &[("ALL_PROXY", "u:p@[::1]:8")],
                "http://u:p@[::1]:8/",
                "http://u:p@[::1]:8/",
            ),
        ] {
            assert_eq!(proxy_of(pairs, http), of_http, "{pairs:?}");
            assert_eq!(proxy_of(pairs, https), of_https, "{pairs:?}");
        }
        assert_eq!(proxy_of(&[("ALL_PROXY", "a")], "ssh://h/"), "direct");
    }

    #[test]
    fn exceptions_are_hosts_domains_addresses_and_networks() {
        for (exceptions, url, is_direct) in [
            ("h.example", "http://h.example/", true),
            ("a, h.example", "http://h.example/", true),
            ("a h.example", "http://h.example/", true),
            ("a,,H.EXAMPLE ", "http://h.example:8080/", true),
            ("h.example", "http://H.EXAMPLE./", true),
            (".example", "http://h.example/", true),
            (".h.example", "http://h.example/", true),
            ("h.example.", "http://h.example/", true),
            ("example", "https://h.example/", true),
            ("xample", "http://h.example/", false),
            ("b.h.example", "http://h.example/", false),
            ("*", "http://h.example/", true),
            (" * ", "http://10.1.2.3/", true),
            ("*.example", "http://h.example/", false),
            ("*,a", "http://h.example/", false),
            ("10.0.0.0/8", "http://10.1.2.3/", true),
            ("10.0.0.0/8", "http://11.1.2.3/", false),
            ("10.1.2.3", "http://10.1.2.3:80/", true),
            ("10.1.2.3/32", "http://10.1.2.3/", true),
            ("10.1.2.3/33", "http://10.1.2.3/", false),
            ("10.1.2.3/x", "http://10.1.2.3/", false),
            ("0.0.0.0/0", "http://10.1.2.3/", true),
            ("::/0", "http://10.1.2.3/", false),
            ("fd00::/8", "http://[fd12::1]/", true),
            ("fd00::/8", "http://[fe80::1]/", false),
            ("::1", "http://[::1]/", true),
            ("[::1]", "http://[::1]/", true),
            ("2.3", "http://10.1.2.3/", false),
            ("", "http://h.example/", false),
        ] {
            let expected = if is_direct { "direct" } else { "http://p:1/" };
            for variable in ["no_proxy", "NO_PROXY"] {
                let pairs = [("ALL_PROXY", "http://p:1"), (variable, exceptions)];
                assert_eq!(proxy_of(&pairs, url), expected, "{exceptions} {url}");
            }
        }
        let both = [
            ("ALL_PROXY", "http://p:1"),
            ("no_proxy", "a"),
            ("NO_PROXY", "b"),
        ];
        assert_eq!(proxy_of(&both, "http://a/"), "direct");
        assert_eq!(proxy_of(&both, "http://b/"), "http://p:1/");
    }

    #[test]
    fn a_proxy_that_is_not_http_is_refused_with_the_name_of_its_variable() {
        for value in ["socks5://h:1080", "http://", "://", "ftp://h", "http://h:x"] {
            assert_eq!(
                read(&[("all_proxy", value)]),
                Err(NotAProxy("all_proxy")),
                "{value}"
            );
            assert_eq!(
                read(&[("HTTPS_PROXY", value)]),
                Err(NotAProxy("HTTPS_PROXY"))
            );
        }
    }

    #[test]
    fn a_client_with_one_proxy_gets_the_same_decision() {
        let pairs = [
            ("https_proxy", "http://u:s3cret@p:1"),
            ("no_proxy", "A, .b *"),
        ];
        let proxies = read(&pairs).unwrap();
        assert_eq!(
            proxies.for_scheme("https"),
            (
                "http://u:s3cret@p:1/".to_owned(),
                format!("{METADATA_HOSTS},a,b")
            )
        );
        let direct = (
            "http://127.0.0.1:9".to_owned(),
            "*,0.0.0.0/0,::/0".to_owned(),
        );
        assert_eq!(proxies.for_scheme("http"), direct);
        let debug = format!("{proxies:?}");
        assert!(
            !debug.contains("s3cret") && debug.contains("***@p:1"),
            "{debug}"
        );
    }
}
