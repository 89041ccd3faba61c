//! Git's smart HTTP protocol through a proxy, for upstreams with the scheme `http`.
//!
//! libgit2 supports proxies for `https` only. For `http` it connects to the upstream itself and sends it a request for
//! a proxy. So these upstreams get a URL scheme of our own, which libgit2 passes to this transport, and reqwest sends
//! the requests. Everything here blocks.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Buf, Bytes};
use git2::Remote;
use git2::transport::{Service, SmartSubtransport, SmartSubtransportStream, Transport};
use parking_lot::Mutex;
use reqwest::redirect::Policy;
use reqwest::{Client, Proxy, Response, header};
use tokio::runtime::Runtime;
use url::Url;

use super::remote_url::RemoteUrl;
use crate::outgoing::{Proxies, certificates, with_causes};

/// Our own URL scheme. libgit2 must not know it.
pub(super) const SCHEME: &str = "proxied+http";

/// The largest request. A fetch sends the ids of its commits, a few kB.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The settings of all connections of this process.
static CONNECTIONS: OnceLock<Connections> = OnceLock::new();

#[derive(Debug)]
struct Connections {
    connect_timeout: Duration,
    silence_timeout: Duration,
    user_agent: String,
}

/// Sets the settings of all connections. The first call wins.
pub(crate) fn configure(connect_timeout: Duration, silence_timeout: Duration, user_agent: String) {
    CONNECTIONS.get_or_init(|| Connections {
        connect_timeout,
        silence_timeout,
        user_agent,
    });
}

thread_local! {
    /// The upstream that this thread fetches from. Passed this way because libgit2 passes only an address to a
    /// transport.
    static CURRENT: RefCell<Option<(Url, RemoteUrl, Proxies)>> = const { RefCell::new(None) };
}

/// Returns the address of an upstream with our scheme, if it is reached by `http` through a proxy. The next transport
/// of this thread is for this upstream.
pub(crate) fn begin((address, url): (&str, &RemoteUrl), proxies: &Proxies) -> Option<String> {
    let parsed = Url::parse(address).ok()?;
    if parsed.scheme() != "http" || proxies.of(&parsed).is_none() {
        return None;
    }
    CURRENT.set(Some((parsed, url.clone(), proxies.clone())));
    let rest = address.split_once("://")?.1;
    Some(format!("{SCHEME}://{rest}"))
}

/// Makes the transport for an address with our scheme. libgit2 calls it.
pub(super) fn transport(remote: &Remote<'_>) -> Result<Transport, git2::Error> {
    let current = CURRENT.take();
    let (base, url, proxies) =
        current.ok_or_else(|| git2::Error::from_str("no upstream was named"))?;
    let subtransport = ProxiedHttp::new(base, url, proxies)
        .map_err(|error| git2::Error::from_str(&error.to_string()))?;
    Transport::smart(remote, true, subtransport)
}

/// The connections of a transfer, and its upstream.
struct Connection {
    runtime: Runtime,
    client: Client,
    url: RemoteUrl,
    /// The address of the repository, after a redirect of the first request.
    base: Mutex<Url>,
}

struct ProxiedHttp(Arc<Connection>);

impl ProxiedHttp {
    fn new(base: Url, url: RemoteUrl, proxies: Proxies) -> io::Result<Self> {
        // A runtime of its own: this runs on the thread of a transfer, outside of the mirror's runtime.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let connections = CONNECTIONS
            .get()
            .ok_or_else(|| io::Error::other("connections are not configured"))?;
        let builder = || {
            let proxies = proxies.clone();
            Client::builder()
                .proxy(Proxy::custom(move |url| proxies.of(url).cloned()))
                .user_agent(connections.user_agent.as_str())
                .connect_timeout(connections.connect_timeout)
                .read_timeout(connections.silence_timeout)
                .redirect(Policy::none())
        };
        Ok(Self(Arc::new(Connection {
            runtime,
            client: certificates::build(builder).map_err(io::Error::other)?,
            url,
            base: Mutex::new(base),
        })))
    }
}

impl SmartSubtransport for ProxiedHttp {
    fn action(
        &self,
        _address: &str,
        service: Service,
    ) -> Result<Box<dyn SmartSubtransportStream>, git2::Error> {
        let is_listing = match service {
            Service::UploadPackLs => true,
            Service::UploadPack => false,
            Service::ReceivePackLs | Service::ReceivePack => {
                return Err(git2::Error::from_str("nothing is pushed this way"));
            }
        };
        Ok(Box::new(Exchange {
            connection: Arc::clone(&self.0),
            is_listing,
            request: Vec::new(),
            answer: None,
            rest: Bytes::new(),
        }))
    }

