//! The memory that many slow clients cost, each with a file of its own. Most bytes are on the disk or in sockets.

use std::io::{Read, Write};
use std::net::TcpStream;

use tokio::net::TcpSocket;
use tokio::runtime::Builder;

use super::*;
use crate::support::{Program, S3Fault, S3Server};

/// Less than a store gets in parts, and more than sockets take.
const LENGTH: usize = 4 * 1024 * 1024;

const CLIENTS: usize = 40;

/// A few more clients than there is memory for.
const CROWD: usize = 14;

/// The limit for all clients together: much less than their files.
const GROWTH_KIB_MAX: u64 = 96 * 1024;

/// How many bytes the system of a client takes before the client reads. Few, so that the mirror keeps the rest.
const RECEIVE_BUFFER_BYTES: u32 = 8 * 1024;

/// Longer than any answer needs to begin.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// A program that mirrors one file for each client.
fn program(more: &[(&str, &str)]) -> (Program, Origin, TempDir) {
    let files = (0..CLIENTS).map(|number| {
        let seed = u64::try_from(number).unwrap();
        CrateFile::noise(format!("slow-{number:02}").leak(), "1.0.0", seed, LENGTH)
    });
    let origin = Origin::with(files.collect());
    let data = TempDir::new().unwrap();
    let own = origin.settings();
    let mut settings = borrowed(&own);
    settings.push(("DATA_DIR", data.path().to_str().unwrap()));
    settings.extend(more);
    let program = Program::start(&settings);
    program.wait_until_ready();
    (program, origin, data)
}

/// A client that asks for a file and reads nothing. Its system takes few bytes.
fn ask(program: &Program, file: &CrateFile) -> TcpStream {
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    let connecting = async {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        socket.connect(program.address).await?.into_std()
    };
    let mut client = runtime.block_on(connecting).unwrap();
    client.set_nonblocking(false).unwrap();
    client.set_read_timeout(Some(ANSWER_WAIT_MAX)).unwrap();
    let path = file.download_path();
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    client
}

/// Waits for the beginning of an answer, and returns its status.
fn status_of(client: &mut TcpStream) -> u16 {
    let mut beginning = [0; 12];
    client.read_exact(&mut beginning).unwrap();
    let status = beginning.strip_prefix(b"HTTP/1.1 ").unwrap();
    std::str::from_utf8(status).unwrap().parse().unwrap()
}

#[test]
fn slow_clients_get_new_files_from_the_disk() {
    let (program, origin, _data) = program(&[]);
    let before = program.anonymous_kib();
    let files = origin.files.iter();
    let mut clients: Vec<TcpStream> = files.map(|file| ask(&program, file)).collect();
    for client in &mut clients {
        assert_eq!(status_of(client), 200);
    }
    let grown = program.anonymous_kib().saturating_sub(before);
    println!("{grown} KiB of additional memory");
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB");
    drop(clients);
    assert_serves(&program, &origin.files[CLIENTS - 1]);
}

#[test]
fn if_nothing_can_be_stored_slow_clients_are_cut_for_new_ones() {
    let bucket = S3Server::start();
    let its = bucket.settings();
    let settings = borrowed(&its);
    let (program, origin, _data) = program(&settings);
    bucket.set(S3Fault::StatusOfWrites(403));
    let before = program.anonymous_kib();
    let mut clients: Vec<TcpStream> = Vec::new();
    let mut most = 0;
    for file in origin.files.iter().take(CROWD) {
        let mut client = ask(&program, file);
        assert_eq!(status_of(&mut client), 200);
        most = most.max(program.anonymous_kib().saturating_sub(before));
        clients.push(client);
    }
    println!("{most} KiB of additional memory");
    assert!(most < GROWTH_KIB_MAX, "{most} KiB");
    // The mirror cut the first answers, so that the last ones are complete.
    let is_whole = |client: &mut TcpStream, file: &CrateFile| {
        let mut answer = Vec::new();
        // An answer that is cut can also end with a reset.
        let _cut = client.read_to_end(&mut answer);
        answer.ends_with(&file.bytes())
    };
    assert!(!is_whole(&mut clients[0], &origin.files[0]));
    let last = CROWD - 1;
    assert!(is_whole(&mut clients[last], &origin.files[last]));
    eventually("the log has the cut answer", || {
        program.output().contains("\"cut\":true")
    });
}
