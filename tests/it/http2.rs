//! HTTP/2 without TLS, which a proxy in front may speak, and clients that abuse it.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::support::{
    Connection, GitIndex, GitServer, Http2, Http2Answer, Program, eventually, index_line,
    index_path,
};

/// The limit for the memory that one client costs: the cache of index files and the budget of large answers together.
const RESIDENT_KIB_MAX: u64 = 200 * 1024;

/// How often a condition is checked.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// A mirror without an index.
fn without_index() -> Program {
    Program::start(&[
        ("GIT_REPO_URL", "http://127.0.0.1:1/index.git"),
        ("DATA_DIR", "data"),
    ])
}

struct Scene {
    program: Program,
    _server: GitServer,
    index: GitIndex,
    _data: TempDir,
}

fn scene(index: GitIndex) -> Scene {
    let server = GitServer::start(&index);
    let data = TempDir::new().unwrap();
    let program = Program::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    program.wait_until_ready();
    Scene {
        program,
        _server: server,
        index,
        _data: data,
    }
}

#[test]
fn answers_are_the_same_as_over_http1() {
    let scene = scene(GitIndex::with_fixtures());
    let file = format!("/index/{}", index_path("itoa"));
    let tag = scene.program.get(&file).header("etag").unwrap().to_owned();
    let not_modified = [("if-none-match", tag.as_str())];
    let json = [("accept", "application/json")];
    let gzip = [("accept-encoding", "gzip")];
    let long = format!("/index/{}", "x".repeat(10_000));
    for (method, path, headers) in [
        ("GET", "/livez", &[][..]),
        ("GET", "//api/v1/../v1/crates/itoa", &[]),
        ("HEAD", "/api/v1/crates/itoa", &[]),
        ("GET", "/index/config.json", &[]),
        ("GET", &file, &[]),
        ("GET", &file, &gzip),
        ("HEAD", &file, &[]),
        ("GET", &file, &not_modified),
        ("HEAD", &file, &not_modified),
        ("PUT", &file, &[]),
        ("OPTIONS", &file, &[]),
        ("GET", "/api/v1/crates/itoa/1.0.0/download", &[]),
        ("HEAD", "/api/v1/crates/itoa/1.0.0/download", &[]),
        ("GET", "/api/v1/crates/itoa/1.0.0/download", &json),
        ("DELETE", "/api/v1/crates/itoa/1.0.0/yank", &[]),
        ("GET", "/nothing", &[]),
        ("GET", &long, &[]),
    ] {
        let asking = async {
            let client = Http2::plain(scene.program.address).await;
            client.request(method, path, headers).await
        };
        let by_http2 = runtime().block_on(asking);
        let by_http1 = scene.program.request(method, path, headers);
        assert_eq!(by_http2.status, by_http1.status, "{method} {path}");
        if by_http1.header("content-encoding").is_none() {
            assert_eq!(by_http2.body, by_http1.body, "{method} {path}");
        }
        for name in ["connection", "transfer-encoding", "keep-alive"] {
            assert!(!by_http2.headers.contains_key(name), "{method} {path}");
        }
        for name in ["content-type", "content-length", "etag", "location", "vary"] {
            let value = by_http2.headers.get(name);
            let by_http2 = value.map(|value| value.to_str().unwrap());
            // HTTP/2 marks an empty body in another way.
            let by_http2 = by_http2.filter(|value| *value != "0");
            let by_http1 = by_http1.header(name).filter(|value| *value != "0");
            assert_eq!(by_http2, by_http1, "{method} {path}: {name}");
        }
    }
    assert_eq!(scene.program.commit(), Some(scene.index.head()));
}

#[test]
fn an_upgrade_to_http2_is_ignored() {
    let program = without_index();
    let mut connection = Connection::open(program.address).unwrap();
    for _ in 0..2 {
        connection
            .send(
                b"GET /livez HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                  Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAQAAAAIAAAAA\r\n\r\n",
            )
            .unwrap();
        let answer = connection.read_answer(false).unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
        assert_eq!(answer.header("upgrade"), None);
    }
}

