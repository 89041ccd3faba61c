//! Tens of thousands of random and hostile requests to the real program, which keeps running and gives valid answers.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use axum::http::Uri;
use fastrand::Rng;
use tempfile::TempDir;

use crate::support::{Answer, Connection, FIXTURES, Fault, GitIndex, GitServer, Program};

/// Requests that HTTP allows, on connections that stay open.
const WELL_FORMED: usize = 32_000;

/// Connections that send something other than HTTP.
const MALFORMED: usize = 3_000;

/// How many threads send at a time.
const SENDERS: usize = 8;

/// The most requests before the first answer is read.
const PIPELINE_MAX: usize = 16;

/// The limit for the memory of the program.
const RESIDENT_KIB_MAX: u64 = 150 * 1024;

/// Parts of paths that have caused bugs in other servers.
const NASTY: [&str; 40] = [
    "..",
    ".",
    "...",
    "%2e%2e",
    "%2E%2E%2F",
    "%2f",
    "%5c",
    "\\",
    "%00",
    "%0a",
    "%0d%0a",
    "%ff",
    "%c0%af",
    "%e2%82",
    "%",
    "%2",
    "%zz",
    "%25",
    "+",
    "%2B",
    "~",
    "*",
    "?",
    ";",
    ":",
    "@",
    "'",
    "\"",
    "|",
    "{name}",
    "{crate}",
    "%7Bname%7D",
    "%E4%BA%AC",
    "%C4%B0",
    "%E2%84%AA",
    "%F0%9F%92%A9",
    "con",
    "nul",
    "-",
    "_",
];

/// Versions, and texts that are close to versions.
const VERSIONS: [&str; 22] = [
    "1.0.0",
    "0.0.0",
    "1.0",
    "1",
    "01.0.0",
    "v1.0.0",
    "1.0.0-",
    "1.0.0+",
    "1.0.0-alpha.1+b.2",
    "1.0.0+b",
    "18446744073709551615.0.0",
    "18446744073709551616.0.0",
    "1.0.0-99999999999999999999999",
    "-1.0.0",
    "1..0",
    "1.0.0 ",
    "*",
    "^1",
    "1.0.0-%E4%BA%AC",
    "download",
    "versions",
    "1.0.0%2Fdownload",
];

/// Text after a version or a name.
const TAILS: [&str; 8] = [
    "download",
    "dependencies",
    "versions",
    "owners",
    "readme",
    "authors",
    "downloads",
    "",
];

/// Queries with unusual content.
const QUERIES: [&str; 14] = [
    "include=versions",
    "include=",
    "include=full,x",
    "include=%00",
    "per_page=0",
    "per_page=101",
    "per_page=18446744073709551616",
    "page=1&seek=x",
    "seek=bm9wZQ",
    "sort=semver&per_page=1",
    "nums[]=1.0.0",
    "nums%5B%5D=%ff",
    "q=%00",
    "&&==&=",
];

const METHODS: [&str; 12] = [
    "GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE",
    "BREW",
];

fn scene(fault: Fault) -> (Program, (GitServer, GitIndex, TempDir)) {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start_with(&index, fault);
    let data = TempDir::new().unwrap();
    let program = Program::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    (program, (server, index, data))
}

fn pick<'a>(rng: &mut Rng, choices: &[&'a str]) -> &'a str {
    choices[rng.usize(..choices.len())]
}

/// One segment of a path: real, nearly real, hostile, long or random.
fn segment(rng: &mut Rng) -> String {
    match rng.u8(..12) {
        0..=3 => pick(rng, &FIXTURES).to_owned(),
        4 => pick(rng, &FIXTURES).to_uppercase().replace('-', "_"),
        5 | 6 => pick(rng, &NASTY).to_owned(),
        7 => format!("{}{}", pick(rng, &FIXTURES), pick(rng, &NASTY)),
        8 => pick(rng, &VERSIONS).to_owned(),
        9 => "a".repeat(rng.usize(..200)),
        10 => (0..rng.usize(1..20))
            .map(|_| char::from(rng.u8(0x21..0x7f)))
            .collect(),
        _ => (0..rng.usize(1..20)).fold(String::new(), |mut text, _| {
            write!(text, "%{:02x}", rng.u8(..)).unwrap();
            text
        }),
    }
}

