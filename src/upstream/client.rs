//! The HTTP client that fetches crate files.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, header};
use url::{Host, Url};

use super::addresses::{Names, Resolver, Upstreams};
use crate::outgoing::{Proxies, certificates};

/// How many redirects of one request are followed.
const REDIRECTS_MAX: usize = 5;

/// How long a connection is kept for the next file.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);

/// Idle connections that are kept for each host.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// How long to wait for an upstream of crate files.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// For a TCP connection, and TLS on it.
    pub connect_timeout: Duration,
    /// For the head of an answer, redirects included.
    pub head_timeout: Duration,
    /// For the next bytes of a body.
    pub silence_timeout: Duration,
    /// Before the second try. The third one waits twice as long.
    pub retry_pause: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(10),
            silence_timeout: Duration::from_secs(10),
            retry_pause: Duration::from_millis(250),
        }
    }
}

/// The client could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// An upstream has an `https` URL, and there are no CA certificates.
    #[error("{}", certificates::MISSING)]
    NoCertificates,
    /// The library returned an error.
    #[error("crate files cannot be fetched: {0}")]
    Library(#[from] reqwest::Error),
}

/// How upstreams are asked.
#[derive(Clone, Debug)]
pub(crate) struct ClientSettings {
    /// The `User-Agent` that upstreams see.
    pub(crate) user_agent: String,
    /// How long to wait.
    pub(crate) limits: FetchLimits,
    /// Looks up the addresses of upstreams.
    pub(crate) resolver: Resolver,
    /// The proxies to upstreams. They may have private addresses.
    pub(crate) proxies: Proxies,
}

impl ClientSettings {
    /// A client with our `User-Agent` that leaves bodies as they are, and connects only to allowed addresses.
    pub(super) fn build(&self, upstreams: Upstreams) -> Result<Client, ClientError> {
        let names = Arc::new(Names {
            resolver: self.resolver.clone(),
            upstreams,
            proxies: self.proxies.hosts().into(),
        });
        // A crate file is already compressed, and compressing it again would change the bytes that are hashed.
        let identity = header::HeaderValue::from_static("identity");
        Ok(certificates::build(|| {
            let (proxies, directly) = (self.proxies.clone(), self.proxies.clone());
            let identity = (header::ACCEPT_ENCODING, identity.clone());
            Client::builder()
                .proxy(Proxy::custom(move |url| proxies.of(url).cloned()))
                .user_agent(&self.user_agent)
                .default_headers([identity].into_iter().collect())
                .connect_timeout(self.limits.connect_timeout)
                .pool_idle_timeout(IDLE_TIME_MAX)
                .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
                .redirect(redirects(&names, directly))
                .dns_resolver(Arc::clone(&names))
        })?)
    }
}

/// Follows a few redirects, but none from https to http. Refuses a redirect with a user in its URL, because libraries
/// write the URL to the log.
fn redirects(names: &Names, proxies: Proxies) -> Policy {
    let names = names.clone();
    let is_public = names.upstreams == Upstreams::Public;
    Policy::custom(move |attempt| {
        let before = attempt.previous();
        let leaves_tls = attempt.url().scheme() != "https"
            && before.last().is_some_and(|url| url.scheme() == "https");
        if before.len() > REDIRECTS_MAX {
            attempt.error("too many redirects")
        } else if leaves_tls {
            attempt.error("a redirect from https to http")
        } else if !attempt.url().username().is_empty() || attempt.url().password().is_some() {
            attempt.error("a redirect with credentials in its URL")
        } else if is_public
            && address_in(attempt.url()).is_some_and(|address| names.resolver.is_private(address))
        {
            // Host names are checked when they are looked up.
            attempt.error("a redirect from a public host to a private address")
        } else if is_public
            && proxies.of(attempt.url()).is_none()
            && let Some(host) = attempt.url().host_str()
            && names.is_proxy(host)
        {
            // A proxy may have a private address, but only for requests through it, not to it.
            attempt.error("a redirect from a public host to a proxy")
        } else {
            attempt.follow()
        }
    })
}

/// Whether a host has private addresses only.
///
/// # Errors
/// If its name cannot be looked up.
pub(super) async fn is_inside(resolver: &Resolver, url: &Url) -> io::Result<bool> {
    let addresses = match (address_in(url), url.host_str()) {
        (Some(address), _) => vec![address],
        (None, Some(name)) => resolver.look_up(name).await?,
        (None, None) => Vec::new(),
    };
    let is_private = |address: &IpAddr| resolver.is_private(*address);
    Ok(!addresses.is_empty() && addresses.iter().all(is_private))
}

/// The address of a URL without a host name.
fn address_in(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(address) => Some(address.into()),
        Host::Ipv6(address) => Some(address.into()),
        Host::Domain(_) => None,
    }
}