#[test]
fn connect_and_too_large_headers_are_refused_with_a_status() {
    let program = without_index();
    let long = "x".repeat(60_000);
    runtime().block_on(async {
        let client = Http2::plain(program.address).await;
        let tunnel = client.request("CONNECT", "", &[]).await;
        assert!(tunnel.status.is_client_error(), "{}", tunnel.status);
        let large = client.request("GET", "/livez", &[("x-long", &long)]).await;
        assert_eq!(large.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(client.get("/livez").await.status, StatusCode::OK);
    });
}

#[test]
fn a_large_upload_is_refused_and_costs_no_memory() {
    let program = without_index();
    runtime().block_on(async {
        let client = Http2::plain(program.address).await;
        let uploads: Vec<_> = (0..20)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move {
                    let body = Body::from(vec![b'x'; 10 * 1024 * 1024]);
                    let path = "/api/v1/crates/new";
                    let answer = client.begin("PUT", path, &[], body).await.unwrap();
                    Http2Answer::read(answer).await.unwrap()
                })
            })
            .collect();
        for upload in uploads {
            let answer = upload.await.unwrap();
            assert_eq!(answer.status, StatusCode::FORBIDDEN);
            assert!(String::from_utf8_lossy(&answer.body).contains("read-only mirror"));
        }
        assert_eq!(client.get("/livez").await.status, StatusCode::OK);
    });
    let resident = program.resident_kib();
    assert!(resident < RESIDENT_KIB_MAX / 2, "{resident} KiB");
}

#[test]
fn a_client_that_asks_for_much_and_reads_nothing_costs_little_memory() {
    // An answer about this crate takes several megabytes. It is made anew for each request.
    let index = GitIndex::with_fixtures();
    let versions = (0..5_000).flat_map(|patch| index_line("large", &format!("1.0.{patch}"), false));
    let file: Vec<u8> = versions.collect();
    index.commit().crate_file("large", &file).send();
    let scene = scene(index);
    let size = scene.program.metadata("large").body.len();
    assert!(size > 2 * 1024 * 1024, "{size}");
    let peak = runtime().block_on(async {
        let address = scene.program.address;
        let clients = [
            Http2::with_window(address, 0).await,
            Http2::with_window(address, 1).await,
        ];
        let mut asked = JoinSet::new();
        for number in 0..200 {
            let client = clients[number % 2].clone();
            asked.spawn(async move {
                let path = "/api/v1/crates/large";
                client.begin("GET", path, &[], Body::empty()).await
            });
        }
        let mut peak = 0;
        // The client neither reads the bodies nor drops them.
        let mut answers = Vec::new();
        while !asked.is_empty() {
            // The next answer. While there is none, the memory is checked.
            let answer = tokio::time::timeout(LOOK_EVERY, asked.join_next()).await;
            peak = peak.max(scene.program.resident_kib());
            answers.extend(answer.ok().flatten());
        }
        let small = Http2::plain(address).await;
        assert_eq!(small.get("/livez").await.status, StatusCode::OK);
        assert_eq!(answers.len(), 200);
        // Each request gets its answer, or 503 if the budget is used up.
        for answer in answers {
            assert!(matches!(
                answer.unwrap().unwrap().status().as_u16(),
                200 | 503
            ));
        }
        peak
    });
    println!("{peak} KiB");
    assert!(peak < RESIDENT_KIB_MAX, "{peak} KiB");
}

#[test]
fn sigterm_lets_an_http2_answer_finish() {
    let index = GitIndex::with_fixtures();
    let mut file = index_line("large", "1.0.0", false);
    file.resize(1024 * 1024, b'x');
    index.commit().crate_file("large", &file).send();
    let mut scene = scene(index);
    let path = format!("/index/{}", index_path("large"));
    let runtime = runtime();
    let (client, answer) = runtime.block_on(async {
        let client = Http2::plain(scene.program.address).await;
        let answer = client.begin("GET", &path, &[], Body::empty()).await;
        (client, answer.unwrap())
    });
    // The file is larger than the default window of the client.
    scene.program.terminate();
    eventually("new connections are refused", || {
        Connection::open(scene.program.address).is_err()
    });
    let answer = runtime.block_on(Http2Answer::read(answer)).unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.body == file, "the file is complete");
    drop(client);
    runtime.block_on(async { tokio::task::yield_now().await });
    assert_eq!(scene.program.wait_for_exit(), Some(0));
}