/// A path with a query. Most are close to one that exists.
fn target(rng: &mut Rng) -> String {
    let mut target = match rng.u8(..10) {
        0..=3 => format!(
            "/api/v1/crates/{}/{}/{}",
            segment(rng),
            pick(rng, &VERSIONS),
            pick(rng, &TAILS)
        ),
        4 | 5 => format!("/api/v1/crates/{}/{}", segment(rng), pick(rng, &TAILS)),
        6 => format!(
            "/api/v1/crates/{}/{}/{}",
            segment(rng),
            segment(rng),
            segment(rng)
        ),
        7 => format!("//api/./v1/{}/../crates/{}", segment(rng), segment(rng)),
        8 => {
            let root = pick(
                rng,
                &[
                    "/",
                    "/readyz",
                    "/livez",
                    "/api/v1/site_metadata",
                    "/index/",
                    "/git/index/",
                    "/at/2026-01-01/index/",
                    "/at/",
                    "*",
                ],
            );
            format!("{root}{}", if rng.bool() { "" } else { pick(rng, &NASTY) })
        }
        _ => (0..rng.usize(1..8)).fold(String::new(), |path, _| format!("{path}/{}", segment(rng))),
    };
    if rng.u8(..40) == 0 {
        target.push_str(&"/a".repeat(rng.usize(..15_000)));
    }
    if rng.u8(..4) == 0 {
        target = format!("{target}?{}", pick(rng, &QUERIES));
    }
    target
}

/// Headers that can confuse a server. None changes where the request ends.
fn headers(rng: &mut Rng) -> Vec<u8> {
    let mut headers = Vec::new();
    let host = pick(
        rng,
        &[
            "h",
            "mirror.example:80",
            "[::1]:8080",
            "u:p@h",
            "h/../x",
            "h h",
            "<script>",
            "h:port",
            "",
            "京",
        ],
    );
    headers.extend(format!("Host: {host}\r\n").bytes());
    for _ in 0..rng.usize(..4) {
        let name = pick(
            rng,
            &[
                "Accept",
                "Accept-Encoding",
                "Authorization",
                "Cookie",
                "If-None-Match",
                "If-Modified-Since",
                "Range",
                "Origin",
                "User-Agent",
                "X-Forwarded-Proto",
                "X-Request-Id",
                "Upgrade",
                "X-Junk",
            ],
        );
        headers.extend(format!("{name}: ").bytes());
        match rng.u8(..4) {
            0 => headers.extend(
                pick(
                    rng,
                    &[
                        "application/json",
                        "gzip, br, zstd",
                        "https, http",
                        "javascript:",
                        "bytes=0-,5-",
                        "*",
                        "W/\"x\"",
                        "h2c",
                        "Basic !!!",
                    ],
                )
                .bytes(),
            ),
            1 => headers.extend(std::iter::repeat_n(b'x', rng.usize(..4_000))),
            // A value may have bytes that are not ASCII.
            _ => headers.extend((0..rng.usize(..50)).map(|_| rng.u8(0x80..))),
        }
        headers.extend(b"\r\n");
    }
    if rng.u8(..50) == 0 {
        // hyper accepts 100 headers.
        for number in 0..90 {
            headers.extend(format!("X-{number}: y\r\n").bytes());
        }
    }
    headers
}

struct Sent {
    method: &'static str,
    target: String,
}

impl Sent {
    /// The part of it that a failure shows.
    fn shown(&self) -> &str {
        self.target.get(..200).unwrap_or(&self.target)
    }
}