    fn close(&self) -> Result<(), git2::Error> {
        Ok(())
    }
}

/// A request and its response. The first read sends the request.
struct Exchange {
    connection: Arc<Connection>,
    is_listing: bool,
    request: Vec<u8>,
    answer: Option<Response>,
    rest: Bytes,
}

impl Exchange {
    fn ask(&self) -> io::Result<Response> {
        let mut base = self.connection.base.lock();
        let mut answer = self.send(&base)?;
        // The rules of libgit2: one redirect of the first request, and none with credentials. For a redirect to another
        // host `fetch` recognises this error and asks `Redirects`.
        if answer.status().is_redirection()
            && self.is_listing
            && self.connection.url.credentials().is_none()
        {
            let location = answer.headers().get(header::LOCATION);
            let target = location
                .and_then(|location| base.join(location.to_str().ok()?).ok())
                .and_then(repository_of);
            let target = target.ok_or_else(|| io::Error::other("unexpected redirect"))?;
            if target.host() != base.host() {
                return Err(io::Error::other("cannot redirect from one host to another"));
            }
            *base = target;
            answer = self.send(&base)?;
        }
        let status = answer.status().as_u16();
        let why = match status {
            200 => return check_type(answer, self.is_listing),
            401 => "the upstream asks for credentials, or refuses those in its URL".to_owned(),
            407 => "the proxy asks for credentials, or refuses those in http_proxy".to_owned(),
            _ => format!("unexpected http status code: {status}"),
        };
        Err(io::Error::other(why))
    }

    fn send(&self, base: &Url) -> io::Result<Response> {
        let Connection {
            runtime,
            client,
            url,
            ..
        } = &*self.connection;
        let mut request = if self.is_listing {
            client.get(target(base, "info/refs", "service=git-upload-pack"))
        } else {
            client
                .post(target(base, "git-upload-pack", ""))
                .header(
                    header::CONTENT_TYPE,
                    "application/x-git-upload-pack-request",
                )
                .header(header::ACCEPT, "application/x-git-upload-pack-result")
                .body(self.request.clone())
        };
        if let Some(credentials) = url.credentials() {
            request = request.basic_auth(&credentials.user, Some(&credentials.password));
        }
        // `send` must run inside the runtime, because it starts timers.
        runtime
            .block_on(async { request.send().await })
            .map_err(described)
    }
}

fn target(base: &Url, file: &str, query: &str) -> Url {
    let mut url = base.clone();
    url.set_path(&format!("{}/{file}", base.path().trim_end_matches('/')));
    let parts: Vec<&str> = [base.query().unwrap_or_default(), query]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect();
    url.set_query((!parts.is_empty()).then(|| parts.join("&")).as_deref());
    url
}

/// The address of a repository, from the URL of its list of references.
fn repository_of(mut listing: Url) -> Option<Url> {
    let path = listing.path().strip_suffix("/info/refs")?.to_owned();
    listing.set_path(&path);
    let query = listing.query().unwrap_or_default();
    let query = query.trim_end_matches("service=git-upload-pack");
    let query = query.trim_end_matches('&').to_owned();
    listing.set_query((!query.is_empty()).then_some(query.as_str()));
    Some(listing)
}

fn check_type(answer: Response, is_listing: bool) -> io::Result<Response> {
    let expected: &[u8] = if is_listing {
        b"application/x-git-upload-pack-advertisement"
    } else {
        b"application/x-git-upload-pack-result"
    };
    let found = answer.headers().get(header::CONTENT_TYPE);
    if found.is_some_and(|found| found.as_bytes() == expected) {
        Ok(answer)
    } else {
        Err(io::Error::other("the answer is not that of a git server"))
    }
}

/// Describes an error with its causes, and without the URL, which may contain a token.
fn described(error: reqwest::Error) -> io::Error {
    io::Error::other(with_causes(&error.without_url()))
}

impl Read for Exchange {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut answer = match self.answer.take() {
            Some(answer) => answer,
            None => self.ask()?,
        };
        // A loop, because a chunk may be empty, and libgit2 takes a read of 0 bytes for the end.
        while self.rest.is_empty() {
            let next = self.connection.runtime.block_on(answer.chunk());
            match next.map_err(described)? {
                Some(bytes) => self.rest = bytes,
                None => break,
            }
        }
        self.answer = Some(answer);
        let length = self.rest.len().min(buffer.len());
        if let Some(buffer) = buffer.get_mut(..length) {
            self.rest.copy_to_slice(buffer);
        }
        Ok(length)
    }
}

impl Write for Exchange {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.request.len() + data.len() > REQUEST_BYTES_MAX {
            return Err(io::Error::other("the request is too large"));
        }
        self.request.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
