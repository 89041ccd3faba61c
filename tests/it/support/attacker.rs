//! Clients that no library offers: requests from any loopback address, and raw HTTP/2 frames that ask for much and
//! grant small windows.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;

use super::{Answer, Connection};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

const HEADER_TABLE_SIZE: u16 = 1;
const INITIAL_WINDOW_SIZE: u16 = 4;

/// The window of the connection: much larger than those of its streams.
const CONNECTION_WINDOW: u32 = 1 << 30;

/// The longest wait for anything that a healthy mirror does.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How often a client stops reading to check its condition.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A loopback address. For the mirror each address is a peer of its own.
pub(crate) fn peer(last: u8) -> IpAddr {
    IpAddr::from(Ipv4Addr::new(127, 0, 0, last))
}

/// Connects from this address, with a receive buffer of this size if one is given.
pub(crate) fn connect_from(
    source: IpAddr,
    address: SocketAddr,
    receive_buffer: Option<u32>,
) -> io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let connecting = async {
        let socket = TcpSocket::new_v4()?;
        if let Some(bytes) = receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        socket.bind(SocketAddr::new(source, 0))?;
        // If the queue of the listener is full, the system would try for minutes.
        let connecting = tokio::time::timeout(Duration::from_secs(5), socket.connect(address));
        connecting.await??.into_std()
    };
    let stream = runtime.block_on(connecting)?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.set_write_timeout(Some(WAIT_MAX))?;
    Ok(stream)
}

/// Sends a request over HTTP/1.1 from this address, and reads the answer.
pub(crate) fn request_from(
    source: IpAddr,
    address: SocketAddr,
    (method, path): (&str, &str),
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    let mut connection = Connection::on(connect_from(source, address, None)?);
    connection.send(head.as_bytes())?;
    connection.send(body)?;
    connection.read_answer(method == "HEAD")
}

/// A connection that sends HTTP/2 in raw frames.
pub(crate) struct Http2Attacker {
    stream: TcpStream,
    input: Vec<u8>,
    streams: u32,
    /// Answers by status: 200, 503 and others.
    pub(crate) statuses: Statuses,
    /// The streams whose answers have begun and not ended.
    pub(crate) open: Vec<u32>,
    /// Streams that were reset before or after their answers began.
    pub(crate) resets: usize,
    /// Streams whose answers began, or that were reset.
    pub(crate) settled: usize,
    /// Bytes of bodies that were received.
    pub(crate) body_bytes: usize,
    /// The mirror sent GOAWAY, or closed the connection.
    pub(crate) is_ended: bool,
}

/// The numbers of answers by status.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Statuses {
    pub(crate) ok: usize,
    pub(crate) unavailable: usize,
    pub(crate) others: usize,
}

