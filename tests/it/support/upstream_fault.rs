//! The faults of a server that sends a crate file.

use std::io::{self, Write};

use super::content::Content;
use super::gate::Gate;
use super::wire::Wire;

/// Much longer than any head that a client accepts.
const HUGE_HEAD_LENGTH: usize = 4 * 1024 * 1024;

/// How many bytes a slow upstream sends at a time.
const TRICKLE_LENGTH: usize = 16;

/// How many sixteenths of a file come before the fault: so many that a mirror has begun to write a large file.
const MOST_OF_16: usize = 15;

/// The fault of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamFault {
    /// The connection is reset instead of an answer.
    ResetsBeforeHead,
    /// The connection is closed instead of an answer.
    ClosesBeforeHead,
    /// Nothing comes until the gate is open. Then the file comes.
    HangsBeforeHead,
    /// In the middle of the file nothing comes until the gate is open. Then the rest comes.
    HangsMidBody,
    /// A few bytes come every few milliseconds until the gate is open. Then the rest comes.
    Trickles,
    /// The connection is reset in the middle of the file.
    ResetsMidBody,
    /// The connection ends in the middle of the file, although `Content-Length` is that of the whole file.
    CutShort,
    /// One byte is wrong, and the length is right.
    WrongBytes,
    /// Most of the file, as a complete answer.
    Truncated,
    /// The file and one more byte, as a complete answer.
    Extended,
    /// More bytes than `Content-Length`, which is right.
    RunsOver,
    /// The right file without `Content-Length`. This is allowed.
    Chunked,
    /// Most of the file in chunks, and no last chunk.
    ChunkedCutShort,
    /// The right file, with a `Content-Encoding` that says gzip.
    ClaimsGzip,
    /// This status, and a page about it.
    Status(u16),
    /// This status and this `Retry-After`.
    RetryAfter(u16, &'static str),
    /// A redirect to the file itself.
    RedirectsToItself,
    /// A redirect to another URL.
    RedirectsTo(String),
    /// Something that is not HTTP.
    Garbage,
    /// A head that does not end within megabytes.
    HugeHead,
}

/// Answers a request for a file.
pub(super) fn answer(
    mut wire: Wire,
    path: &str,
    content: &Content,
    fault: Option<&UpstreamFault>,
    gate: &Gate,
) -> io::Result<()> {
    use UpstreamFault as Fault;

    let length = content.length();
    let most = length * MOST_OF_16 / 16;
    let Some(fault) = fault else {
        head(&mut wire, length)?;
        content.write(0..length, &mut wire)?;
        return wire.finish();
    };
    match fault {
        Fault::ResetsBeforeHead => return wire.reset(),
        Fault::ClosesBeforeHead => {}
        Fault::HangsBeforeHead => {
            gate.wait(wire.socket())?;
            head(&mut wire, length)?;
            content.write(0..length, &mut wire)?;
        }
        Fault::HangsMidBody => {
            head(&mut wire, length)?;
            content.write(0..most, &mut wire)?;
            wire.flush()?;
            gate.wait(wire.socket())?;
            content.write(most..length, &mut wire)?;
        }
        Fault::Trickles => {
            head(&mut wire, length)?;
            let mut sent = 0;
            // The last byte waits for the gate, even in a small file.
            while !gate.wait_a_moment() {
                let next = (sent + TRICKLE_LENGTH).min(length - 1);
                content.write(sent..next, &mut wire)?;
                wire.flush()?;
                sent = next;
            }
            content.write(sent..length, &mut wire)?;
        }
        Fault::ResetsMidBody => {
            head(&mut wire, length)?;
            content.write(0..most, &mut wire)?;
            return wire.reset();
        }
        Fault::CutShort => {
            head(&mut wire, length)?;
            content.write(0..most, &mut wire)?;
        }
        Fault::WrongBytes => {
            head(&mut wire, length)?;
            let mut right = Vec::new();
            content.write(0..1, &mut right)?;
            wire.write_all(&[!right[0]])?;
            content.write(1..length, &mut wire)?;
        }
        Fault::Truncated => {
            head(&mut wire, most)?;
            content.write(0..most, &mut wire)?;
        }
        Fault::Extended => {
            head(&mut wire, length + 1)?;
            content.write(0..length, &mut wire)?;
            wire.write_all(b"x")?;
        }
        Fault::RunsOver => {
            head(&mut wire, length)?;
            content.write(0..length, &mut wire)?;
            wire.write_all(b"and more")?;
        }
        Fault::Chunked => {
            chunk(&mut wire, content, length)?;
            wire.write_all(b"0\r\n\r\n")?;
        }
        Fault::ChunkedCutShort => chunk(&mut wire, content, most)?,
        Fault::ClaimsGzip => {
            write!(
                wire,
                "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {length}\r\n\
                 Connection: close\r\n\r\n"
            )?;
            content.write(0..length, &mut wire)?;
        }
        Fault::Status(status) => page(&mut wire, *status, "")?,
        Fault::RetryAfter(status, value) => {
            page(&mut wire, *status, &format!("Retry-After: {value}\r\n"))?;
        }
        Fault::RedirectsToItself => page(&mut wire, 302, &format!("Location: {path}\r\n"))?,
        Fault::RedirectsTo(url) => page(&mut wire, 302, &format!("Location: {url}\r\n"))?,
        Fault::Garbage => wire.write_all(b"\x00\xff this is not HTTP\r\n\r\n\r\n")?,
        Fault::HugeHead => {
            wire.write_all(b"HTTP/1.1 200 OK\r\n")?;
            let line = format!("X-Filler: {}\r\n", "x".repeat(1000));
            for _ in 0..HUGE_HEAD_LENGTH / line.len() {
                wire.write_all(line.as_bytes())?;
            }
        }
    }
    wire.finish()
}

/// Answers `403`, as a bucket does for a missing file if its objects may not be listed.
pub(super) fn forbid(mut wire: Wire) -> io::Result<()> {
    page(&mut wire, 403, "")?;
    wire.finish()
}

fn head(wire: &mut Wire, length: usize) -> io::Result<()> {
    write!(
        wire,
        "HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
}

fn chunk(wire: &mut Wire, content: &Content, length: usize) -> io::Result<()> {
    write!(
        wire,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{length:x}\r\n"
    )?;
    content.write(0..length, wire)?;
    wire.write_all(b"\r\n")
}

fn page(wire: &mut Wire, status: u16, headers: &str) -> io::Result<()> {
    let body = "<Error>as the test wants it</Error>";
    write!(
        wire,
        "HTTP/1.1 {status} Scripted\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
