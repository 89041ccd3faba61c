//! A file that is much larger than the memory of a fetch: what a fetch and slow clients cost.

use std::io::{self, Read};
use std::net::TcpStream;

use super::*;
use crate::support::{Connection, Content, Program};

const LENGTH: usize = 40 * 1024 * 1024;

/// The limit for the additional memory of one fetch and several downloads: much less than the file.
const GROWTH_KIB_MAX: u64 = 24 * 1024;

/// How many clients read the file at the same time.
const READERS: usize = 8;

/// How much each client reads before it waits for the others.
const BEGINNING: u64 = 1024 * 1024;

/// A client that asks for the file.
fn ask(program: &Program, path: &str) -> TcpStream {
    let mut connection = Connection::open(program.address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    connection.send(request.as_bytes()).unwrap();
    connection.stream()
}

/// Checks that everything after the head of the answer is the file.
fn assert_sent(mut stream: TcpStream, content: &Content) {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let head = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let body = &answer[head + 4..];
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
    assert_eq!(body.len(), content.length());
    let mut expected = Vec::new();
    content.write(0..content.length(), &mut expected).unwrap();
    assert!(body == expected, "other bytes");
}

#[test]
fn a_large_file_costs_little_memory_however_many_read_it() {
    let origin = Origin::with(vec![CrateFile::noise("large", "1.0.0", 1, LENGTH)]);
    let data = TempDir::new().unwrap();
    let own = origin.settings();
    let mut settings = borrowed(&own);
    settings.push(("DATA_DIR", data.path().to_str().unwrap()));
    let program = Program::start(&settings);
    program.wait_until_ready();
    let before = program.resident_kib();

    let path = origin.files[0].download_path();
    let mut readers: Vec<TcpStream> = (0..READERS).map(|_| ask(&program, &path)).collect();
    for reader in &mut readers {
        let read = io::copy(&mut reader.take(BEGINNING), &mut io::sink()).unwrap();
        assert_eq!(read, BEGINNING);
    }
    let grown = program.resident_kib().saturating_sub(before);
    println!("{grown} KiB of additional memory");
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    assert_eq!(origin.fetched().len(), 1);

    assert_sent(ask(&program, &path), &origin.files[0].content);
    // A client that disconnects in the middle leaves nothing behind and does not damage the file.
    drop(readers);
    assert_sent(ask(&program, &path), &origin.files[0].content);
}
