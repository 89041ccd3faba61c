//! The memory of clients that ask for much and read nothing.

use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;
use crate::support::{Http2Attacker, peer};

/// How many requests each connection sends at a time: as many as the mirror allows.
const STREAMS: usize = 128;

/// The limit for all such clients together. The release build stays below 150 MB with 64 connections.
const GROWTH_KIB_MAX: u64 = 100 * 1024;

/// The limit for memory that is not given back afterwards.
const REST_KIB_MAX: u64 = 20 * 1024;

/// The longest that a client stays. The budget of the mirror decides how many of its requests are answered.
const STAY_MAX: Duration = Duration::from_secs(12);

/// Opens `connections`, which ask and stay until all their requests are answered or the time is up. Meanwhile another
/// peer is served. Afterwards the memory is given back.
#[track_caller]
fn assert_bounded(scene: &Scene, connections: usize, ask: impl Fn(&mut Http2Attacker) + Sync) {
    let program = &scene.program;
    let before = program.anonymous_kib();
    let until = Instant::now() + STAY_MAX;
    let mut peak = before;
    let statuses = thread::scope(|scope| {
        let clients: Vec<_> = (0..connections)
            .map(|_| {
                let ask = &ask;
                scope.spawn(move || {
                    let mut client = Http2Attacker::connect(peer(GREEDY), program.address, 1);
                    ask(&mut client);
                    client.read_until(until, |client| client.settled >= STREAMS);
                    // Each client stays until the last one has its answers.
                    client
                })
            })
            .collect();
        eventually("the clients are done", || {
            peak = peak.max(program.anonymous_kib());
            assert_eq!(program.get("/livez").status, 200);
            clients.iter().all(|client| client.is_finished())
        });
        let clients: Vec<Http2Attacker> = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();
        peak = peak.max(program.anonymous_kib());
        let statuses: Vec<_> = clients.iter().map(|client| client.statuses).collect();
        let sum =
            |of: fn(&crate::support::Statuses) -> usize| statuses.iter().map(of).sum::<usize>();
        (sum(|s| s.ok), sum(|s| s.unavailable), sum(|s| s.others))
    });
    println!(
        "{before} KiB before, {peak} KiB at the peak, statuses 200, 503, others: {statuses:?}"
    );
    // All answers together are more than the account has. Whatever is not in the account is never refused.
    assert!(statuses.1 > 0, "{statuses:?}");
    let grown = peak - before;
    assert!(grown < GROWTH_KIB_MAX, "{grown} KiB more");
    eventually("memory is given back", || {
        program.anonymous_kib() < before + REST_KIB_MAX
    });
}

#[test]
fn downloads_that_nobody_reads_take_bounded_memory() {
    let files = (0..4).map(|number| {
        CrateFile::noise(
            format!("unread-{number}").leak(),
            "1.0.0",
            number,
            1_000_000,
        )
    });
    let scene = Scene::with(files.collect(), &[], &[]);
    let paths: Vec<String> = scene
        .origin
        .files
        .iter()
        .map(CrateFile::download_path)
        .collect();
    assert_bounded(&scene, 16, |client| {
        client.get(paths.iter().map(String::as_str).cycle().take(STREAMS));
    });
}

#[test]
fn metadata_that_nobody_reads_takes_bounded_memory() {
    let counts: Vec<(String, usize)> = (1..12)
        .map(|step| (format!("steps-{step}"), 8 * step))
        .collect();
    let versions: Vec<(&str, usize)> = counts
        .iter()
        .map(|(name, count)| (name.as_str(), *count))
        .collect();
    let scene = Scene::with(Vec::new(), &versions, &[]);
    // The longest answer that does not count as a large one.
    let answers = versions.iter().map(|(name, _count)| {
        let path = format!("/api/v1/crates/{name}");
        (scene.program.get(&path).body.len(), path)
    });
    let longest = answers.filter(|(length, _path)| *length < 32 * 1024).max();
    let (length, path) = longest.unwrap();
    println!("{length} bytes at {path}");
    assert!(length > 24 * 1024, "{length}");
    for path in [&path, "/api/openapi.json", "/"] {
        assert_bounded(&scene, 48, |client| {
            client.get(std::iter::repeat_n(path, STREAMS));
        });
    }
}

#[test]
fn git_requests_that_never_end_take_bounded_memory_and_leave_a_permit_for_others() {
    let scene = Scene::with(Vec::new(), &[], &[]);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
    gzip.write_all(&[b'0'; 60_000]).unwrap();
    gzip.flush().unwrap();
    // Only the beginning: the client never ends its request.
    let body = gzip.get_ref().clone();
    assert!(body.len() * STREAMS < 60_000, "more than the mirror allows");
    let headers = [GIT_REQUEST, ("content-encoding", "gzip")];
    let want = scene.want_everything();
    let mut client = Http2Attacker::connect(peer(GREEDY), scene.program.address, 1);
    client.post(UPLOAD_PACK, &headers, &body, false, STREAMS);
    for _ in 0..3 {
        let answer = fairness::fetch(&scene, OTHER, &[], &want);
        assert!(
            answer.body.len() > LARGE_INDEX_FILE_BYTES,
            "{}",
            answer.body.len()
        );
    }
    drop(client);
    assert_bounded(&scene, 16, |client| {
        client.post(UPLOAD_PACK, &headers, &body, false, STREAMS);
    });
}
