//! Large request bodies, which a mirror does not need.

use std::io::Write;
use std::net::TcpStream;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::{Answer, Connection, Program};

/// Longer than the mirror reads any body that it does not need.
const GIVE_UP_MAX: Duration = Duration::from_secs(30);

/// The limit for the memory of the program.
const RESIDENT_KIB_MAX: u64 = 100 * 1024;

/// A mirror without an index refuses uploads, too.
fn program() -> Program {
    Program::start(&[
        ("GIT_REPO_URL", "http://127.0.0.1:1/index.git"),
        ("DATA_DIR", "data"),
    ])
}

/// Sends a head, and then bytes while there are some and the mirror reads them. Reads the answer at the same time.
fn upload(
    program: &Program,
    head: &str,
    body: impl FnMut(&mut TcpStream) -> std::io::Result<bool> + Send + 'static,
) -> Answer {
    let began = Instant::now();
    let mut connection = Connection::open(program.address).unwrap();
    connection.send(head.as_bytes()).unwrap();
    let mut stream = connection.stream();
    let mut body = body;
    let sending: JoinHandle<()> =
        thread::spawn(move || while body(&mut stream).unwrap_or(false) {});
    let answer = connection.read_answer(false).unwrap();
    // The sender must end, too: the mirror reads what it still sends, or closes the connection.
    sending.join().unwrap();
    assert!(began.elapsed() < GIVE_UP_MAX, "{:?}", began.elapsed());
    assert_eq!(answer.status, 403);
    assert!(answer.detail().contains("read-only mirror"));
    assert_eq!(program.get("/livez").status, 200);
    let resident = program.resident_kib();
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
    answer
}

#[test]
fn a_publish_of_64_mib_is_refused() {
    let program = program();
    let megabyte = vec![b'x'; 1024 * 1024];
    let mut left = 64;
    upload(
        &program,
        "PUT /api/v1/crates/new HTTP/1.1\r\nHost: h\r\nContent-Length: 67108864\r\n\r\n",
        move |stream| {
            stream.write_all(&megabyte)?;
            left -= 1;
            Ok(left > 0)
        },
    );
}

#[test]
fn an_endless_body_ends_the_connection() {
    let program = program();
    let mut chunk = b"10000\r\n".to_vec();
    chunk.extend(vec![b'x'; 0x10000]);
    chunk.extend(b"\r\n");
    upload(
        &program,
        "PUT /api/v1/crates/new HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        move |stream| stream.write_all(&chunk).map(|()| true),
    );
}

#[test]
fn a_client_that_expects_100_continue_is_refused_at_once() {
    let program = program();
    let mut connection = Connection::open(program.address).unwrap();
    connection
        .send(
            b"PUT /api/v1/crates/new HTTP/1.1\r\nHost: h\r\nContent-Length: 67108864\r\n\
              Expect: 100-continue\r\n\r\n",
        )
        .unwrap();
    // The answer is not `100 Continue`, so the client does not send the body.
    let answer = connection.read_answer(false).unwrap();
    assert_eq!(answer.status, 403);
    assert!(answer.detail().contains("read-only mirror"));
}

#[test]
fn a_client_that_does_not_send_its_body_gets_the_answer() {
    let program = program();
    let mut connection = Connection::open(program.address).unwrap();
    connection
        .send(b"DELETE /api/v1/crates/x/1.0.0/yank HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n")
        .unwrap();
    let answer = connection.read_answer(false).unwrap();
    assert_eq!(answer.status, 403);
    assert!(answer.detail().contains("read-only mirror"));
}

#[test]
fn a_client_that_stops_at_the_refusal_does_not_wait() {
    let program = program();
    let mut connection = Connection::open(program.address).unwrap();
    connection
        .send(b"PUT /api/v1/crates/new HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nbeginning")
        .unwrap();
    let began = Instant::now();
    // The answer has a length, so the client finds its end although the upload continues.
    let answer = connection.read_answer(false).unwrap();
    assert_eq!(answer.status, 403);
    assert!(answer.header("content-length").is_some());
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn requests_that_are_not_http_are_refused_with_a_status() {
    let program = program();
    let many_headers = format!(
        "GET / HTTP/1.1\r\nHost: h\r\n{}\r\n",
        "X: y\r\n".repeat(120)
    );
    let long_line = format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "x".repeat(70_000));
    for (request, statuses) in [
        ("G@T / HTTP/1.1\r\nHost: h\r\n\r\n", &[400][..]),
        ("GET /a\u{1}b HTTP/1.1\r\nHost: h\r\n\r\n", &[400]),
        ("GET / HTTP/1.1\r\nHo st: h\r\n\r\n", &[400]),
        (&many_headers, &[431]),
        (&long_line, &[414, 431]),
    ] {
        let mut connection = Connection::open(program.address).unwrap();
        connection.send(request.as_bytes()).unwrap();
        let answer = connection.read_answer(false).unwrap();
        let beginning: String = request.chars().take(30).collect();
        assert!(
            statuses.contains(&answer.status),
            "{beginning}: {}",
            answer.status
        );
    }
}

#[test]
fn many_uploads_at_a_time_cost_little_memory() {
    let program = program();
    let uploads: Vec<_> = (0..20)
        .map(|_| {
            let mut connection = Connection::open(program.address).unwrap();
            thread::spawn(move || {
                connection
                    .send(b"PUT /api/v1/crates/new HTTP/1.1\r\nHost: h\r\nContent-Length: 8388608\r\n\r\n")
                    .unwrap();
                connection.send(&vec![b'x'; 8 * 1024 * 1024]).unwrap();
                connection.read_answer(false).unwrap().status
            })
        })
        .collect();
    for upload in uploads {
        assert_eq!(upload.join().unwrap(), 403);
    }
    let resident = program.resident_kib();
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
}

#[test]
fn answers_arrive_although_a_body_behind_them_is_not_read() {
    let program = program();
    let mut connection = Connection::open(program.address).unwrap();
    connection
        .send(
            b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n\
              PUT /nothing/here HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nxxx\r\n3\r\nxxx\r\n0\r\n\r\n",
        )
        .unwrap();
    assert_eq!(connection.read_answer(false).unwrap().status, 200);
    assert_eq!(connection.read_answer(false).unwrap().status, 404);
}

#[test]
fn answers_arrive_although_the_next_request_is_not_http() {
    let program = program();
    let mut connection = Connection::open(program.address).unwrap();
    connection
        .send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\nGET /a b HTTP/1.1\r\n\r\n")
        .unwrap();
    assert_eq!(connection.read_answer(false).unwrap().status, 200);
}
