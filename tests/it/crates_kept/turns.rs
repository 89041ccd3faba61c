//! Several upstreams, retries, and redirects.

use super::*;
use crate::support::CrateUpstream;

/// A mirror of one crate with two upstreams. Both have the file. The first one is the upstream of the origin.
fn two_upstreams() -> (Scene, CrateUpstream) {
    let origin = Origin::of(1);
    let second = CrateUpstream::start(&origin.files);
    let both = format!("{}  {}", origin.upstream.template(), second.template());
    let scene = Scene::changed(origin, &[("DOWNLOAD_URL", &both)], be_impatient);
    (scene, second)
}

/// With this fault, the first upstream gets `tries` requests before the second one gets its first.
#[track_caller]
fn moves_on_after(fault: UpstreamFault, tries: usize) {
    let (scene, second) = two_upstreams();
    scene.origin.upstream.fail(fault);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!(scene.requests(0), tries);
    assert_eq!(second.seen().len(), 1);
    assert_eq!(scene.held().checksums.len(), 1);
}

#[test]
fn if_the_first_upstream_works_the_second_one_gets_no_request() {
    let (scene, second) = two_upstreams();
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!((scene.requests(0), second.seen().len()), (1, 0));
}

#[test]
fn after_corrupt_bytes_the_next_upstream_is_tried_at_once() {
    for fault in [
        UpstreamFault::WrongBytes,
        UpstreamFault::Truncated,
        UpstreamFault::Extended,
    ] {
        moves_on_after(fault, 1);
    }
}

#[test]
fn after_a_time_out_the_next_upstream_is_tried_at_once() {
    moves_on_after(UpstreamFault::HangsBeforeHead, 1);
    moves_on_after(UpstreamFault::HangsMidBody, 1);
}

#[test]
fn if_the_file_is_missing_the_next_upstream_is_tried_at_once() {
    moves_on_after(UpstreamFault::Status(403), 1);
    moves_on_after(UpstreamFault::Status(404), 1);
}

#[test]
fn after_three_temporary_failures_the_next_upstream_is_tried() {
    for fault in [
        UpstreamFault::ResetsBeforeHead,
        UpstreamFault::Status(500),
        UpstreamFault::RetryAfter(503, "0"),
        UpstreamFault::RetryAfter(429, "0"),
    ] {
        moves_on_after(fault, 3);
    }
}

#[test]
fn if_connections_are_refused_the_next_upstream_is_tried() {
    let (mut scene, second) = two_upstreams();
    scene.origin.upstream.stop();
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!(second.seen().len(), 1);
}

#[test]
fn two_temporary_failures_are_retried() {
    for fault in [
        UpstreamFault::ResetsBeforeHead,
        UpstreamFault::Status(500),
        UpstreamFault::RetryAfter(429, "0"),
    ] {
        let scene = Scene::of(1);
        scene.origin.upstream.fail_times(2, fault);
        assert_serves(&scene.mirror, &scene.origin.files[0]);
        assert_eq!(scene.requests(0), 3);
    }
}

#[test]
fn the_mirror_honours_retry_after_of_an_upstream() {
    let scene = Scene::of(1);
    let patience = UpstreamFault::RetryAfter(429, "20");
    scene.origin.upstream.fail(patience);
    let answer = scene.download(0);
    assert_fails(&answer, 503);
    // Neither a retry nor the next client asks before that time.
    assert_eq!(scene.requests(0), 1);
    let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(wait <= 20, "{wait}");
}

#[test]
fn redirects_are_followed() {
    let origin = Origin::of(1);
    let file = &origin.files[0];
    let elsewhere = CrateUpstream::start(&[]);
    elsewhere.hold("/elsewhere", file.content.clone());
    // First a relative redirect, then one to another server.
    let target = elsewhere.url("/elsewhere");
    origin.upstream.hold("/next", file.content.clone());
    let to_next = UpstreamFault::RedirectsTo("/next".to_owned());
    origin.upstream.fail_path(&file.path(), to_next);
    let to_other = UpstreamFault::RedirectsTo(target);
    origin.upstream.fail_path("/next", to_other);
    let scene = Scene::with(origin, &[]);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!(elsewhere.requests("/elsewhere"), 1);
}

#[test]
fn requests_to_upstreams_have_a_user_agent_and_ask_for_no_compression() {
    let origin = Origin::of(1);
    let scene = Scene::with(origin, &[("CONTACT", "ops@example.com")]);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    let seen = &scene.origin.upstream.seen()[0];
    let expected = "crates-io-mirror/0.1.0 (ops@example.com)";
    assert_eq!(seen.user_agent, expected);
    let encoding = seen.accept_encoding.as_deref();
    assert!(matches!(encoding, None | Some("identity")), "{seen:?}");
}
