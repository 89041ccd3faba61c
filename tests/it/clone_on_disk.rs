//! Damage to the clone on disk, while the mirror runs and while it does not.

use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{
    FIXTURES, Fault, GitIndex, GitServer, Mirror, Program, eventually, index_line,
};
use crate::upstream_fails::assert_one_clone_is_left;

struct Scene {
    index: GitIndex,
    server: GitServer,
    data: TempDir,
}

impl Scene {
    fn new() -> Self {
        let index = GitIndex::with_fixtures();
        let server = GitServer::start(&index);
        let data = TempDir::new().unwrap();
        Self {
            index,
            server,
            data,
        }
    }

    fn data_dir(&self) -> &str {
        self.data.path().to_str().unwrap()
    }

    fn start(&self) -> Mirror {
        Mirror::start(&[
            ("GIT_REPO_URL", &self.server.url()),
            ("DATA_DIR", self.data_dir()),
        ])
    }

    /// Starts the mirror as a separate process.
    fn program(&self) -> Program {
        let url = self.server.url();
        Program::start(&[("GIT_REPO_URL", &url), ("DATA_DIR", self.data_dir())])
    }

    /// Starts it with a limit on the size of files, which acts like a full disk.
    fn program_on_full_disk(&self) -> Program {
        let url = self.server.url();
        Program::start_on_full_disk(&[("GIT_REPO_URL", &url), ("DATA_DIR", self.data_dir())])
    }

    /// The clone in use.
    fn clone(&self) -> PathBuf {
        let index = self.data.path().join("index");
        let current = fs::read_to_string(index.join("current")).unwrap();
        index.join(current)
    }

    /// The largest pack of the clone.
    fn pack(&self) -> PathBuf {
        let packs = fs::read_dir(self.clone().join("objects/pack")).unwrap();
        packs
            .map(|entry| entry.unwrap().path())
            .filter(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "pack")
            })
            .max_by_key(|path| fs::metadata(path).unwrap().len())
            .unwrap()
    }
}

/// Waits until every crate is answered from this commit. Repairs may come first.
fn wait_until_whole(mirror: &Mirror, commit: &str) {
    eventually("every crate is answered", || {
        FIXTURES.iter().all(|name| {
            let answer = mirror.metadata(name);
            assert!(matches!(answer.status, 200 | 503), "{answer:?}");
            answer.status == 200 && answer.header("x-index-commit") == Some(commit)
        })
    });
    mirror.wait_until_ready();
}

/// Damages a clone between two runs. The second run must serve everything, including new commits of the upstream, and
/// remove the damaged clone.
fn survives(damage: impl FnOnce(&Scene)) -> Scene {
    let scene = Scene::new();
    let mirror = scene.start();
    mirror.wait_until_ready();
    mirror.stop();
    damage(&scene);
    let line = index_line("fresh", "1.0.0", false);
    let commit = scene.index.commit().crate_file("fresh", &line).send();
    let mirror = scene.start();
    mirror.assert_serves_without_index();
    wait_until_whole(&mirror, &commit);
    assert_eq!(mirror.metadata("fresh").status, 200);
    eventually("the replaced clone is removed", || {
        fs::read_dir(scene.data.path().join("index"))
            .unwrap()
            .count()
            == 3
    });
    mirror.stop();
    assert_one_clone_is_left(&scene.data);
    scene
}

/// Replaces a file with a new one, so processes that have opened the old one are not affected.
fn replace(path: &Path, content: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, content).unwrap();
}

/// Overwrites a pack with noise in place, except its header and trailer.
pub(crate) fn scribble(path: &Path) {
    let length = fs::metadata(path).unwrap().len();
    let mut permissions = fs::metadata(path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(path, permissions).unwrap();
    let mut noise = fastrand::Rng::with_seed(5);
    let noise: Vec<u8> = std::iter::repeat_with(|| noise.u8(..))
        .take(usize::try_from(length - 40).unwrap())
        .collect();
    let mut file = OpenOptions::new().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(12)).unwrap();
    file.write_all(&noise).unwrap();
}

#[test]
fn a_truncated_pack_is_replaced() {
    survives(|scene| {
        let pack = scene.pack();
        let content = fs::read(&pack).unwrap();
        replace(&pack, &content[..content.len() / 2]);
    });
}

#[test]
fn an_empty_pack_is_replaced() {
    survives(|scene| replace(&scene.pack(), b""));
}

#[test]
fn a_pack_full_of_noise_is_replaced() {
    survives(|scene| scribble(&scene.pack()));
}

#[test]
fn a_pack_without_its_index_is_replaced() {
    survives(|scene| fs::remove_file(scene.pack().with_extension("idx")).unwrap());
}

#[test]
fn lost_packs_are_replaced() {
    survives(|scene| {
        fs::remove_dir_all(scene.clone().join("objects")).unwrap();
    });
}

