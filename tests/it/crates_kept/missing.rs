//! Files that the index lists and no upstream has.

use super::*;

#[test]
fn status_404_and_403_are_404() {
    for status in [404, 403] {
        let scene = Scene::of(1);
        scene.origin.upstream.fail(UpstreamFault::Status(status));
        assert_fails(&scene.download(0), 404);
        assert!(scene.held().checksums.is_empty());
    }
}

#[test]
fn a_missing_file_is_asked_for_once_while_that_is_remembered() {
    let scene = Scene::of(2);
    scene.origin.upstream.remove(&scene.origin.files[0].path());
    for _ in 0..10 {
        assert_fails(&scene.download(0), 404);
    }
    assert_eq!(scene.requests(0), 1);
    // It is that file which is remembered, and no other.
    assert_serves(&scene.mirror, &scene.origin.files[1]);
}

#[test]
fn a_missing_file_is_asked_for_again_later() {
    let scene = Scene::changed(Origin::of(1), &[], |config| {
        config.missing_remembered = Duration::from_millis(100);
    });
    scene.origin.upstream.fail(UpstreamFault::Status(404));
    assert_fails(&scene.download(0), 404);
    scene.origin.upstream.heal();
    eventually("the file is asked for again", || {
        scene.download(0).status == 200
    });
    scene.ends_well();
}

#[test]
fn a_file_is_missing_only_if_every_upstream_says_so() {
    let origin = Origin::of(1);
    let mut other = crate::support::CrateUpstream::start(&[]);
    let both = format!("{} {}", origin.upstream.template(), other.template());
    origin.upstream.fail(UpstreamFault::Status(404));
    let scene = Scene::changed(origin, &[("DOWNLOAD_URL", &both)], |config| {
        config.missing_remembered = Duration::ZERO;
    });
    // The other one has nothing, either.
    assert_fails(&scene.download(0), 404);
    // Nobody knows what this one has.
    other.stop();
    assert_fails(&scene.download(0), 502);
}
