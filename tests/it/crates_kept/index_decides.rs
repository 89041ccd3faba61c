//! The index decides which versions exist. An unlisted version is `404`, even if its file is stored. A new one is found
//! at once.

use super::*;
use crate::support::{CrateUpstream, GitServer};

/// Longer than any test takes.
const NEVER: Option<Duration> = Some(Duration::from_secs(3600));

#[test]
fn an_unlisted_version_gives_404_and_is_not_fetched() {
    let origin = Origin::of(1);
    // The upstream may have the file, but nothing could verify it.
    let unlisted = CrateFile::pack("kept-000", "2.0.0", &[]);
    let unknown = CrateFile::pack("unknown", "1.0.0", &[]);
    for file in [&unlisted, &unknown] {
        origin.upstream.hold(&file.path(), file.content.clone());
    }
    let scene = Scene::with(origin, &[]);
    for (file, text) in [
        (
            &unlisted,
            "crate `kept-000` does not have a version `2.0.0`",
        ),
        (&unknown, "crate `unknown` does not exist"),
    ] {
        let answer = scene.mirror.get(&file.download_path());
        assert_fails(&answer, 404);
        assert_eq!(answer.detail(), text);
        let commit = scene.origin.index.head();
        assert_eq!(answer.header("x-index-commit"), Some(commit.as_str()));
    }
    assert!(scene.origin.fetched().is_empty());
    assert!(scene.held().checksums.is_empty());
}

#[test]
fn a_bad_version_or_name_gives_the_same_error_as_in_redirect_mode() {
    let scene = Scene::of(1);
    let bad = scene.mirror.get("/api/v1/crates/kept-000/one/download");
    assert_eq!(bad.status, 400, "{bad:?}");
    let no_name = scene
        .mirror
        .get("/api/v1/crates/..%2f..%2fetc/1.0.0/download");
    assert_eq!(no_name.status, 404, "{no_name:?}");
    assert!(scene.origin.fetched().is_empty());
}

#[test]
fn a_new_version_is_found_by_the_first_request_for_it() {
    let scene = Scene::changed(Origin::of(1), &[], |config| {
        config.refresh_interval = NEVER;
    });
    let Scene {
        mirror,
        mut origin,
        data: _data,
    } = scene;
    let fresh = CrateFile::pack("fresh", "0.1.0", &[]);
    let commit = origin.publish(fresh);
    // The first request makes the mirror fetch the index once.
    assert_serves(&mirror, &origin.files[1]);
    let answer = mirror.get(&origin.files[1].download_path());
    assert_eq!(answer.header("x-index-commit"), Some(commit.as_str()));
}

#[test]
fn a_flood_of_requests_for_unknown_versions_causes_few_index_fetches() {
    let origin = Origin::of(1);
    let server = GitServer::start(&origin.index);
    let url = server.url();
    let scene = Scene::changed(origin, &[("GIT_REPO_URL", &url)], |config| {
        config.refresh_interval = NEVER;
    });
    let before = server.seen().len();
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let mirror = &scene.mirror;
            threads.spawn(move || {
                for number in 0..25 {
                    let path = format!("/api/v1/crates/no-{thread}-{number}/1.0.0/download");
                    assert_eq!(mirror.get(&path).status, 404);
                }
            });
        }
    });
    let looks = server.seen().len() - before;
    assert!((1..=6).contains(&looks), "{looks}");
    assert!(scene.origin.fetched().is_empty());
}

#[test]
fn while_the_upstream_index_is_unreachable_an_unlisted_version_does_not_give_404() {
    let origin = Origin::of(1);
    let server = GitServer::start(&origin.index);
    let url = server.url();
    let scene = Scene::changed(origin, &[("GIT_REPO_URL", &url)], |config| {
        config.refresh_interval = NEVER;
    });
    drop(server);
    // The first request fetches the index. The others know that the fetch failed.
    for name in ["perhaps", "perhaps", "kept-000"] {
        let path = format!("/api/v1/crates/{name}/9.0.0/download");
        assert_fails(&scene.mirror.get(&path), 503);
    }
    // Versions that the mirror knows are served.
    assert_serves(&scene.mirror, &scene.origin.files[0]);
}