#[test]
fn a_lost_head_is_replaced() {
    survives(|scene| fs::remove_file(scene.clone().join("HEAD")).unwrap());
}

#[test]
fn lost_references_are_replaced() {
    survives(|scene| {
        let clone = scene.clone();
        fs::remove_dir_all(clone.join("refs")).unwrap();
        drop(fs::remove_file(clone.join("packed-refs")));
    });
}

#[test]
fn a_reference_full_of_zeros_is_replaced() {
    survives(|scene| {
        fs::write(scene.clone().join("refs/heads/upstream"), [0; 41]).unwrap();
    });
}

#[test]
fn a_clone_with_a_lost_or_truncated_record_is_replaced() {
    survives(|scene| fs::write(scene.clone().join("mirror.json"), b"{\"upst").unwrap());
    survives(|scene| fs::remove_file(scene.clone().join("mirror.json")).unwrap());
}

#[test]
fn a_lost_or_foreign_name_of_the_current_clone_is_replaced() {
    survives(|scene| fs::write(scene.data.path().join("index/current"), b"").unwrap());
    survives(|scene| fs::write(scene.data.path().join("index/current"), b"../..").unwrap());
}

#[test]
fn stale_locks_are_removed() {
    let scene = survives(|scene| {
        let clone = scene.clone();
        for lock in [
            "HEAD.lock",
            "config.lock",
            "shallow.lock",
            "packed-refs.lock",
            "refs/heads/upstream.lock",
            "objects/pack/pack_git2_abcdef",
            "objects/pack/tmp_pack_abcdef",
        ] {
            File::create(clone.join(lock)).unwrap();
        }
    });
    // The mirror made no new clone.
    assert!(scene.clone().ends_with("clone-1"), "{:?}", scene.clone());
}

#[test]
fn a_pack_that_is_damaged_while_in_use_is_replaced() {
    let scene = Scene::new();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", &scene.server.url()),
        ("DATA_DIR", scene.data_dir()),
        // No fetch in this time: only the failed look-up can cause the repair.
        ("REFRESH_INTERVAL_SECS", "3600"),
    ]);
    mirror.wait_until_ready();
    scribble(&scene.pack());
    let answer = mirror.metadata("itoa");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert!(answer.detail().contains("being repaired"));
    assert!(answer.header("retry-after").is_some());
    mirror.assert_serves_without_index();
    wait_until_whole(&mirror, &scene.index.head());
}

#[test]
fn requests_to_a_damaged_clone_do_not_flood_a_broken_upstream() {
    let scene = Scene::new();
    let mirror = scene.start();
    mirror.wait_until_ready();
    scene.server.set(Fault::Status(500));
    mirror.wait_for_failure();
    scribble(&scene.pack());
    let requests = scene.server.seen().len();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        assert_eq!(mirror.metadata("itoa").status, 503);
    }
    let tries = scene.server.seen().len() - requests;
    // The pauses after failures are 1, 2, 4 … seconds, whatever clients do.
    assert!(tries <= 4, "{tries} tries");
    scene.server.set(Fault::None);
    wait_until_whole(&mirror, &scene.index.head());
}

#[test]
fn a_clone_of_another_index_is_replaced_and_never_mixed_with_ours() {
    let first = Scene::new();
    let mirror = first.start();
    mirror.wait_until_ready();
    mirror.stop();

    let other = GitIndex::empty();
    let line = index_line("other", "1.0.0", false);
    let commit = other.commit().crate_file("other", &line).send();
    let server = GitServer::start_with(&other, Fault::Status(500));
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", first.data_dir()),
    ]);
    mirror.wait_for_failure();
    assert_eq!(mirror.metadata("itoa").status, 503);
    server.set(Fault::None);
    mirror.wait_until_ready();
    let answer = mirror.metadata("itoa");
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("x-index-commit"), Some(commit.as_str()));
    assert_eq!(mirror.metadata("other").status, 200);
    mirror.stop();
    assert_one_clone_is_left(&first.data);
}

#[test]
fn a_second_mirror_on_one_data_dir_reports_that_and_still_redirects() {
    let scene = Scene::new();
    let first = scene.start();
    first.wait_until_ready();
    let second = scene.start();
    let error = second.wait_for_failure();
    assert!(
        error.contains("another mirror is using this DATA_DIR"),
        "{error}"
    );
    second.assert_serves_without_index();
    assert_eq!(second.metadata("itoa").status, 503);
    assert_eq!(first.metadata("itoa").status, 200);
    // It serves when the first one has ended.
    first.stop();
    second.wait_until_ready();
    assert_eq!(second.metadata("itoa").status, 200);
}

