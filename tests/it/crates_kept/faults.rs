//! Every way in which an upstream can fail, for a file that fits into memory and for one that is fetched piece by piece.
//!
//! The pattern is the same each time: the failure is answered as one, nothing is held; and once the upstream is well, the
//! next try works, and what is held survives a restart.

use super::*;

/// Larger than what a mirror would want to keep in memory for each fetch.
const LARGE_LENGTH: usize = 9 * 1024 * 1024 + 1;

/// A small file and a large one.
fn sizes() -> Origin {
    Origin::with(vec![
        CrateFile::numbered(0),
        CrateFile::noise("large", "1.0.0", 1, LARGE_LENGTH),
    ])
}

/// The fault is answered by this status, and leaves nothing behind.
#[track_caller]
fn is_answered(fault: UpstreamFault, status: u16) {
    let scene = Scene::changed(sizes(), &[], be_impatient);
    scene.origin.upstream.fail(fault);
    // Both at once, since some faults take their time.
    std::thread::scope(|threads| {
        for number in 0..2 {
            let scene = &scene;
            threads.spawn(move || assert_fails(&scene.download(number), status));
        }
    });
    let held = scene.held();
    assert!(held.checksums.is_empty(), "{held:?}");
    scene.origin.upstream.heal();
    scene.ends_well();
}

/// The fault is none that a client would see.
#[track_caller]
fn does_no_harm(fault: UpstreamFault) {
    let scene = Scene::with(sizes(), &[]);
    scene.origin.upstream.fail(fault);
    scene.ends_well();
}

#[test]
fn an_upstream_that_refuses_connections_is_502() {
    let mut scene = Scene::with(sizes(), &[]);
    scene.origin.upstream.stop();
    assert_fails(&scene.download(0), 502);
    assert_fails(&scene.download(1), 502);
    scene.origin.upstream.restart();
    scene.ends_well();
}

#[test]
fn an_upstream_that_resets_connections_is_502() {
    is_answered(UpstreamFault::ResetsBeforeHead, 502);
}

#[test]
fn an_upstream_that_closes_connections_is_502() {
    is_answered(UpstreamFault::ClosesBeforeHead, 502);
}

#[test]
fn an_upstream_that_never_answers_is_504() {
    is_answered(UpstreamFault::HangsBeforeHead, 504);
}

#[test]
fn an_upstream_that_falls_silent_is_504() {
    is_answered(UpstreamFault::HangsMidBody, 504);
}

#[test]
fn a_reset_in_the_middle_is_502() {
    is_answered(UpstreamFault::ResetsMidBody, 502);
}

#[test]
fn an_end_in_the_middle_is_502() {
    is_answered(UpstreamFault::CutShort, 502);
}

#[test]
fn an_end_without_a_last_chunk_is_502() {
    is_answered(UpstreamFault::ChunkedCutShort, 502);
}

#[test]
fn wrong_bytes_are_502() {
    is_answered(UpstreamFault::WrongBytes, 502);
}

#[test]
fn half_a_file_is_502() {
    is_answered(UpstreamFault::Truncated, 502);
}

#[test]
fn a_byte_too_many_is_502() {
    is_answered(UpstreamFault::Extended, 502);
}

#[test]
fn garbage_is_502() {
    is_answered(UpstreamFault::Garbage, 502);
}

#[test]
fn a_head_without_an_end_is_502() {
    is_answered(UpstreamFault::HugeHead, 502);
}

#[test]
fn a_redirect_in_a_circle_is_502() {
    is_answered(UpstreamFault::RedirectsToItself, 502);
}

#[test]
fn a_redirect_to_another_scheme_is_502() {
    is_answered(
        UpstreamFault::RedirectsTo("file:///etc/passwd".to_owned()),
        502,
    );
}

#[test]
fn status_500_is_502() {
    is_answered(UpstreamFault::Status(500), 502);
}

#[test]
fn a_status_that_makes_no_sense_is_502() {
    for status in [204, 206, 304, 401] {
        is_answered(UpstreamFault::Status(status), 502);
    }
}

#[test]
fn status_503_is_503() {
    is_answered(UpstreamFault::RetryAfter(503, "0"), 503);
}

#[test]
fn status_429_is_503() {
    is_answered(UpstreamFault::RetryAfter(429, "0"), 503);
}

#[test]
fn a_slow_upstream_is_waited_for_while_it_sends_anything() {
    let scene = Scene::of(1);
    scene.origin.upstream.fail(UpstreamFault::Trickles);
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| assert_serves(&scene.mirror, &scene.origin.files[0]));
        eventually("the upstream is asked", || scene.requests(0) == 1);
        // Nothing of it may be found before all of it is there.
        assert!(scene.held().checksums.is_empty());
        scene.origin.upstream.open_gate();
        asking.join().unwrap();
    });
    assert_eq!(scene.requests(0), 1);
    scene.ends_well();
}

#[test]
fn what_follows_the_file_on_the_connection_is_not_taken() {
    does_no_harm(UpstreamFault::RunsOver);
}

#[test]
fn a_file_without_a_length_is_taken() {
    does_no_harm(UpstreamFault::Chunked);
}

#[test]
fn a_file_that_is_said_to_be_compressed_is_taken_as_it_is() {
    does_no_harm(UpstreamFault::ClaimsGzip);
}
