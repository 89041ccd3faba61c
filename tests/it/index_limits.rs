//! Limits for what a hostile upstream can make the mirror read.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::git_served::GitClone;
use crate::support::{
    FIXTURES, GitIndex, GitServer, Mirror, Program, eventually, hermetic, index_line, index_path,
};

/// The bytes of an index file above the limit.
const LARGE_FILE_BYTES: usize = 40 * 1024 * 1024;

/// The bytes of an object above the limit for one block of memory.
const LARGE_OBJECT_BYTES: usize = 80 * 1024 * 1024;

struct Scene {
    index: GitIndex,
    _server: GitServer,
    data: TempDir,
    url: String,
}

impl Scene {
    fn new() -> Self {
        let index = GitIndex::with_fixtures();
        let server = GitServer::start(&index);
        let url = server.url();
        Self {
            index,
            _server: server,
            data: TempDir::new().unwrap(),
            url,
        }
    }

    fn start(&self) -> Program {
        self.start_in(&self.data, &[])
    }

    fn start_in(&self, data: &TempDir, settings: &[(&str, &str)]) -> Program {
        let own = [
            ("GIT_REPO_URL", self.url.as_str()),
            ("DATA_DIR", data.path().to_str().unwrap()),
            ("PUBLIC_URL", "http://mirror.example"),
            ("DOWNLOAD_MODE", "cache"),
            ("DOWNLOAD_URL", "http://127.0.0.1:9/{crate}"),
            ("STORAGE_URL", "memory://"),
        ];
        let program = Program::start(&[&own[..], settings].concat());
        program.wait_until_ready();
        program
    }