impl Http2Attacker {
    /// Connects from this address, and grants a window of this size to each answer.
    pub(crate) fn connect(source: IpAddr, address: SocketAddr, window: u32) -> Self {
        let mut stream = connect_from(source, address, None).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LOOK_EVERY)).unwrap();
        // Without a table, each header can be read alone.
        let mut settings = setting(HEADER_TABLE_SIZE, 0);
        settings.extend(setting(INITIAL_WINDOW_SIZE, window));
        let opening = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &settings),
            frame(WINDOW_UPDATE, 0, 0, &CONNECTION_WINDOW.to_be_bytes()),
        ];
        stream.write_all(&opening.concat()).unwrap();
        Self {
            stream,
            input: Vec::new(),
            streams: 0,
            statuses: Statuses::default(),
            open: Vec::new(),
            resets: 0,
            settled: 0,
            body_bytes: 0,
            is_ended: false,
        }
    }

    /// Sends these requests without waiting for anything.
    pub(crate) fn get<'p>(&mut self, paths: impl IntoIterator<Item = &'p str>) {
        let mut frames = Vec::new();
        for path in paths {
            let block = head("GET", path, &[]);
            let stream = self.next_stream();
            frames.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
        }
        self.send(&frames);
    }

    /// Sends requests with this body. `is_whole` says whether the body ends the request.
    pub(crate) fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        is_whole: bool,
        times: usize,
    ) {
        let mut frames = Vec::new();
        for _ in 0..times {
            let block = head("POST", path, headers);
            let stream = self.next_stream();
            frames.extend(frame(HEADERS, END_HEADERS, stream, &block));
            let flags = if is_whole { END_STREAM } else { 0 };
            frames.extend(frame(DATA, flags, stream, body));
        }
        self.send(&frames);
    }

    /// Grants this many more bytes to each open answer.
    pub(crate) fn grant(&mut self, bytes: u32) {
        let open = self.open.iter();
        let frames = open.flat_map(|stream| frame(WINDOW_UPDATE, 0, *stream, &bytes.to_be_bytes()));
        let frames: Vec<u8> = frames.collect();
        self.send(&frames);
    }

    /// Reads until the condition holds, the connection ends, or the time is up.
    pub(crate) fn read_until(&mut self, until: Instant, condition: impl Fn(&Self) -> bool) {
        let mut buffer = [0; 64 * 1024];
        while !self.is_ended && !condition(self) && Instant::now() < until {
            match self.stream.read(&mut buffer) {
                Ok(0) => self.is_ended = true,
                Ok(length) => {
                    self.input.extend_from_slice(&buffer[..length]);
                    self.take_frames();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_closed) => self.is_ended = true,
            }
        }
    }

    fn next_stream(&mut self) -> u32 {
        self.streams += 1;
        2 * self.streams - 1
    }

    fn send(&mut self, frames: &[u8]) {
        // A mirror may close the connection of such a client.
        if self.stream.write_all(frames).is_err() {
            self.is_ended = true;
        }
    }

    fn take_frames(&mut self) {
        let mut at = 0;
        while let Some(head) = self.input.get(at..at + 9) {
            let length =
                usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & (u32::MAX >> 1);
            let Some(payload) = self.input.get(at + 9..at + 9 + length) else {
                break;
            };
            let payload = payload.to_vec();
            at += 9 + length;
            self.take_frame(kind, flags, stream, &payload);
        }
        self.input.drain(..at);
    }

    fn take_frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let was_open = self.open.contains(&stream);
        match kind {
            HEADERS => {
                let count = match status(payload) {
                    200 => &mut self.statuses.ok,
                    503 => &mut self.statuses.unavailable,
                    _ => &mut self.statuses.others,
                };
                *count += 1;
                self.settled += 1;
                self.open.push(stream);
            }
            DATA => self.body_bytes += payload.len(),
            RESET => {
                self.resets += 1;
                self.settled += usize::from(!was_open);
            }
            SETTINGS if flags & ACK == 0 => self.send(&frame(SETTINGS, ACK, 0, &[])),
            PING if flags & ACK == 0 => self.send(&frame(PING, ACK, 0, payload)),
            GO_AWAY => self.is_ended = true,
            _ => {}
        }
        let is_end = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
        if is_end || kind == RESET {
            self.open.retain(|other| *other != stream);
        }
    }
}

fn setting(name: u16, value: u32) -> Vec<u8> {
    [name.to_be_bytes().to_vec(), value.to_be_bytes().to_vec()].concat()
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A block of headers: literals that are neither indexed nor packed (RFC 7541, section 6.2.2).
fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let own = [
        (":method", method),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
    ];
    let mut block = Vec::new();
    for (name, value) in own.iter().chain(headers) {
        block.push(0);
        for text in [name, value] {
            // All lengths here fit into 7 bits.
            let length = u8::try_from(text.len()).unwrap();
            assert!(length < 127, "too long: {text}");
            block.push(length);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The status at the beginning of a block, if it is one that tests use: 200 or 503. Otherwise 0.
fn status(mut block: &[u8]) -> u16 {
    // A block can begin with a new size of the table.
    while let [0x20..0x3f, rest @ ..] = block {
        block = rest;
    }
    match block {
        [0x88, ..] => 200,
        // A literal with the name `:status`, as text or in Huffman's code.
        [0x08 | 0x18 | 0x48, 0x03, b'5', b'0', b'3', ..]
        | [0x08 | 0x18 | 0x48, 0x83, 0x6c, 0x0c, 0xff, ..] => 503,
        _ => 0,
    }
}
