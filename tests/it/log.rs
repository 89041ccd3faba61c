//! The log: what an event may contain, and what a blocked reader costs.

use tempfile::TempDir;

use crate::support::{Connection, GitIndex, Program, borrowed, eventually, eventually_some};

/// Nearly the longest head of a request that the mirror accepts.
const LONG_PATH_BYTES: usize = 60_000;

/// Requests whose paths are together much longer than the mirror may keep.
const REQUESTS: usize = 1_500;

/// The limit for the memory of events that are not read.
const GROWTH_KIB_MAX: u64 = 32 * 1024;

/// A request line that HTTP does not allow and hyper accepts: its bytes are not ASCII.
fn long_request() -> Vec<u8> {
    let path = "京".repeat(LONG_PATH_BYTES / "京".len());
    format!("GET /{path} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

fn settings(index: &GitIndex, data: &TempDir) -> [(&'static str, String); 2] {
    [
        ("GIT_REPO_URL", index.path().to_str().unwrap().to_owned()),
        ("DATA_DIR", data.path().to_str().unwrap().to_owned()),
    ]
}

fn send(program: &Program, request: &[u8], times: usize) {
    let mut connection = Connection::open(program.address).unwrap();
    for _ in 0..times {
        connection.send(request).unwrap();
        assert_eq!(connection.read_answer(false).unwrap().status, 404);
    }
}

#[test]
fn a_long_path_that_is_not_ascii_is_truncated_in_the_log() {
    let (index, data) = (GitIndex::with_fixtures(), TempDir::new().unwrap());
    let program = Program::start(&borrowed(&settings(&index, &data)));
    send(&program, &long_request(), 1);
    let event = eventually_some("the request is logged", || {
        let output = program.output();
        let mut lines = output.lines().map(str::to_owned);
        lines.find(|line| line.contains('京'))
    });
    assert!(event.len() < 1_000, "{} bytes", event.len());
    let event: serde_json::Value = serde_json::from_str(&event).unwrap();
    let path = event["path"].as_str().unwrap();
    assert!((398..=400).contains(&path.len()), "{}", path.len());
}

#[test]
fn a_log_that_nobody_reads_costs_little_memory_and_delays_nothing() {
    let (index, data) = (GitIndex::with_fixtures(), TempDir::new().unwrap());
    let mut program = Program::start_with_unread_log(&borrowed(&settings(&index, &data)));
    program.wait_until_ready();
    let before = program.anonymous_kib();
    send(&program, &long_request(), REQUESTS);
    let growth = program.anonymous_kib().saturating_sub(before);
    println!("{growth} KiB more");
    assert!(growth < GROWTH_KIB_MAX, "{growth} KiB");
    assert_eq!(program.get("/livez").status, 200);
    let long = "x".repeat(400);
    let request = format!("GET /{long} HTTP/1.1\r\nHost: h\r\nUser-Agent: {long}\r\n\r\n");
    eventually("lost events are counted", || {
        send(&program, request.as_bytes(), 500);
        let metrics = program.get("/metrics").text();
        let count = metrics
            .lines()
            .find_map(|line| line.strip_prefix("crates_io_mirror_log_events_dropped_total "));
        count.unwrap().parse::<f64>().unwrap() > 0.0
    });
    program.terminate();
    assert_eq!(program.wait_for_exit(), Some(0));
}
