//! Every way in which an upstream can fail, for a file that is fetched in memory and for a large one that is fetched in
//! parts.
//!
//! Each test has the same steps: the fault gives an error, and nothing is stored. When the upstream works again, the
//! next request succeeds, and the stored file survives a restart.

use super::*;

/// More than a fetch keeps in memory.
const LARGE_LENGTH: usize = 11 * 512 * 1024;

/// A small file and a large one.
fn sizes() -> Origin {
    Origin::with(vec![
        CrateFile::numbered(0),
        CrateFile::noise("large", "1.0.0", 1, LARGE_LENGTH),
    ])
}

/// The answer to the fault has this status, and nothing is stored.
#[track_caller]
fn is_answered(fault: UpstreamFault, status: u16) {
    let scene = Scene::changed(sizes(), &[], be_impatient);
    scene.origin.upstream.fail(fault);
    // Both requests at the same time, because some faults take a while.
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

/// Clients do not notice the fault.
#[track_caller]
fn does_no_harm(fault: UpstreamFault) {
    let scene = Scene::with(sizes(), &[]);
    scene.origin.upstream.fail(fault);
    scene.ends_well();
}

#[test]
fn an_upstream_that_refuses_connections_gives_502() {
    let mut scene = Scene::with(sizes(), &[]);
    scene.origin.upstream.stop();
    assert_fails(&scene.download(0), 502);
    assert_fails(&scene.download(1), 502);
    scene.origin.upstream.restart();
    scene.ends_well();
}

#[test]
fn an_upstream_that_resets_connections_gives_502() {
    is_answered(UpstreamFault::ResetsBeforeHead, 502);
}

#[test]
fn an_upstream_that_closes_connections_gives_502() {
    is_answered(UpstreamFault::ClosesBeforeHead, 502);
}

#[test]
fn an_upstream_that_never_answers_gives_504() {
    is_answered(UpstreamFault::HangsBeforeHead, 504);
}

#[test]
fn an_upstream_that_stops_sending_gives_504() {
    is_answered(UpstreamFault::HangsMidBody, 504);
}

#[test]
fn a_reset_in_the_middle_of_a_file_gives_502() {
    is_answered(UpstreamFault::ResetsMidBody, 502);
}

#[test]
fn a_connection_that_ends_in_the_middle_of_a_file_gives_502() {
    is_answered(UpstreamFault::CutShort, 502);
}

#[test]
fn a_missing_last_chunk_gives_502() {
    is_answered(UpstreamFault::ChunkedCutShort, 502);
}

#[test]
fn wrong_bytes_give_502() {
    is_answered(UpstreamFault::WrongBytes, 502);
}

#[test]
fn a_truncated_file_gives_502() {
    is_answered(UpstreamFault::Truncated, 502);
}

#[test]
fn a_file_with_an_additional_byte_gives_502() {
    is_answered(UpstreamFault::Extended, 502);
}

#[test]
fn an_answer_that_is_not_http_gives_502() {
    is_answered(UpstreamFault::Garbage, 502);
}

#[test]
fn an_endless_head_gives_502() {
    is_answered(UpstreamFault::HugeHead, 502);
}

#[test]
fn a_redirect_loop_gives_502() {
    is_answered(UpstreamFault::RedirectsToItself, 502);
}

#[test]
fn a_redirect_to_another_scheme_gives_502() {
    is_answered(
        UpstreamFault::RedirectsTo("file:///etc/passwd".to_owned()),
        502,
    );
}

#[test]
fn status_500_gives_502() {
    is_answered(UpstreamFault::Status(500), 502);
}

#[test]
fn an_unexpected_status_gives_502() {
    let scene = Scene::of(1);
    for status in [204, 206, 304, 400, 401] {
        scene.origin.upstream.fail(UpstreamFault::Status(status));
        assert_fails(&scene.download(0), 502);
        scene.origin.upstream.heal();
    }
    scene.ends_well();
}

#[test]
fn status_503_gives_503() {
    is_answered(UpstreamFault::RetryAfter(503, "0"), 503);
}

#[test]
fn status_429_gives_503() {
    is_answered(UpstreamFault::RetryAfter(429, "0"), 503);
}

#[test]
fn a_slow_upstream_does_not_time_out_while_it_sends_bytes() {
    let scene = Scene::of(1);
    scene.origin.upstream.fail(UpstreamFault::Trickles);
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| assert_serves(&scene.mirror, &scene.origin.files[0]));
        eventually("the upstream is asked", || scene.requests(0) == 1);
        // An incomplete file must not be found.
        assert!(scene.held().checksums.is_empty());
        scene.origin.upstream.open_gate();
        asking.join().unwrap();
    });
    assert_eq!(scene.requests(0), 1);
    scene.ends_well();
}

#[test]
fn bytes_after_the_file_on_the_connection_are_ignored() {
    does_no_harm(UpstreamFault::RunsOver);
}

#[test]
fn a_file_without_a_content_length_is_accepted() {
    does_no_harm(UpstreamFault::Chunked);
}

#[test]
fn a_file_with_a_content_encoding_is_stored_as_it_is() {
    does_no_harm(UpstreamFault::ClaimsGzip);
}
