//! Files that the index lists and no upstream has.

use super::*;

#[test]
fn status_404_and_403_give_404() {
    for status in [404, 403] {
        let scene = Scene::of(1);
        scene.origin.upstream.fail(UpstreamFault::Status(status));
        assert_fails(&scene.download(0), 404);
        assert!(scene.held().checksums.is_empty());
    }
}

#[test]
fn a_missing_file_is_remembered_and_requested_once() {
    let scene = Scene::of(2);
    scene.origin.upstream.remove(&scene.origin.files[0].path());
    for _ in 0..10 {
        assert_fails(&scene.download(0), 404);
    }
    assert_eq!(scene.requests(0), 1);
    // The mirror remembers this file only.
    assert_serves(&scene.mirror, &scene.origin.files[1]);
}

#[test]
fn a_missing_file_is_requested_again_later() {
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
fn a_file_is_missing_only_if_no_upstream_has_it() {
    let origin = Origin::of(1);
    let mut other = crate::support::CrateUpstream::start(&[]);
    let both = format!("{} {}", origin.upstream.template(), other.template());
    origin.upstream.fail(UpstreamFault::Status(404));
    let scene = Scene::changed(origin, &[("DOWNLOAD_URL", &both)], |config| {
        config.missing_remembered = Duration::ZERO;
    });
    // The other upstream does not have the file, either.
    assert_fails(&scene.download(0), 404);
    // An upstream that is stopped may have the file.
    other.stop();
    assert_fails(&scene.download(0), 502);
}
