//! A reverse proxy on loopback that offers a server below a path. It can remove that path from requests.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::accept_loop::AcceptLoop;
use super::request::Request;

/// The path prefix.
const PREFIX: &str = "/mirror";

/// A proxy that refuses requests for other paths.
pub(crate) struct PrefixProxy {
    accepting: AcceptLoop,
    server: Arc<OnceLock<SocketAddr>>,
    strips: Arc<AtomicBool>,
}

impl PrefixProxy {
    /// Starts a proxy without a server, which `leads_to` names.
    pub(crate) fn start() -> Self {
        let (server, strips) = (Arc::new(OnceLock::new()), Arc::new(AtomicBool::new(false)));
        let (its_server, its_strips) = (Arc::clone(&server), Arc::clone(&strips));
        let accepting = AcceptLoop::start(AcceptLoop::listen(), move |client| {
            // A client may disconnect.
            drop(relay(
                client,
                &its_server,
                its_strips.load(Ordering::SeqCst),
            ));
        });
        Self {
            accepting,
            server,
            strips,
        }
    }

    /// The base URL of the server behind the proxy.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{PREFIX}", self.accepting.address())
    }

    /// Sets the server.
    pub(crate) fn leads_to(&self, server: SocketAddr) {
        self.server.set(server).unwrap();
    }

    /// Sets whether the proxy removes the path prefix.
    pub(crate) fn strip(&self, strips: bool) {
        self.strips.store(strips, Ordering::SeqCst);
    }
}

fn relay(mut client: TcpStream, server: &OnceLock<SocketAddr>, strips: bool) -> io::Result<()> {
    let request = Request::read(&client)?;
    let (Some(server), Some(stripped)) = (server.get(), request.target.strip_prefix(PREFIX)) else {
        return client.write_all(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n");
    };
    let target = if strips { stripped } else { &request.target };
    let mut to = TcpStream::connect(server)?;
    write!(
        to,
        "{} {target} HTTP/1.1\r\nHost: {server}\r\n",
        request.method
    )?;
    for name in [
        "accept",
        "content-type",
        "content-encoding",
        "git-protocol",
        "user-agent",
    ] {
        if let Some(value) = request.header(name) {
            write!(to, "{name}: {value}\r\n")?;
        }
    }
    let length = request.body.len();
    write!(to, "Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
    to.write_all(&request.body)?;
    io::copy(&mut to, &mut client).map(drop)
}
