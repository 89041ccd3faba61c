//! Several upstreams, several tries, and redirects.

use super::*;
use crate::support::CrateUpstream;

/// A mirror of one crate with two upstreams that both have it. The first is the origin's.
fn two_upstreams() -> (Scene, CrateUpstream) {
    let origin = Origin::of(1);
    let second = CrateUpstream::start(&origin.files);
    let both = format!("{}  {}", origin.upstream.template(), second.template());
    let scene = Scene::changed(origin, &[("DOWNLOAD_URL", &both)], be_impatient);
    (scene, second)
}

/// With this fault the first upstream is asked so many times before the second one is.
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
fn the_first_upstream_that_works_is_the_only_one_asked() {
    let (scene, second) = two_upstreams();
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!((scene.requests(0), second.seen().len()), (1, 0));
}

#[test]
fn the_next_upstream_comes_at_once_after_corrupt_bytes() {
    for fault in [
        UpstreamFault::WrongBytes,
        UpstreamFault::Truncated,
        UpstreamFault::Extended,
    ] {
        moves_on_after(fault, 1);
    }
}

#[test]
fn the_next_upstream_comes_at_once_after_a_time_out() {
    moves_on_after(UpstreamFault::HangsBeforeHead, 1);
    moves_on_after(UpstreamFault::HangsMidBody, 1);
}

#[test]
fn the_next_upstream_comes_at_once_when_the_file_is_missing() {
    moves_on_after(UpstreamFault::Status(403), 1);
    moves_on_after(UpstreamFault::Status(404), 1);
}

#[test]
fn the_next_upstream_comes_after_three_tries_that_may_have_been_bad_luck() {
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
fn the_next_upstream_comes_when_connections_are_refused() {
    let (mut scene, second) = two_upstreams();
    scene.origin.upstream.stop();
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!(second.seen().len(), 1);
}

#[test]
fn bad_luck_that_ends_after_two_tries_does_not_show() {
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
fn an_upstream_that_asks_for_patience_gets_it() {
    let scene = Scene::of(1);
    let patience = UpstreamFault::RetryAfter(429, "20");
    scene.origin.upstream.fail(patience);
    let answer = scene.download(0);
    assert_fails(&answer, 503);
    // It is not asked again before it said: not by tries, and not by the next client.
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
    // Relative, then to another server.
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
fn upstreams_see_who_asks_and_that_bytes_shall_come_as_they_are() {
    let origin = Origin::of(1);
    let scene = Scene::with(origin, &[("CONTACT", "ops@example.com")]);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    let seen = &scene.origin.upstream.seen()[0];
    let expected = "crates-io-mirror/0.1.0 (ops@example.com)";
    assert_eq!(seen.user_agent, expected);
    let encoding = seen.accept_encoding.as_deref();
    assert!(matches!(encoding, None | Some("identity")), "{seen:?}");
}