#[test]
fn a_version_deleted_from_the_index_gives_404_although_its_file_is_stored() {
    let scene = Scene::of(2);
    let [kept, deleted] = [&scene.origin.files[1], &scene.origin.files[0]];
    assert_serves(&scene.mirror, deleted);
    assert_serves(&scene.mirror, kept);
    let deletion = scene.origin.index.commit().delete_crate(deleted.name);
    scene.mirror.wait_for_commit(&deletion.send());
    let answer = scene.mirror.get(&deleted.download_path());
    assert_fails(&answer, 404);
    assert_eq!(answer.detail(), "crate `kept-000` does not exist");
    // A client that already has the file gets the same answer.
    let etag = format!("\"{}\"", deleted.checksum());
    let headers = [("If-None-Match", etag.as_str())];
    let path = deleted.download_path();
    assert_eq!(scene.mirror.request("GET", &path, &headers).status, 404);
    assert_serves(&scene.mirror, kept);
}

#[test]
fn a_version_that_is_deleted_and_published_again_has_the_new_bytes() {
    let scene = Scene::of(1);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    let Scene {
        mirror,
        mut origin,
        data,
    } = scene;
    let old = origin.files[0].checksum();
    // The same name and version, with other bytes.
    let commit = origin.publish(CrateFile::pack("kept-000", "1.0.0", &["other"]));
    mirror.wait_for_commit(&commit);
    assert_ne!(origin.files[0].checksum(), old);
    assert_serves(&mirror, &origin.files[0]);
    // A client with the old file does not get `304`.
    let etag = format!("\"{old}\"");
    let headers = [("If-None-Match", etag.as_str())];
    let path = origin.files[0].download_path();
    let answer = mirror.request("GET", &path, &headers);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body == origin.files[0].bytes());
    Scene {
        mirror,
        origin,
        data,
    }
    .ends_well();
}

#[test]
fn an_old_file_of_an_upstream_is_refused() {
    let scene = Scene::of(1);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    let fresh = CrateFile::pack("kept-000", "1.0.0", &["other"]);
    // The index has the new version before the upstream has its file.
    scene.mirror.wait_for_commit(&scene.origin.list(&fresh));
    assert_fails(&scene.mirror.get(&fresh.download_path()), 502);
    let Scene {
        mirror,
        mut origin,
        data,
    } = scene;
    origin.publish(fresh);
    assert_serves(&mirror, &origin.files[0]);
    Scene {
        mirror,
        origin,
        data,
    }
    .ends_well();
}

#[test]
fn a_yanked_version_can_be_downloaded() {
    let scene = Scene::of(1);
    let file = &scene.origin.files[0];
    let line = String::from_utf8(file.index_line()).unwrap();
    let yanked = line.replace("\"yanked\":false", "\"yanked\":true");
    let commit = scene.origin.index.commit();
    let commit = commit.crate_file(file.name, yanked.as_bytes()).send();
    scene.mirror.wait_for_commit(&commit);
    assert_serves(&scene.mirror, file);
}

#[test]
fn a_line_without_a_usable_checksum_is_never_served() {
    let origin = Origin::of(1);
    for (name, checksum) in [
        ("no-sum", ""),
        ("short-sum", "abc"),
        ("not-hex", &"z".repeat(64)),
    ] {
        let file = CrateFile::pack(name, "1.0.0", &[]);
        let line = String::from_utf8(file.index_line()).unwrap();
        let line = line.replace(&file.checksum(), checksum);
        origin.upstream.hold(&file.path(), file.content.clone());
        let commit = origin.index.commit();
        commit.crate_file(name, line.as_bytes()).send();
    }
    let scene = Scene::with(origin, &[]);
    for name in ["no-sum", "short-sum", "not-hex"] {
        let path = format!("/api/v1/crates/{name}/1.0.0/download");
        let answer = scene.mirror.get(&path);
        assert!((400..=599).contains(&answer.status), "{answer:?}");
        assert!(!answer.detail().is_empty());
    }
    assert!(scene.origin.fetched().is_empty());
}

#[test]
fn before_the_first_view_downloads_give_503_and_fetch_nothing() {
    let origin = Origin::of(1);
    let data = TempDir::new().unwrap();
    let own = origin.settings();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", "http://127.0.0.1:1/index.git"),
        ("DATA_DIR", data.path().to_str().unwrap()),
        (own[1].0, &own[1].1),
        (own[2].0, &own[2].1),
    ]);
    let answer = mirror.get(&origin.files[0].download_path());
    assert_fails(&answer, 503);
    assert!(origin.fetched().is_empty());
}

#[test]
fn the_checksum_in_a_template_comes_from_the_index() {
    let origin = Origin::of(1);
    let by_checksum = CrateUpstream::start(&[]);
    let file = &origin.files[0];
    let path = format!("/{}/file", file.checksum());
    by_checksum.hold(&path, file.content.clone());
    let template = by_checksum.url("/{sha256-checksum}/file");
    let scene = Scene::with(origin, &[("DOWNLOAD_URL", &template)]);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!(by_checksum.requests(&path), 1);
}
