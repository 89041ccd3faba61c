//! `DOWNLOAD_MODE=offline`: the mirror serves stored files, and fetches nothing.

use super::counted::count;
use super::*;

/// An offline mirror that has stored the first of two files.
fn scene() -> Scene {
    let scene = Scene::of(2);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    let scene = scene.restarted(&[("DOWNLOAD_MODE", "offline")]);
    assert_eq!(scene.origin.fetched().len(), 1);
    scene
}

#[test]
fn a_stored_file_is_served() {
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
fn a_missing_file_gives_404_with_the_reason() {
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
    let path = crate::support::stored_path(&scene.store(), &scene.origin.files[0].checksum());
    let Scene {
        mirror: stopping,
        origin,
        data,
    } = scene;
    stopping.stop();
    std::fs::write(&path, b"damaged").unwrap();
    let offline = [("DOWNLOAD_MODE", "offline")];
    let mirror = mirror(&origin, data.path(), &offline, |_config| ());
    for _ in 0..3 {
        assert_fails(&mirror.get(&origin.files[0].download_path()), 404);
    }
    assert_eq!(origin.fetched().len(), 1);
    // The mirror does not remove the file: somebody may be able to repair it.
    assert_eq!(std::fs::read(&path).unwrap(), b"damaged");
    assert_eq!(count(&mirror, "store_damaged_files_total"), 1);
    std::fs::write(&path, origin.files[0].bytes()).unwrap();
    assert_serves(&mirror, &origin.files[0]);
}

#[test]
fn a_pruned_index_gives_the_reason_why_a_version_is_missing() {
    let offline = [("DOWNLOAD_MODE", "offline"), ("INDEX_PRUNED", "true")];
    let scene = scene().restarted(&offline);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    for (path, text) in [
        (
            scene.origin.files[1].download_path(),
            "crate `kept-001` does not exist",
        ),
        (
            "/api/v1/crates/kept-000/9.0.0/download".to_owned(),
            "crate `kept-000` does not have a version `9.0.0`",
        ),
    ] {
        let answer = scene.mirror.get(&path);
        assert_fails(&answer, 404);
        let more = "This mirror is offline and lists only versions whose file it has.";
        assert_eq!(answer.detail(), format!("{text}. {more}"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let commit = scene.origin.index.head();
        assert_eq!(answer.header("x-index-commit"), Some(commit.as_str()));
    }
    // Other answers are the ones of crates.io.
    let metadata = scene.mirror.metadata("kept-001");
    assert_eq!(metadata.detail(), "crate `kept-001` does not exist");
}

#[test]
fn a_mirror_that_is_online_again_fetches_missing_crates() {
    let scene = scene();
    assert_fails(&scene.download(1), 404);
    scene.restarted(&[]).ends_well();
}