/// A request that HTTP allows. It may have a body.
fn well_formed(rng: &mut Rng, bytes: &mut Vec<u8>) -> Sent {
    let target = loop {
        let target = target(rng);
        let is_uri = target
            .parse::<Uri>()
            .is_ok_and(|uri| uri.authority().is_none());
        // A space ends the target, even if `Uri` accepts it.
        if is_uri && !target.contains(' ') {
            break target;
        }
    };
    let method = METHODS[rng.usize(..METHODS.len())];
    bytes.extend(format!("{method} {target} HTTP/1.1\r\n").bytes());
    bytes.extend(headers(rng));
    // The mirror ends the connection after a body that it does not read. These connections must stay open.
    let writes = is_refused(method, &target);
    match rng.u8(..3) {
        0 if writes => {
            let length = rng.usize(..5_000);
            bytes.extend(format!("Content-Length: {length}\r\n\r\n").bytes());
            bytes.extend((0..length).map(|_| rng.u8(..)));
        }
        1 if writes => {
            bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
            for _ in 0..rng.usize(..5) {
                let length = rng.usize(1..500);
                bytes.extend(format!("{length:x};junk=\"{length}\"\r\n").bytes());
                bytes.extend((0..length).map(|_| rng.u8(..)));
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
        }
        _ => bytes.extend(b"\r\n"),
    }
    Sent { method, target }
}

/// Whether a request is certainly a write to the API. With dot segments it may have another path.
fn is_refused(method: &str, target: &str) -> bool {
    ["POST", "PUT", "PATCH", "DELETE"].contains(&method)
        && target.starts_with("/api/v1/")
        && !target.contains("/.")
}

#[track_caller]
fn assert_in_shape(sent: &Sent, answer: &Answer, has_index: bool) {
    let Sent { method, target } = sent;
    let shown = sent.shown();
    let status = answer.status;
    let expected = (200..500).contains(&status) || (status == 503 && !has_index);
    assert!(
        expected || target.starts_with("/readyz"),
        "{method} {shown}: {answer:?}"
    );
    if *method == "HEAD" || !target.starts_with("/api/") {
        return;
    }
    if status >= 400 {
        assert!(!answer.detail().is_empty(), "{method} {shown}: {answer:?}");
    } else if status == 200 {
        assert!(answer.json().get("errors").is_none(), "{method} {shown}");
    }
    if is_refused(method, target) {
        assert_eq!(status, 403, "{method} {shown}: {answer:?}");
    }
}

/// Sends `count` requests. A connection is used until the mirror closes it.
fn send_well_formed(address: SocketAddr, seed: u64, count: usize, has_index: bool) {
    let mut rng = Rng::with_seed(seed);
    let mut connection = Connection::open(address).unwrap();
    let mut left = count;
    while left > 0 {
        let mut bytes = Vec::new();
        let batch: Vec<Sent> = (0..rng.usize(1..=PIPELINE_MAX.min(left)))
            .map(|_| well_formed(&mut rng, &mut bytes))
            .collect();
        left -= batch.len();
        // Another thread sends, so that neither side waits for the other to read.
        let mut stream = connection.stream();
        let sending = thread::spawn(move || stream.write_all(&bytes));
        for sent in &batch {
            let answer = connection
                .read_answer(sent.method == "HEAD")
                .unwrap_or_else(|error| {
                    panic!("seed {seed}: {} {}: {error}", sent.method, sent.shown())
                });
            assert_in_shape(sent, &answer, has_index);
        }
        sending.join().unwrap().unwrap();
    }
}

/// Bytes that are not HTTP, or not quite.
fn malformed(rng: &mut Rng) -> Vec<u8> {
    let noise = |rng: &mut Rng, max: usize| -> Vec<u8> {
        (0..rng.usize(..max)).map(|_| rng.u8(..)).collect()
    };
    let path = String::from_utf8_lossy(&noise(rng, 60)).replace('\n', "");
    match rng.u8(..16) {
        0 => noise(rng, 3_000),
        1 => format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes(),
        2 => [b"GET /api/v1/crates/", &noise(rng, 50)[..], b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat(),
        // HTTP/0.9, and versions that do not exist.
        3 => b"GET /livez\r\n".to_vec(),
        4 => format!("GET /livez HTTP/{}.{}\r\n\r\n", rng.u8(..), rng.u8(..)).into_bytes(),
        // The beginning of HTTP/2 with something else after it, with frames of all types, or truncated.
        5 => [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &noise(rng, 3_000)[..]].concat(),
        6 => {
            let frame = [0, 0, rng.u8(..20), rng.u8(..12), rng.u8(..), 0, 0, 0, rng.u8(..4)];
            let settings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            [&settings[..], &frame, &noise(rng, 200)].concat()
        }
        7 => b"PRI * HTTP/2.0\r\n\r\nSM"[..rng.usize(..20)].to_vec(),
        // Bodies with an unclear end.
        8 => format!(
            "PUT /api/v1/crates/new HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{}\r\n{path}",
            pick(rng, &["ffffffffffffffff", "-1", "zz", "5", "1;", ""])
        )
        .into_bytes(),
        9 => format!(
            "PUT /api/v1/crates/new HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{path}",
            pick(rng, &["18446744073709551616", "-1", "x", "1, 2", "99999999999", " 5", "+5"])
        )
        .into_bytes(),
        10 => b"POST /api/v1/crates/new HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /x"
            .to_vec(),
        // Heads with too large parts of all kinds.
        11 => format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "a".repeat(rng.usize(60_000..100_000))).into_bytes(),
        12 => format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(rng.usize(60_000..100_000))).into_bytes(),
        13 => format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(rng.usize(101..2_000))).into_bytes(),
        // Targets that are not paths.
        14 => format!(
            "{} HTTP/1.1\r\nHost: h\r\n\r\n",
            pick(rng, &[
                "CONNECT h:443", "GET http://user:pass@h/livez", "GET ftp://x", "OPTIONS *", "GET livez", "GET //",
                "GET ///..//..", "GET http://", "GET *", "CONNECT /",
            ])
        )
        .into_bytes(),
        _ => [b"GET / HTTP/1.1\r\nHost: h\r\n", &noise(rng, 300)[..], b"\r\n\r\n"].concat(),
    }
}