#[test]
fn a_full_disk_is_reported_leaves_no_files_and_is_recovered_from() {
    let scene = Scene::new();
    let program = scene.program_on_full_disk();
    eventually("two clones have failed", || {
        program.get("/readyz").json()["index"]["failures"]
            .as_u64()
            .unwrap()
            > 1
    });
    let ready = program.get("/readyz");
    assert_eq!(ready.status, 503);
    let reason = ready.json()["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("File too large"), "{reason}");
    assert_eq!(
        program.get("/api/v1/crates/itoa/1.0.0/download").status,
        302
    );
    program.kill();

    let program = scene.program();
    program.wait_until_ready();
    assert_eq!(program.commit(), Some(scene.index.head()));
    program.kill();
    assert_one_clone_is_left(&scene.data);
}

#[test]
fn a_full_disk_at_a_refresh_keeps_the_last_view_in_use() {
    let scene = Scene::new();
    let first = scene.program();
    first.wait_until_ready();
    first.kill();
    let old = scene.index.head();
    let noise: String = (0..20_000).map(|_| fastrand::alphanumeric()).collect();
    let line = index_line("fresh", &format!("1.0.0+{noise}"), false);
    scene.index.commit().crate_file("fresh", &line).send();

    let program = scene.program_on_full_disk();
    eventually(
        "more fetches have failed than a damaged clone is allowed",
        || {
            program.get("/readyz").json()["index"]["failures"]
                .as_u64()
                .unwrap()
                > 4
        },
    );
    assert!(
        !program.output().contains("cloning"),
        "a new clone does not help against a full disk"
    );
    assert_eq!(program.get("/readyz").status, 200, "not stale yet");
    assert_eq!(program.commit(), Some(old));
    assert_eq!(program.metadata("itoa").status, 200);
    program.kill();
    let program = scene.program();
    program.wait_for_commit(&scene.index.head());
}

#[test]
fn foreign_files_in_the_data_dir_stay() {
    let scene = Scene::new();
    let strange = scene.data.path().join("index/important");
    fs::create_dir_all(&strange).unwrap();
    fs::write(strange.join("file"), "kept").unwrap();
    for name in ["clone-", "clone-1x", "set-aside-too"] {
        fs::create_dir_all(scene.data.path().join("index").join(name)).unwrap();
    }
    let mirror = scene.start();
    mirror.wait_until_ready();
    mirror.stop();
    assert_eq!(fs::read_to_string(strange.join("file")).unwrap(), "kept");
    for name in ["clone-", "clone-1x", "set-aside-too"] {
        assert!(
            scene.data.path().join("index").join(name).exists(),
            "{name}"
        );
    }
}

#[test]
fn a_data_dir_that_is_removed_while_the_mirror_runs_is_made_again() {
    let scene = Scene::new();
    let mirror = scene.start();
    mirror.wait_until_ready();
    fs::remove_dir_all(scene.data.path().join("index")).unwrap();
    let head = scene
        .index
        .commit()
        .crate_file("fresh", &index_line("fresh", "1.0.0", false))
        .send();
    drop(head);
    mirror.wait_for_commit(&scene.index.head());
    assert_eq!(mirror.metadata("fresh").status, 200);
    assert_eq!(mirror.metadata("itoa").status, 200);
    mirror.stop();
    assert_one_clone_is_left(&scene.data);
}

#[test]
fn a_kill_during_the_first_clone_leaves_no_files() {
    let scene = Scene::new();
    scene.server.set(Fault::HangInPack(20_000));
    let program = scene.program();
    eventually("objects arrive", || {
        let ready = program.get("/readyz").json();
        ready["index"]["progress"]["received_objects"]
            .as_u64()
            .unwrap()
            > 0
    });
    assert!(scene.data.path().join("index/clone-1").exists());
    program.kill();
    assert!(scene.data.path().join("index/clone-1").exists());

    scene.server.set(Fault::None);
    let program = scene.program();
    program.wait_until_ready();
    assert_eq!(program.commit(), Some(scene.index.head()));
    program.kill();
    assert_one_clone_is_left(&scene.data);
}

#[test]
fn a_kill_during_a_fetch_leaves_no_files() {
    let scene = Scene::new();
    for round in 0..3 {
        scene.server.set(Fault::None);
        let program = scene.program();
        program.wait_until_ready();
        program.wait_for_commit(&scene.index.head());
        scene.server.set(Fault::HangInPack(500 * round + 100));
        let noise: String = (0..5_000).map(|_| fastrand::alphanumeric()).collect();
        let line = index_line("fresh", &format!("1.0.{round}+{noise}"), false);
        scene.index.commit().crate_file("fresh", &line).send();
        let requests = scene.server.seen().len();
        eventually("a fetch of the change is under way", || {
            let seen = scene.server.seen();
            seen[requests..]
                .iter()
                .any(|seen| seen.target.ends_with("/git-upload-pack"))
        });
        program.kill();
    }
    scene.server.set(Fault::None);
    let program = scene.program();
    program.wait_for_commit(&scene.index.head());
    assert_eq!(program.metadata("fresh").status, 200);
    program.kill();
    assert_one_clone_is_left(&scene.data);
}
