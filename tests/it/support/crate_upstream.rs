//! The upstream of a mirror in cache mode: a server of crate files that fails on demand, and counts requests.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::net::TcpSocket;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::accept_loop::AcceptLoop;
use super::content::Content;
use super::gate::Gate;
use super::request::Request;
use super::upstream_fault::{UpstreamFault, answer, forbid};
use super::wire::Wire;
use super::{Authority, CrateFile};

/// How many connections can wait to be accepted.
const BACKLOG: u32 = 1024;

/// Serves crate files until it is stopped or dropped.
pub(crate) struct CrateUpstream {
    /// Reserves the port while the server is stopped, so that no other test gets it.
    _reserved: TcpSocket,
    address: SocketAddr,
    accepting: Option<AcceptLoop>,
    script: Arc<Script>,
}

/// What the upstream records of a request.
#[derive(Clone, Debug)]
pub(crate) struct SeenFile {
    pub(crate) path: String,
    pub(crate) user_agent: String,
    pub(crate) accept_encoding: Option<String>,
    pub(crate) authorization: Option<String>,
}

struct Script {
    tls: Option<Arc<ServerConfig>>,
    files: Mutex<HashMap<String, Content>>,
    plans: Mutex<Vec<Plan>>,
    gate: Gate,
    seen: Mutex<Vec<SeenFile>>,
    in_flight: AtomicUsize,
    most_in_flight: AtomicUsize,
}

/// A fault of later answers.
struct Plan {
    /// `None` stands for every path.
    path: Option<String>,
    fault: UpstreamFault,
    left: usize,
}

impl CrateUpstream {
    /// Serves these files.
    pub(crate) fn start(files: &[CrateFile]) -> Self {
        Self::serve(files, None)
    }

    /// Serves these files over TLS, with a certificate that this authority signed.
    pub(crate) fn start_tls(files: &[CrateFile], authority: &Authority) -> Self {
        Self::serve(files, Some(authority.server_config()))
    }

    fn serve(files: &[CrateFile], tls: Option<Arc<ServerConfig>>) -> Self {
        let reserved = TcpSocket::new_v4().unwrap();
        reserved.set_reuseport(true).unwrap();
        reserved.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut upstream = Self {
            address: reserved.local_addr().unwrap(),
            _reserved: reserved,
            accepting: None,
            script: Arc::new(Script {
                tls,
                files: Mutex::default(),
                plans: Mutex::default(),
                gate: Gate::default(),
                seen: Mutex::default(),
                in_flight: AtomicUsize::default(),
                most_in_flight: AtomicUsize::default(),
            }),
        };
        for file in files {
            upstream.hold(&file.path(), file.content.clone());
        }
        upstream.restart();
        upstream
    }

    /// `DOWNLOAD_URL`.
    pub(crate) fn template(&self) -> String {
        self.url("/crates/{crate}/{crate}-{version}.crate")
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.script.tls.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{}{path}", self.address)
    }

    /// Puts a file at a path, or replaces one.
    pub(crate) fn hold(&self, path: &str, content: Content) {
        let mut files = self.script.files.lock().unwrap();
        files.insert(path.to_owned(), content);
    }

    /// Removes the file at a path.
    pub(crate) fn remove(&self, path: &str) {
        self.script.files.lock().unwrap().remove(path);
    }

    /// From now on, every answer has this fault.
    pub(crate) fn fail(&self, fault: UpstreamFault) {
        self.plan(None, fault, usize::MAX);
    }

    /// The next `times` answers have this fault.
    pub(crate) fn fail_times(&self, times: usize, fault: UpstreamFault) {
        self.plan(None, fault, times);
    }

    /// From now on, every answer for this path has this fault.
    pub(crate) fn fail_path(&self, path: &str, fault: UpstreamFault) {
        self.plan(Some(path.to_owned()), fault, usize::MAX);
    }

    fn plan(&self, path: Option<String>, fault: UpstreamFault, left: usize) {
        let mut plans = self.script.plans.lock().unwrap();
        plans.push(Plan { path, fault, left });
    }

    /// From now on, answers have no fault. Answers that hang still wait for the gate.
    pub(crate) fn heal(&self) {
        self.script.plans.lock().unwrap().clear();
    }

    /// Lets all answers continue that hang now or later.
    pub(crate) fn open_gate(&self) {
        self.script.gate.open();
    }

    /// Refuses connections from now on, and closes the open ones.
    pub(crate) fn stop(&mut self) {
        self.accepting = None;
    }

    /// Listens on the same port again.
    pub(crate) fn restart(&mut self) {
        let listener = listen_beside(self.address);
        self.accepting = Some(AcceptLoop::start(listener, {
            let script = Arc::clone(&self.script);
            // A client may disconnect.
            move |stream| drop(script.serve(stream))
        }));
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<SeenFile> {
        self.script.seen.lock().unwrap().clone()
    }

    /// The number of requests for a path.
    pub(crate) fn requests(&self, path: &str) -> usize {
        let seen = self.script.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.path == path).count()
    }

    /// The largest number of requests that were in progress at one time.
    pub(crate) fn most_in_flight(&self) -> usize {
        self.script.most_in_flight.load(Ordering::SeqCst)
    }
}

impl Drop for CrateUpstream {
    fn drop(&mut self) {
        // No answer may wait when the connections are closed.
        self.script.gate.open();
    }
}

impl Script {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut wire = match &self.tls {
            None => Wire::Plain(stream),
            Some(config) => {
                let connection =
                    ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                Wire::Tls(Box::new(StreamOwned::new(connection, stream)))
            }
        };
        let request = Request::read_bodiless(&mut wire)?;
        let header = |name: &str| request.header(name).map(str::to_owned);
        self.seen.lock().unwrap().push(SeenFile {
            path: request.target.clone(),
            user_agent: header("user-agent").unwrap_or_default(),
            accept_encoding: header("accept-encoding"),
            authorization: header("authorization"),
        });
        let now = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(now, Ordering::SeqCst);
        let answered = self.answer(wire, &request.target);
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        answered
    }

    fn answer(&self, wire: Wire, path: &str) -> io::Result<()> {
        let fault = self.take_fault(path);
        let content = self.files.lock().unwrap().get(path).cloned();
        match content {
            Some(content) => answer(wire, path, &content, fault.as_ref(), &self.gate),
            None => forbid(wire),
        }
    }

    fn take_fault(&self, path: &str) -> Option<UpstreamFault> {
        let mut plans = self.plans.lock().unwrap();
        let plan = plans.iter_mut().find(|plan| {
            plan.left > 0 && plan.path.as_deref().is_none_or(|planned| planned == path)
        })?;
        plan.left -= 1;
        Some(plan.fault.clone())
    }
}

/// A listener on a port that one of our sockets has reserved.
fn listen_beside(address: SocketAddr) -> TcpListener {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .unwrap();
    let _inside = runtime.enter();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseport(true).unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(BACKLOG).unwrap().into_std().unwrap();
    listener.set_nonblocking(false).unwrap();
    listener
}