/// Sends `count` pieces of junk, each on a connection of its own, and reads the answers.
fn send_malformed(address: SocketAddr, seed: u64, count: usize) {
    let mut rng = Rng::with_seed(seed);
    for _ in 0..count {
        let bytes = malformed(&mut rng);
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        // The mirror may already have closed the connection.
        drop(stream.write_all(&bytes));
        drop(stream.shutdown(Shutdown::Write));
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer);
        if let Err(error) = end {
            let kind = error.kind();
            assert!(
                kind == std::io::ErrorKind::ConnectionReset,
                "{error}: {}",
                String::from_utf8_lossy(&bytes)
            );
        }
        if let Some(status) = answer.strip_prefix(b"HTTP/1.1 ") {
            assert_ne!(status[0], b'5', "{}", String::from_utf8_lossy(&bytes));
        }
    }
}

/// Sends everything at the same time. Then checks the program.
fn storm(program: &Program, has_index: bool, part: usize) {
    let address = program.address;
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let seed = u64::try_from(sender).unwrap();
            scope.spawn(move || {
                send_well_formed(address, seed, WELL_FORMED / SENDERS / part, has_index);
                send_malformed(address, seed, MALFORMED / SENDERS / part);
            });
        }
    });
    assert_eq!(program.get("/livez").status, 200);
    let resident = program.resident_kib();
    println!("{resident} KiB");
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
    let output = program.output();
    assert!(!output.contains("panicked"), "{output}");
}

#[test]
fn a_storm_of_hostile_requests_does_no_harm() {
    let (program, (_server, index, data)) = scene(Fault::None);
    program.wait_until_ready();
    let before = data.path().join("index").read_dir().unwrap().count();
    storm(&program, true, 1);
    program.wait_until_ready();
    for name in FIXTURES {
        assert_eq!(program.metadata(name).status, 200, "{name}");
    }
    assert_eq!(program.commit(), Some(index.head()));
    let after = data.path().join("index").read_dir().unwrap().count();
    assert_eq!(before, after);
}

#[test]
fn a_storm_before_the_first_clone_does_no_harm() {
    let (program, (server, index, _data)) = scene(Fault::Status(500));
    program.wait_for_failure();
    storm(&program, false, 8);
    server.set(Fault::None);
    program.wait_until_ready();
    assert_eq!(program.commit(), Some(index.head()));
}

#[test]
fn incomplete_requests_cost_little_memory() {
    let (program, _upstream) = scene(Fault::None);
    program.wait_until_ready();
    let halves: Vec<Connection> = (0..500)
        .map(|number: usize| {
            let mut connection = Connection::open(program.address).unwrap();
            let head = b"GET /api/v1/crates/itoa HTTP/1.1\r\nHost: h\r\nX-Padding: ";
            connection.send(&head[..number % head.len()]).unwrap();
            connection
        })
        .collect();
    program.assert_serves_without_index();
    assert_eq!(program.metadata("itoa").status, 200);
    let resident = program.resident_kib();
    assert!(resident < RESIDENT_KIB_MAX, "{resident} KiB");
    drop(halves);
}
