//! An HTTP proxy on loopback that records its requests.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::accept_loop::AcceptLoop;
use super::request::Request;

/// The proxy. It connects to the requested port on loopback, whatever the host is.
pub(crate) struct HttpProxy {
    accepting: AcceptLoop,
    seen: Arc<Mutex<Vec<ProxiedRequest>>>,
}

/// A request to the proxy.
#[derive(Clone, Debug)]
pub(crate) struct ProxiedRequest {
    /// The method, which is CONNECT for a tunnel.
    pub(crate) method: String,
    /// The URL, or the host and port of a tunnel.
    pub(crate) target: String,
    /// The value of `Proxy-Authorization`.
    pub(crate) authorization: String,
}

impl HttpProxy {
    /// Starts a proxy.
    pub(crate) fn start() -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let accepting = AcceptLoop::start(AcceptLoop::listen(), move |stream| {
            // A client may disconnect.
            drop(answer(stream, &noted));
        });
        Self { accepting, seen }
    }

    /// The address of the proxy.
    pub(crate) fn address(&self) -> SocketAddr {
        self.accepting.address()
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<ProxiedRequest> {
        self.seen.lock().unwrap().clone()
    }

    /// Whether a target contains this text.
    pub(crate) fn saw(&self, part: &str) -> bool {
        self.seen()
            .iter()
            .any(|request| request.target.contains(part))
    }
}

fn answer(mut client: TcpStream, seen: &Mutex<Vec<ProxiedRequest>>) -> io::Result<()> {
    let request = Request::read(&client)?;
    seen.lock().unwrap().push(ProxiedRequest {
        method: request.method.clone(),
        target: request.target.clone(),
        authorization: request
            .header("proxy-authorization")
            .unwrap_or_default()
            .to_owned(),
    });
    if request.method == "CONNECT" {
        let port = port_of(&request.target);
        let server = TcpStream::connect(("127.0.0.1", port))?;
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
        let sending = thread::spawn(move || {
            drop(io::copy(&mut from, &mut to));
            drop(to.shutdown(Shutdown::Write));
        });
        let mut server = server;
        drop(io::copy(&mut server, &mut client));
        drop(client.shutdown(Shutdown::Both));
        sending.join().unwrap();
        return Ok(());
    }
    let rest = request.target.strip_prefix("http://").unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut server = TcpStream::connect(("127.0.0.1", port_of(authority)))?;
    write!(
        server,
        "{} /{path} HTTP/1.1\r\nHost: {authority}\r\n",
        request.method
    )?;
    for name in [
        "content-type",
        "content-encoding",
        "git-protocol",
        "authorization",
        "user-agent",
    ] {
        if let Some(value) = request.header(name) {
            write!(server, "{name}: {value}\r\n")?;
        }
    }
    write!(
        server,
        "Content-Length: {}\r\nConnection: close\r\n\r\n",
        request.body.len()
    )?;
    server.write_all(&request.body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    client.write_all(&answer)
}

fn port_of(authority: &str) -> u16 {
    let port = authority
        .rsplit_once(':')
        .map_or("80", |(_host, port)| port);
    port.parse().unwrap_or(80)
}
