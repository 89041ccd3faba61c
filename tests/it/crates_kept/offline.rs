//! `DOWNLOAD_MODE=offline`: what is held is served, and nothing is fetched.

use super::*;

/// A mirror that was online, holds the first of two files, and is offline now.
fn scene() -> Scene {
    let scene = Scene::of(2);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    let scene = scene.restarted(&[("DOWNLOAD_MODE", "offline")]);
    assert_eq!(scene.origin.fetched().len(), 1);
    scene
}

#[test]
fn what_is_held_is_served() {
    let scene = scene();
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    let path = scene.origin.files[0].download_path();
    let part = scene
        .mirror
        .request("GET", &path, &[("Range", "bytes=1-2")]);
    assert_eq!(part.status, 206);
    assert_eq!(scene.mirror.request("HEAD", &path, &[]).status, 200);
}

#[test]
fn what_is_not_held_is_404_that_says_so() {
    let scene = scene();
    let answer = scene.download(1);
    assert_fails(&answer, 404);
    let detail = answer.detail();
    assert!(
        detail.contains("kept-001") && detail.contains("1.0.0"),
        "{detail}"
    );
    assert!(
        detail.contains("offline") || detail.contains("hold"),
        "{detail}"
    );
    let unknown = scene.mirror.get("/api/v1/crates/unknown/1.0.0/download");
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.detail(), "crate `unknown` does not exist");
    assert_eq!(scene.origin.fetched().len(), 1, "upstream was asked");
}

#[test]
fn a_damaged_file_is_not_served_and_not_fetched() {
    let scene = Scene::of(1);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    let path = crate::support::held_path(&scene.store(), &scene.origin.files[0].checksum());
    let Scene {
        mirror: stopping,
        origin,
        data,
    } = scene;
    stopping.stop();
    std::fs::write(path, b"damaged").unwrap();
    let offline = [("DOWNLOAD_MODE", "offline")];
    let mirror = mirror(&origin, data.path(), &offline, |_config| ());
    assert_fails(&mirror.get(&origin.files[0].download_path()), 404);
    assert_eq!(origin.fetched().len(), 1);
}

#[test]
fn going_online_again_fetches_what_was_missing() {
    let scene = scene();
    assert_fails(&scene.download(1), 404);
    scene.restarted(&[]).ends_well();
}
