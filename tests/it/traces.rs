//! Traces: what a collector gets, and what a collector that hangs costs. Only with the feature `otlp`: `.ci/otlp` runs
//! them.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{AcceptLoop, Connection, Mirror, Request, peer, request_from};

/// A stop can wait 3 s for a collector that hangs. The rest is for a busy machine.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);

/// More spans than can wait.
const REQUESTS: usize = 2_500;

/// A collector on loopback.
struct Collector {
    accepting: AcceptLoop,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Collector {
    /// A collector that answers all requests, or none.
    fn start(answers: bool) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let accepting = AcceptLoop::start(AcceptLoop::listen(), {
            let seen = Arc::clone(&seen);
            move |mut stream| {
                let Ok(request) = Request::read(&stream) else {
                    return;
                };
                seen.lock().unwrap().push(request);
                if answers {
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    drop(stream.write_all(answer));
                } else {
                    // Until the client gives up.
                    drop(stream.peek(&mut [0]));
                }
            }
        });
        Self { accepting, seen }
    }

    fn mirror(&self, data: &TempDir) -> Mirror {
        Mirror::start(&[
            ("GIT_REPO_URL", "http://127.0.0.1:1/index.git"),
            ("DATA_DIR", data.path().to_str().unwrap()),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                &format!("http://{}", self.accepting.address()),
            ),
            ("OTEL_SERVICE_NAME", "mirror-of-the-test"),
            ("TRUSTED_PROXIES", "127.0.0.1"),
        ])
    }
}

/// A field of a protobuf message: its tag and its bytes, which are fewer than 128.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).unwrap();
    [&[tag, length], bytes].concat()
}

#[test]
fn a_collector_gets_a_span_of_each_request_with_its_parent() {
    let (collector, data) = (Collector::start(true), TempDir::new().unwrap());
    let mirror = collector.mirror(&data);
    let get = |path: &str, traceparent: &str, id: &str| {
        let headers = [("traceparent", traceparent), ("x-request-id", id)];
        mirror.request("GET", path, &headers).status
    };
    let (trace, parent, unwanted) = ([0xa1_u8; 16], [0xb2_u8; 8], [0xc3_u8; 16]);
    let (of_client, span_of_client) = ([0xd4_u8; 16], [0xe5_u8; 8]);
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let sampled = format!("00-{}-{}-01", hex(&trace), hex(&parent));
    let not_sampled = format!("00-{}-{}-00", hex(&unwanted), hex(&parent));
    let path = "/api/v1/crates/a/1.0.0/download?token=s3cret";
    assert_eq!(get(path, &sampled, "with-parent"), 302);
    assert_eq!(get("/index/se/rd/serde", "nonsense", "without-parent"), 503);
    assert_eq!(get("/livez", &not_sampled, "not-sampled"), 200);
    assert_eq!(mirror.request("BREW", "/nowhere", &[]).status, 404);
    // Whoever is no trusted proxy decides nothing, neither that a request is sampled nor that it is not.
    for flags in ["00", "01"] {
        let named = format!("00-{}-{}-{flags}", hex(&of_client), hex(&span_of_client));
        let id = format!("untrusted-{flags}");
        let headers = [("traceparent", named.as_str()), ("x-request-id", &id)];
        let path = ("GET", "/livez");
        let answer = request_from(peer(2), mirror.address, path, &headers, &[]);
        assert_eq!(answer.unwrap().status, 200);
    }
    // A stop sends what waits.
    mirror.stop();

    let seen = collector.seen.lock().unwrap();
    assert!(!seen.is_empty());
    for request in seen.iter() {
        assert_eq!(
            (request.method.as_str(), request.target.as_str()),
            ("POST", "/v1/traces")
        );
        assert_eq!(
            request.header("content-type"),
            Some("application/x-protobuf")
        );
    }
    let sent: Vec<u8> = seen
        .iter()
        .flat_map(|request| request.body.clone())
        .collect();
    let contains = |part: &[u8]| sent.windows(part.len()).any(|at| at == part);
    // Fields of a span: 0x0a trace id, 0x22 id of the parent, 0x2a name, 0x30 kind (2 is a server).
    assert!(contains(&field(0x0a, &trace)), "no span of the trace");
    let named = field(0x2a, b"GET /api/v1/crates/{name}/{version}/download");
    let after_parent = [field(0x22, &parent), named, vec![0x30, 2]].concat();
    assert!(
        contains(&after_parent),
        "no span with this parent, name and kind"
    );
    // Fields of an attribute: the key, and 0x12 a value, in which 0x18 is a number and 0x0a a text.
    let status = [
        b"http.response.status_code",
        &field(0x12, &[0x18, 0xae, 0x02])[..],
    ]
    .concat();
    assert!(contains(&status), "no status 302");
    // What an untrusted client names is a link: 0x0a is its trace, and 0x12 its span. It is never a parent.
    let link = [field(0x0a, &of_client), field(0x12, &span_of_client)].concat();
    let links = sent.windows(link.len()).filter(|at| *at == link).count();
    assert_eq!(links, 2);
    let traces = field(0x0a, &of_client);
    let traces = sent.windows(traces.len()).filter(|at| *at == traces);
    assert_eq!(traces.count(), 2, "a span is part of the client's trace");
    assert!(!contains(&field(0x22, &span_of_client)));
    for text in [
        "untrusted-00",
        "untrusted-01",
        "mirror-of-the-test",
        "with-parent",
        "without-parent",
        "GET /index/{path}",
        "/api/v1/crates/a/1.0.0/download",
        "http.response.body.size",
        "127.0.0.1",
        "_OTHER",
    ] {
        assert!(contains(text.as_bytes()), "{text}");
    }
    for text in ["s3cret", "token", "not-sampled", "nonsense", "BREW"] {
        assert!(!contains(text.as_bytes()), "{text}");
    }
    assert!(!contains(&unwanted));
}

#[test]
fn a_collector_that_hangs_delays_no_request_and_a_stop_only_for_seconds() {
    let (collector, data) = (Collector::start(false), TempDir::new().unwrap());
    let mirror = collector.mirror(&data);
    let mut connection = Connection::open(mirror.address).unwrap();
    let request = b"GET /api/v1/crates/a/1.0.0/download HTTP/1.1\r\nHost: h\r\n\r\n";
    for _ in 0..REQUESTS {
        connection.send(request).unwrap();
        assert_eq!(connection.read_answer(false).unwrap().status, 302);
    }
    drop(connection);
    let began = Instant::now();
    mirror.stop();
    let took = began.elapsed();
    println!("stopped after {took:?}");
    assert!(took < STOP_TIME_MAX, "{took:?}");
    assert!(!collector.seen.lock().unwrap().is_empty());
}
