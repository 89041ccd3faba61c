//! The request event has the number of bytes that were sent, and says whether the answer was cut.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::support::{Http2Attacker, connect_from, eventually_some, peer};

const LENGTH: usize = 20 * 1024 * 1024;

/// A small buffer, so that most of an answer stays with the mirror.
const RECEIVE_BUFFER_BYTES: u32 = 16 * 1024;

/// The request event of a path and a peer.
#[track_caller]
fn event(program: &Program, source: u8, path: &str) -> Value {
    let client = peer(source).to_string();
    eventually_some("the request is logged", || {
        let events = program.request_events().into_iter();
        let mut of_it = events.filter(|event| event["client"] == *client && event["path"] == path);
        of_it.next()
    })
}

#[track_caller]
fn assert_cut(event: &Value, length: usize, received: usize) {
    assert_eq!(event["status"], 200, "{event}");
    assert_eq!(event["cut"], true, "{event}");
    let sent = usize::try_from(event["bytes"].as_u64().unwrap()).unwrap();
    assert!(
        sent < length && sent >= received,
        "{sent} of {length}, {received}"
    );
}

#[test]
fn an_answer_to_a_client_that_disconnects_is_logged_as_cut_with_the_bytes_that_were_sent() {
    let file = CrateFile::noise("left", "1.0.0", 1, LENGTH);
    let scene = Scene::with(vec![file], &[], &[]);
    let program = &scene.program;
    let path = scene.origin.files[0].download_path();

    // HTTP/1.1, where the kernel sends the file.
    let mut client = connect_from(peer(3), program.address, Some(RECEIVE_BUFFER_BYTES)).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    let mut part = vec![0; 100_000];
    client.read_exact(&mut part).unwrap();
    drop(client);
    assert_cut(&event(program, 3, &path), LENGTH, 90_000);

    // HTTP/2.
    let mut client = Http2Attacker::connect(peer(4), program.address, 100_000);
    client.get([path.as_str()]);
    let until = Instant::now() + Duration::from_secs(20);
    client.read_until(until, |client| client.body_bytes >= 100_000);
    drop(client);
    assert_cut(&event(program, 4, &path), LENGTH, 100_000);

    // git.
    let want = scene.want_everything();
    let mut client = Http2Attacker::connect(peer(5), program.address, 10_000);
    client.post(UPLOAD_PACK, &[GIT_REQUEST], &want, true, 1);
    let until = Instant::now() + Duration::from_secs(20);
    client.read_until(until, |client| client.body_bytes >= 10_000);
    drop(client);
    assert_cut(&event(program, 5, UPLOAD_PACK), LENGTH, 10_000);
}

#[test]
fn a_complete_answer_is_logged_with_its_length_and_not_as_cut() {
    let file = CrateFile::noise("whole", "1.0.0", 1, 300_000);
    let scene = Scene::with(vec![file], &[], &[]);
    let program = &scene.program;
    let path = scene.origin.files[0].download_path();
    let index = index_path(&large(0));
    for (source, path) in [(3, &path), (4, &index)] {
        let request = ("GET", path.as_str());
        let answer = crate::support::request_from(peer(source), program.address, request, &[], &[]);
        let event = event(program, source, path);
        assert_eq!(event["bytes"], answer.unwrap().body.len(), "{event}");
        assert!(event.get("cut").is_none_or(Value::is_null), "{event}");
    }
}
