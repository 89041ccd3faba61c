//! A git server on loopback that fails on demand: `git http-backend` behind a scripted HTTP server.

use std::io::{self, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::net::TcpSocket;

use super::accept_loop::AcceptLoop;
use super::request::{Request, read_headers};
use super::{GitIndex, hermetic};

/// A fault of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// Connections are closed before a request is read.
    Disconnect,
    /// Connections are accepted and never answered.
    Hang,
    /// Every answer has this status.
    Status(u16),
    /// Every answer has this status and this `Retry-After`.
    Busy(u16, &'static str),
    /// The list of branches is garbage.
    GarbageAdvertisement,
    /// The pack is garbage.
    GarbagePack,
    /// The connection is closed after this many bytes of a pack.
    CutPack(usize),
    /// Nothing comes after this many bytes of a pack.
    HangInPack(usize),
}

/// Serves one repository over smart HTTP until it is dropped.
pub(crate) struct GitServer {
    accepting: AcceptLoop,
    script: Arc<Script>,
}

struct Script {
    root: PathBuf,
    fault: Mutex<Fault>,
    /// The required value of `Authorization`.
    authorization: Mutex<Option<String>>,
    /// The scheme and host that all requests are redirected to.
    moved_to: Mutex<Option<String>>,
    seen: Mutex<Vec<Seen>>,
}

/// What the server records of a request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) target: String,
    pub(crate) user_agent: String,
}

impl GitServer {
    /// Serves a repository without faults.
    pub(crate) fn start(index: &GitIndex) -> Self {
        Self::start_with(index, Fault::None)
    }

    /// Serves a repository, with a fault from the beginning.
    pub(crate) fn start_with(index: &GitIndex, fault: Fault) -> Self {
        Self::serve(AcceptLoop::listen(), index, fault)
    }

    /// Serves a repository without faults at another loopback address.
    pub(crate) fn start_at(address: Ipv4Addr, index: &GitIndex) -> Self {
        let listener = TcpListener::bind((address, 0)).unwrap();
        Self::serve(listener, index, Fault::None)
    }

    /// Redirects every request to the same path at this scheme and host.
    pub(crate) fn redirect_to(&self, other: &str) {
        *self.script.moved_to.lock().unwrap() = Some(other.to_owned());
    }

    /// Answers requests itself again.
    pub(crate) fn redirect_nowhere(&self) {
        *self.script.moved_to.lock().unwrap() = None;
    }

    fn serve(listener: TcpListener, index: &GitIndex, fault: Fault) -> Self {
        let script = Arc::new(Script {
            root: index.root().to_owned(),
            fault: Mutex::new(fault),
            authorization: Mutex::new(None),
            moved_to: Mutex::new(None),
            seen: Mutex::new(Vec::new()),
        });
        let accepting = AcceptLoop::start(listener, {
            let script = Arc::clone(&script);
            // A client may disconnect.
            move |stream| drop(script.answer(stream))
        });
        Self { accepting, script }
    }

    /// The URL of the repository.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/index.git", self.accepting.address())
    }

    /// The URL of the repository with these credentials, which are already percent-encoded.
    pub(crate) fn url_with(&self, credentials: &str) -> String {
        format!(
            "http://{credentials}@{}/index.git",
            self.accepting.address()
        )
    }

    /// Changes the fault, for connections that hang, too.
    pub(crate) fn set(&self, fault: Fault) {
        *self.script.fault.lock().unwrap() = fault;
        self.accepting.disconnect();
    }

    /// From now on, only this user gets answers.
    pub(crate) fn require(&self, user: &str, password: &str) {
        let credentials = STANDARD.encode(format!("{user}:{password}"));
        *self.script.authorization.lock().unwrap() = Some(format!("Basic {credentials}"));
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().unwrap().clone()
    }
}

/// A port that is reserved and refuses connections until it is opened.
pub(crate) struct ClosedPort(TcpSocket);

impl GitServer {
    /// A port for a server that starts later, and the URL of its repository.
    pub(crate) fn closed() -> (ClosedPort, String) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let url = format!("http://{}/index.git", socket.local_addr().unwrap());
        (ClosedPort(socket), url)
    }

    /// Opens a closed port.
    pub(crate) fn open(ClosedPort(socket): ClosedPort, index: &GitIndex) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap();
        let listener = runtime.block_on(async { socket.listen(64).unwrap().into_std().unwrap() });
        listener.set_nonblocking(false).unwrap();
        Self::serve(listener, index, Fault::None)
    }
}