    /// Writes a tree, given in the format of `git ls-tree`.
    fn tree(&self, entries: &str) -> String {
        let path = self.index.path();
        let mut child = hermetic("git", path.as_path())
            .args(["--git-dir", path.to_str().unwrap(), "mktree"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(entries.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Adds the entries of this tree to the index, in a new commit.
    fn commit_tree(&self, entries: &str) -> String {
        let now = self.index.git(&["ls-tree", "HEAD"]);
        let tree = self.tree(&format!("{now}\n{entries}"));
        let commit = self
            .index
            .git(&["commit-tree", &tree, "-p", "HEAD", "-m", "hostile"]);
        self.index.git(&["update-ref", "HEAD", &commit]);
        commit
    }
}

fn warnings(program: &Program) -> Vec<String> {
    let ready = program.get("/readyz");
    assert_eq!(ready.status, 200, "{ready:?}");
    let ready = ready.json();
    let warnings = ready["warnings"].as_array().unwrap().iter();
    warnings
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

/// Waits until a fetch has failed for this reason. Returns the largest amount of memory that was in use meanwhile.
fn wait_until_refused(program: &Program, why: &str) -> u64 {
    let mut most = 0;
    eventually("the fetch is refused", || {
        most = most.max(program.anonymous_kib());
        let ready = program.get("/readyz");
        assert_eq!(ready.status, 200, "the last view is not stale yet");
        let error = ready.json()["index"]["last_error"].clone();
        error.as_str().is_some_and(|error| error.contains(why))
    });
    most
}

#[test]
fn an_index_file_that_is_too_large_gets_503_is_named_and_disturbs_nothing() {
    let scene = Scene::new();
    let (program, data) = (scene.start(), TempDir::new().unwrap());
    let policy = [
        ("MIN_PUBLISH_AGE", "7 days"),
        ("MIN_PUBLISH_AGE_UNKNOWN", "hold"),
        ("HELD_DOWNLOADS", "deny"),
    ];
    let ruled = scene.start_in(&data, &policy);
    assert!(warnings(&program).is_empty() && warnings(&ruled).is_empty());
    let line = index_line("enormous", "1.0.0", false);
    let content = line.repeat(LARGE_FILE_BYTES / line.len());
    let commit = scene.index.commit().crate_file("enormous", &content).send();
    program.wait_for_commit(&commit);
    let before = program.anonymous_kib();
    refuses_enormous(&program, "bytes, and the mirror reads");
    // The policy knows nothing of its versions, so it must not let any of them pass, and must not call them absent.
    ruled.wait_for_commit(&commit);
    refuses_enormous(&ruled, "the policy cannot be applied to it");
    let clone = GitClone::of(&format!("http://{}/git/index", ruled.address), &["--bare"]);
    let files = clone.git(&["ls-tree", "-r", "--name-only", "HEAD"]);
    assert!(
        files.contains("itoa") && !files.contains("enormous"),
        "{files}"
    );
    for program in [&program, &ruled] {
        eventually("the file is named", || {
            warnings(program)
                .iter()
                .any(|warning| warning.contains("enormous"))
        });
    }
    for name in FIXTURES {
        assert_eq!(program.metadata(name).status, 200);
    }
    let used = program.anonymous_kib().saturating_sub(before);
    assert!(used < 16 * 1024, "{used} KiB for answers without content");
    let small = index_line("enormous", "1.0.0", false);
    let commit = scene.index.commit().crate_file("enormous", &small).send();
    ruled.wait_for_commit(&commit);
    let held = ruled.get("/api/v1/crates/enormous/1.0.0/download");
    assert_eq!(held.status, 403, "{held:?}");
    let commit = scene.index.commit().delete_crate("enormous").send();
    for program in [&program, &ruled] {
        program.wait_for_commit(&commit);
        eventually("there is no warning left", || warnings(program).is_empty());
        assert_eq!(program.metadata("enormous").status, 404);
        assert!(!program.output().contains("damaged"));
    }
}

#[track_caller]
fn refuses_enormous(program: &Program, why: &str) {
    let file = index_path("enormous");
    for path in [
        format!("/index/{file}"),
        format!("/at/2020-01-01/index/{file}"),
        "/api/v1/crates/enormous".to_owned(),
        "/api/v1/crates/Enormous/versions".to_owned(),
        "/api/v1/crates/enormous/1.0.0".to_owned(),
        "/api/v1/crates/enormous/1.0.0/dependencies".to_owned(),
        "/api/v1/crates/enormous/1.0.0/download".to_owned(),
        "/crates/enormous/enormous-1.0.0.crate".to_owned(),
        "/policy/enormous".to_owned(),
        "/policy/enormous/1.0.0".to_owned(),
    ] {
        let answer = program.get(&path);
        assert_eq!(answer.status, 503, "{path}: {answer:?}");
        assert!(answer.text().contains(why), "{path}: {answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    }
}

#[test]
fn two_trees_that_describe_millions_of_directories_are_refused() {
    let scene = Scene::new();
    let program = scene.start();
    let (commit, before) = (scene.index.head(), program.anonymous_kib());
    let blob = scene
        .index
        .git(&["rev-parse", &format!("HEAD:{}", index_path("itoa"))]);
    let files = |count: usize| {
        (0..count).fold(String::new(), |mut files, number| {
            writeln!(files, "100644 blob {blob}\tfile-{number}").unwrap();
            files
        })
    };
    let letters = || "bdfghjklmnopqrstuvwxyz0123456789-_".chars();
    let directories = |tree: &str| {
        let names = letters().flat_map(|first| letters().map(move |second| (first, second)));
        names.fold(String::new(), |mut entries, (first, second)| {
            writeln!(entries, "040000 tree {tree}\t{first}{second}").unwrap();
            entries
        })
    };
    let leaf = scene.tree(&files(200));
    let middle = scene.tree(&directories(&leaf));
    scene.commit_tree(&directories(&middle).replace("\tto\n", "\tzz\n"));
    let most = wait_until_refused(&program, "entries");
    assert!(most < before + 48 * 1024, "{before} KiB, then {most} KiB");
    assert_eq!(program.commit(), Some(commit.clone()));
    assert_eq!(program.metadata("itoa").status, 200);
    program.kill();
    // A restart serves the same commit as before.
    let program = scene.start();
    assert_eq!(program.commit(), Some(commit));
    let mut program = program;
    let began = Instant::now();
    program.terminate();
    assert_eq!(program.wait_for_exit(), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn a_stop_while_hostile_trees_are_read_takes_effect_at_once() {
    let scene = Scene::new();
    let mut program = scene.start();
    let commit = scene.index.head();
    let blob = scene
        .index
        .git(&["rev-parse", &format!("HEAD:{}", index_path("itoa"))]);
    let letters = || "bdfghjklmnopqrstuvwxyz0123456789-_".chars();
    let entries = |mode: &str, id: &str, end: &str| {
        let names = letters().flat_map(|first| letters().map(move |second| (first, second)));
        names.fold(String::new(), |mut entries, (first, second)| {
            writeln!(entries, "{mode} {id}\t{first}{second}{end}").unwrap();
            entries
        })
    };
    // The slowest kind of entry: each name has the right first letters, and is not a crate name.
    let leaf = scene.tree(&entries("100644 blob", &blob, "-at-home-nowhere"));
    let middle = scene.tree(&entries("040000 tree", &leaf, ""));
    let before = program.processor_time();
    scene.commit_tree(&entries("040000 tree", &middle, "").replace("\tto\n", "\tzz\n"));
    // Less than a tenth of the time for all entries.
    eventually("the mirror reads the trees", || {
        program.processor_time() > before + Duration::from_millis(150)
    });
    let began = Instant::now();
    program.terminate();
    assert_eq!(program.wait_for_exit(), Some(0));
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    let error = "entries";
    assert!(
        !program.output().contains(error),
        "the index was refused before the stop"
    );
    scene.index.git(&["update-ref", "HEAD", &commit]);
    let program = scene.start();
    assert_eq!(program.commit(), Some(commit));
}

#[test]
fn directories_without_index_files_are_dropped() {
    let scene = Scene::new();
    let program = scene.start();
    let (crates, before) = (
        program.get("/readyz").json()["index"]["crates"].clone(),
        program.anonymous_kib(),
    );
    // The size of a real attack: two trees that describe 16 million directories.
    let directories = |tree: &str| {
        (0..4_000).fold(String::new(), |mut entries, number| {
            writeln!(entries, "040000 tree {tree}\td{number}").unwrap();
            entries
        })
    };
    let empty = scene.tree("");
    let middle = scene.tree(&directories(&empty));
    let commit = scene.commit_tree(&directories(&middle));
    program.wait_for_commit(&commit);
    assert_eq!(program.get("/readyz").json()["index"]["crates"], crates);
    let used = program.anonymous_kib().saturating_sub(before);
    assert!(used < 16 * 1024, "{used} KiB");
}

#[test]
fn a_pack_with_a_delta_of_a_giant_object_is_refused() {
    let scene = Scene::new();
    let program = scene.start();
    let (commit, before) = (scene.index.head(), program.anonymous_kib());
    // Noise at the end makes the delta smaller than the object.
    let mut giant = vec![b' '; LARGE_OBJECT_BYTES];
    let mut noise = vec![0; 8_192];
    fastrand::Rng::with_seed(3).fill(&mut noise);
    giant.extend(&noise);
    let mut other = giant.clone();
    other.extend(b"and a little more");
    // One after the other, so that git stores the second object as a delta of the first.
    let both = scene.index.commit().crate_file("giant", &giant);
    both.crate_file("giant-2", &other).send();
    drop((giant, other));
    let bytes = fs::read_dir(scene.index.path().join("objects/pack")).unwrap();
    let bytes = bytes.map(|entry| entry.unwrap().metadata().unwrap().len());
    assert!(bytes.sum::<u64>() < 1024 * 1024, "the packs are small");
    let most = wait_until_refused(&program, "memory");
    assert!(most < before + 128 * 1024, "{before} KiB, then {most} KiB");
    assert_eq!(program.commit(), Some(commit));
    assert_eq!(program.metadata("itoa").status, 200);
    assert_eq!(
        program.output().matches("\"cloning the index\"").count(),
        1,
        "the clone is not damaged"
    );
}

#[test]
fn one_request_for_dependencies_reads_few_index_files_and_remembers_them() {
    let index = GitIndex::with_fixtures();
    let mut commit = index.commit();
    let mut dependencies = Vec::new();
    for number in 0..100 {
        commit = commit.crate_file(
            &format!("part-{number}"),
            &index_line(&format!("Part-{number}"), "1.0.0", false),
        );
        dependencies.push(serde_json::json!({
            "name": format!("part-{number}"), "req": "^1", "features": [], "optional": false,
            "default_features": true, "target": null, "kind": "normal",
        }));
    }
    let mut line: Value = serde_json::from_slice(&index_line("hub", "1.0.0", false)).unwrap();
    line["deps"] = dependencies.into();
    let commit = commit
        .crate_file("hub", format!("{line}\n").as_bytes())
        .send();
    let data = TempDir::new().unwrap();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", index.path().to_str().unwrap()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    mirror.wait_for_commit(&commit);
    // 32 files per request. For the others the answer has the spelling of the index line.
    for read in [32, 64, 96, 100, 100] {
        let answer = mirror.get("/api/v1/crates/hub/1.0.0/dependencies");
        assert_eq!(answer.status, 200);
        let answer = answer.json();
        let rows = answer["dependencies"].as_array().unwrap().iter();
        let names: Vec<&str> = rows.map(|row| row["crate_id"].as_str().unwrap()).collect();
        assert_eq!(names.len(), 100);
        let published = names.iter().filter(|name| name.starts_with("Part-"));
        assert_eq!(published.count(), read);
    }
}
