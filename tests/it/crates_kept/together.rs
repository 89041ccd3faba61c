//! Many clients that ask for the same files at the same time.

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::support::Connection;

const CLIENTS: usize = 200;
const CRATES: usize = 100;

fn request(file: &CrateFile) -> Vec<u8> {
    let path = file.download_path();
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes()
}

/// Sends a request for a file, and does not wait for the answer.
fn ask(scene: &Scene, number: usize) -> Connection {
    let mut connection = Connection::open(scene.mirror.address).unwrap();
    let request = request(&scene.origin.files[number]);
    connection.send(&request).unwrap();
    connection
}

#[test]
fn two_hundred_clients_of_a_hundred_crates_cost_a_hundred_fetches() {
    let scene = Scene::of(CRATES);
    // The upstream holds back the file that all clients ask for first, so all clients wait there.
    let upstream = &scene.origin.upstream;
    upstream.fail_path(
        &scene.origin.files[0].path(),
        UpstreamFault::HangsBeforeHead,
    );
    let expected: Vec<Vec<u8>> = scene.origin.files.iter().map(CrateFile::bytes).collect();
    let (begin, asked) = (Barrier::new(CLIENTS), AtomicUsize::new(0));
    std::thread::scope(|threads| {
        for client in 0..CLIENTS {
            let (scene, expected, begin, asked) = (&scene, &expected, &begin, &asked);
            threads.spawn(move || {
                let mut connection = Connection::open(scene.mirror.address).unwrap();
                begin.wait();
                for step in 0..CRATES {
                    // Half of the clients ask in the opposite order.
                    let number = if client % 2 == 0 || step == 0 {
                        step
                    } else {
                        CRATES - step
                    };
                    let request = request(&scene.origin.files[number]);
                    connection.send(&request).unwrap();
                    asked.fetch_add(1, Ordering::SeqCst);
                    let answer = connection.read_answer(false).unwrap();
                    assert_eq!(answer.status, 200, "{answer:?}");
                    assert!(answer.body == expected[number]);
                }
            });
        }
        eventually("all wait for the first file", || {
            asked.load(Ordering::SeqCst) == CLIENTS && scene.requests(0) == 1
        });
        upstream.open_gate();
    });
    let fetched = scene.origin.fetched();
    assert_eq!(fetched.len(), CRATES, "{fetched:?}");
    assert_eq!(scene.held().checksums.len(), CRATES);
    println!("at most {} fetches at a time", upstream.most_in_flight());
}

#[test]
fn a_client_that_disconnects_does_not_affect_other_waiting_clients() {
    let scene = Scene::of(1);
    scene.origin.upstream.fail(UpstreamFault::HangsMidBody);
    let first = ask(&scene, 0);
    eventually("the fetch has begun", || scene.requests(0) == 1);
    let mut second = ask(&scene, 0);
    drop(first);
    scene.origin.upstream.open_gate();
    let answer = second.read_answer(false).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body == scene.origin.files[0].bytes());
    assert_eq!(scene.requests(0), 1);
}

#[test]
fn a_fetch_continues_after_all_clients_have_disconnected() {
    let scene = Scene::of(1);
    scene.origin.upstream.fail(UpstreamFault::HangsMidBody);
    let only = ask(&scene, 0);
    eventually("the fetch has begun", || scene.requests(0) == 1);
    drop(only);
    // After this answer, the mirror has had time to notice.
    assert_eq!(scene.mirror.get("/livez").status, 200);
    scene.origin.upstream.open_gate();
    wait_until_stored(&scene.store(), &scene.origin.files[0]);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!(scene.requests(0), 1);
}

#[test]
fn a_request_that_waits_too_long_gets_503_and_the_fetch_continues() {
    let scene = Scene::changed(Origin::of(1), &[], |config| {
        config.fetch_wait_max = Duration::from_millis(200);
    });
    scene.origin.upstream.fail(UpstreamFault::HangsMidBody);
    for _ in 0..2 {
        assert_fails(&scene.download(0), 503);
    }
    scene.origin.upstream.open_gate();
    wait_until_stored(&scene.store(), &scene.origin.files[0]);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!(scene.requests(0), 1);
}

#[test]
fn a_fetch_that_hangs_delays_no_other_file() {
    let scene = Scene::of(3);
    let hangs = scene.origin.files[0].path();
    let upstream = &scene.origin.upstream;
    upstream.fail_path(&hangs, UpstreamFault::HangsBeforeHead);
    let mut waiting = ask(&scene, 0);
    eventually("the fetch has begun", || scene.requests(0) == 1);
    for number in [1, 2] {
        assert_serves(&scene.mirror, &scene.origin.files[number]);
    }
    upstream.open_gate();
    assert_eq!(waiting.read_answer(false).unwrap().status, 200);
}

#[test]
fn many_fetches_that_hang_delay_no_stored_file() {
    const HANGING: usize = 40;
    let scene = Scene::of(HANGING + 1);
    assert_serves(&scene.mirror, &scene.origin.files[HANGING]);
    scene.origin.upstream.fail(UpstreamFault::HangsBeforeHead);
    let mut waiting: Vec<Connection> = (0..HANGING).map(|number| ask(&scene, number)).collect();
    eventually("fetches hang", || scene.origin.fetched().len() > 10);
    assert_serves(&scene.mirror, &scene.origin.files[HANGING]);
    assert_eq!(scene.mirror.metadata("kept-000").status, 200);
    scene.origin.upstream.open_gate();
    for connection in &mut waiting {
        assert_eq!(connection.read_answer(false).unwrap().status, 200);
    }
    let most = scene.origin.upstream.most_in_flight();
    assert!(most < HANGING, "too many fetches at a time: {most}");
}

#[test]
fn all_requests_that_wait_for_a_fetch_get_its_error() {
    let scene = Scene::of(1);
    scene.origin.upstream.fail(UpstreamFault::WrongBytes);
    let answers: Vec<u16> = std::thread::scope(|threads| {
        let asking: Vec<_> = (0..20)
            .map(|_| threads.spawn(|| scene.download(0).status))
            .collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(answers, [502; 20]);
    // A client that comes after the end of a fetch starts another one. There are never two at a time.
    assert_eq!(scene.origin.upstream.most_in_flight(), 1);
    scene.origin.upstream.heal();
    scene.ends_well();
}

#[test]
fn a_stop_does_not_wait_for_an_upstream_that_hangs() {
    let scene = Scene::of(1);
    scene.origin.upstream.fail(UpstreamFault::HangsMidBody);
    let waiting = ask(&scene, 0);
    eventually("the fetch has begun", || scene.requests(0) == 1);
    drop(waiting);
    scene.origin.upstream.heal();
    scene.restarted(&[]).ends_well();
}