impl Script {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let fault = *self.fault.lock().unwrap();
        if fault == Fault::Disconnect {
            return Ok(());
        }
        let request = Request::read(&stream)?;
        self.seen.lock().unwrap().push(Seen {
            target: request.target.clone(),
            user_agent: request.header("user-agent").unwrap_or_default().to_owned(),
        });
        if let Some(other) = self.moved_to.lock().unwrap().as_deref() {
            return write!(
                stream,
                "HTTP/1.1 301 Moved\r\nLocation: {other}{}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                request.target
            );
        }
        if let Some(expected) = self.authorization.lock().unwrap().as_deref()
            && request.header("authorization") != Some(expected)
        {
            return stream.write_all(
                b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"\r\n\
                  Content-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
        let is_pack = request.method == "POST";
        match fault {
            Fault::Hang => hang(&mut stream),
            Fault::Status(status) => write!(
                stream,
                "HTTP/1.1 {status} Broken\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ),
            Fault::Busy(status, retry_after) => write!(
                stream,
                "HTTP/1.1 {status} Busy\r\nRetry-After: {retry_after}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            ),
            Fault::GarbageAdvertisement if !is_pack => respond(
                &mut stream,
                "application/x-git-upload-pack-advertisement",
                b"\x00\xff<html>this is not git</html>",
            ),
            Fault::GarbagePack if is_pack => respond(
                &mut stream,
                "application/x-git-upload-pack-result",
                &garbage_pack(),
            ),
            Fault::CutPack(bytes) if is_pack => self.run_git(&request, &mut stream, bytes),
            Fault::HangInPack(bytes) if is_pack => self
                .run_git(&request, &mut stream, bytes)
                .and_then(|()| hang(&mut stream)),
            _ => self.run_git(&request, &mut stream, usize::MAX),
        }
    }

    /// Runs `git http-backend` for a request, and passes on this many bytes of its answer.
    fn run_git(
        &self,
        request: &Request,
        stream: &mut TcpStream,
        bytes_max: usize,
    ) -> io::Result<()> {
        let (path, query) = request
            .target
            .split_once('?')
            .unwrap_or((&request.target, ""));
        let mut child = hermetic("git", Path::new("/nonexistent"))
            .arg("http-backend")
            .env("GIT_PROJECT_ROOT", &self.root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REQUEST_METHOD", &request.method)
            .env("PATH_INFO", path)
            .env("QUERY_STRING", query)
            .env("REMOTE_ADDR", "127.0.0.1")
            .env(
                "CONTENT_TYPE",
                request.header("content-type").unwrap_or_default(),
            )
            .env("CONTENT_LENGTH", request.body.len().to_string())
            .env(
                "HTTP_CONTENT_ENCODING",
                request.header("content-encoding").unwrap_or_default(),
            )
            .env(
                "GIT_PROTOCOL",
                request.header("git-protocol").unwrap_or_default(),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        // The requests of a fetch fit into a pipe, so writing does not wait for reading.
        let sent = child.stdin.take().unwrap().write_all(&request.body);
        let output = child.stdout.take().unwrap();
        let passed = sent.and_then(|()| pass_on(output, stream, bytes_max));
        drop(child.kill());
        child.wait()?;
        passed
    }
}

/// Turns the answer of a CGI program into an HTTP answer. Ends it properly only if all of it was passed on.
fn pass_on(output: impl Read, stream: &mut TcpStream, bytes_max: usize) -> io::Result<()> {
    let mut output = BufReader::new(output);
    let headers = read_headers(&mut output)?;
    let status = headers
        .iter()
        .find(|(name, _)| name == "Status")
        .map_or("200 OK", |(_, status)| status.as_str());
    write!(
        stream,
        "HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n"
    )?;
    for (name, value) in headers.iter().filter(|(name, _)| name != "Status") {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    if bytes_max < usize::MAX {
        let mut answer = Vec::new();
        output.read_to_end(&mut answer)?;
        let answer = in_small_packets(&answer);
        let passed = answer.len().min(bytes_max);
        write!(stream, "{passed:x}\r\n")?;
        stream.write_all(&answer[..passed])?;
        let end: &[u8] = match passed < answer.len() {
            true => b"\r\n",
            false => b"\r\n0\r\n\r\n",
        };
        return stream.write_all(end);
    }
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = output.read(&mut buffer)?;
        write!(stream, "{length:x}\r\n")?;
        stream.write_all(&buffer[..length])?;
        stream.write_all(b"\r\n")?;
        if length == 0 {
            return Ok(());
        }
    }
}

/// The same packets of git's protocol, with few bytes of the pack in each.
///
/// git puts into a packet what it finds in a pipe: up to 64 kB on a busy machine. libgit2 reads whole packets. So the
/// number of objects that libgit2 finds in the beginning of an answer would depend on the load.
fn in_small_packets(answer: &[u8]) -> Vec<u8> {
    const PACK_DATA: u8 = 1;
    let mut small = Vec::new();
    let mut rest = answer;
    while let Some((length, _)) = rest.split_at_checked(4) {
        let length = std::str::from_utf8(length)
            .ok()
            .and_then(|length| usize::from_str_radix(length, 16).ok())
            .expect("a packet begins with its length");
        // Shorter packets are markers without content.
        let (packet, others) = rest.split_at(length.max(4));
        match packet.get(4..) {
            Some([PACK_DATA, data @ ..]) => {
                for part in data.chunks(1_000) {
                    small.extend(format!("{:04x}", part.len() + 5).into_bytes());
                    small.push(PACK_DATA);
                    small.extend(part);
                }
            }
            _ => small.extend(packet),
        }
        rest = others;
    }
    small
}

fn respond(stream: &mut TcpStream, content_type: &str, body: &[u8]) -> io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)
}

/// Garbage that begins like a pack of five objects in git's framing.
fn garbage_pack() -> Vec<u8> {
    let mut pack = b"\x01PACK\x00\x00\x00\x02\x00\x00\x00\x05".to_vec();
    let mut noise = fastrand::Rng::with_seed(7);
    pack.extend(std::iter::repeat_with(|| noise.u8(..)).take(2_000));
    let mut answer = b"0008NAK\n".to_vec();
    answer.extend(format!("{:04x}", pack.len() + 4).bytes());
    answer.extend(pack);
    answer.extend(b"0000");
    answer
}

/// Waits until the connection is closed by the other side or by the end of the test.
fn hang(stream: &mut TcpStream) -> io::Result<()> {
    let mut byte = [0];
    while stream.read(&mut byte)? > 0 {}
    Ok(())
}
