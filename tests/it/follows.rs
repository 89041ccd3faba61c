//! The mirror follows all changes of the upstream index.

use tempfile::TempDir;

use crate::support::{FIXTURES, GitIndex, GitServer, Mirror, fixture, index_line, index_path};

struct Scene {
    index: GitIndex,
    mirror: Mirror,
    _server: GitServer,
    _data: TempDir,
}

/// A mirror that serves the first commit.
fn scene() -> Scene {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let data = TempDir::new().unwrap();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    mirror.wait_until_ready();
    assert_eq!(mirror.commit(), Some(index.head()));
    Scene {
        index,
        mirror,
        _server: server,
        _data: data,
    }
}

fn versions(mirror: &Mirror, name: &str) -> usize {
    let answer = mirror.metadata(name).json();
    answer["versions"].as_array().map_or(0, Vec::len)
}

#[test]
fn every_real_index_file_is_answered() {
    let scene = scene();
    for name in FIXTURES {
        let lines = fixture(name).split(|&byte| byte == b'\n').count() - 1;
        assert_eq!(versions(&scene.mirror, name), lines, "{name}");
        let file = scene.mirror.get(&format!("/index/{}", index_path(name)));
        assert_eq!(file.body, fixture(name), "byte for byte: {name}");
    }
    let ready = scene.mirror.get("/readyz").json();
    assert_eq!(ready["index"]["crates"], FIXTURES.len());
    assert_eq!(ready["index"]["commit"], scene.index.head());
}

#[test]
fn a_publish_a_yank_and_a_deletion_are_followed() {
    let scene = scene();
    let (index, mirror) = (&scene.index, &scene.mirror);
    let published = index_line("brand-new", "1.0.0", false);
    mirror.wait_for_commit(&index.commit().crate_file("brand-new", &published).send());
    assert_eq!(
        mirror.metadata("Brand_New").json()["crate"]["name"],
        "brand-new"
    );

    let yanked = index_line("brand-new", "1.0.0", true);
    mirror.wait_for_commit(&index.commit().crate_file("brand-new", &yanked).send());
    assert_eq!(mirror.metadata("brand-new").json()["crate"]["yanked"], true);

    let deleted = index.commit().delete_crate("brand-new").send();
    mirror.wait_for_commit(&deleted);
    let answer = mirror.metadata("brand-new");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.detail(), "crate `brand-new` does not exist");
    assert_eq!(answer.header("x-index-commit"), Some(deleted.as_str()));
}

#[test]
fn a_squash_of_history_is_followed() {
    let scene = scene();
    let (index, mirror) = (&scene.index, &scene.mirror);
    for round in 0..3 {
        let line = index_line("fresh", &format!("1.0.{round}"), false);
        index.commit().crate_file("fresh", &line).send();
        index.squash();
        mirror.wait_for_commit(&index.head());
        assert_eq!(
            mirror.metadata("fresh").json()["crate"]["max_version"],
            format!("1.0.{round}")
        );
    }
}

#[test]
fn a_forced_push_to_an_older_commit_is_followed() {
    let scene = scene();
    let (index, mirror) = (&scene.index, &scene.mirror);
    let line = index_line("mistake", "1.0.0", false);
    mirror.wait_for_commit(&index.commit().crate_file("mistake", &line).send());
    assert_eq!(mirror.metadata("mistake").status, 200);
    index.rewind();
    mirror.wait_for_commit(&index.head());
    assert_eq!(mirror.metadata("mistake").status, 404);
}

#[test]
fn a_renamed_default_branch_is_followed() {
    let scene = scene();
    let (index, mirror) = (&scene.index, &scene.mirror);
    index.rename_default_branch("main");
    let line = index_line("after-the-rename", "1.0.0", false);
    let commit = index.commit().crate_file("after-the-rename", &line).send();
    mirror.wait_for_commit(&commit);
    assert_eq!(mirror.metadata("after-the-rename").status, 200);
}

#[test]
fn files_that_are_not_index_files_are_not_crates() {
    let scene = scene();
    let (index, mirror) = (&scene.index, &scene.mirror);
    let line = index_line("stray", "1.0.0", false);
    let commit = index
        .commit()
        .file("README.md", &line)
        .file(".github/x", &line)
        .file("config.json", b"{}")
        // At the wrong path, with the wrong name, and one level too deep.
        .file("st/ra/other/stray", &line)
        .file("xx/yy/stray", &line)
        .symlink("li/nk/linked", "../../it/oa/itoa")
        .submodule("mo/du/module")
        .send();
    mirror.wait_for_commit(&commit);
    for name in ["README.md", "config.json", "x", "stray", "linked", "module"] {
        assert_eq!(mirror.metadata(name).status, 404, "{name}");
    }
    let ready = mirror.get("/readyz").json();
    assert_eq!(ready["index"]["crates"], FIXTURES.len());
}

#[test]
fn a_path_and_a_file_url_are_followed() {
    let index = GitIndex::with_fixtures();
    let path = index.path().to_str().unwrap().to_owned();
    for url in [path.clone(), format!("file://{path}")] {
        let data = TempDir::new().unwrap();
        let mirror = Mirror::start(&[
            ("GIT_REPO_URL", &url),
            ("DATA_DIR", data.path().to_str().unwrap()),
        ]);
        mirror.wait_until_ready();
        assert_eq!(mirror.commit(), Some(index.head()));
        let line = index_line("local", "1.0.0", false);
        mirror.wait_for_commit(&index.commit().crate_file("local", &line).send());
    }
}
