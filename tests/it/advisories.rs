//! The advisory database: the mirror follows it through outages, damage and restarts, and serves it to git.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crates_io_mirror::Config;
use serde_json::Value;
use tempfile::TempDir;

use crate::clone_on_disk::scribble;
use crate::support::{
    Answer, Fault, GitIndex, GitServer, Mirror, eventually, eventually_some, hermetic, index_line,
};

/// Shorter than the default, so that tests do not wait long.
const INTERVAL: Duration = Duration::from_millis(200);

const REFS: &str = "/git/advisory-db/info/refs?service=git-upload-pack";
const UPLOAD_PACK: &str = "/git/advisory-db/git-upload-pack";
const RECEIVE_PACK: &str = "/git/advisory-db/git-receive-pack";
const REQUEST_TYPE: (&str, &str) = ("Content-Type", "application/x-git-upload-pack-request");

/// A database in the format of RustSec, with a malicious crate, a vulnerability and an unusable file.
fn database() -> GitIndex {
    let database = GitIndex::empty();
    let commit = database.commit().file("README.md", b"# Advisories\n");
    let malware = advisory("RUSTSEC-2026-0001", "evil", "categories = [\"malicious\"]");
    let leak = advisory("RUSTSEC-2026-0002", "Leaky-Crate", "");
    commit
        .file("crates/evil/RUSTSEC-2026-0001.md", &malware)
        .file("crates/Leaky-Crate/RUSTSEC-2026-0002.md", &leak)
        .file("crates/evil/RUSTSEC-2026-0003.md", b"not an advisory\n")
        .file("rust/std/RUSTSEC-2026-0004.md", &leak)
        .send();
    database
}

fn advisory(id: &str, package: &str, more: &str) -> Vec<u8> {
    format!(
        "```toml\n[advisory]\nid = \"{id}\"\npackage = \"{package}\"\ndate = \"2026-08-20\"\n{more}\n\n\
         [versions]\npatched = []\n```\n\n# A title\n\nA description.\n"
    )
    .into_bytes()
}

struct Scene {
    index: GitIndex,
    database: GitIndex,
    server: GitServer,
    data: TempDir,
}

impl Scene {
    /// A database whose server fails at first.
    fn new() -> Self {
        let index = GitIndex::empty();
        let line = index_line("some", "1.0.0", false);
        index.commit().crate_file("some", &line).send();
        let database = database();
        let server = GitServer::start_with(&database, Fault::Status(500));
        Self {
            index,
            database,
            server,
            data: TempDir::new().unwrap(),
        }
    }

    fn start(&self) -> Mirror {
        self.start_with(|_config| {})
    }

    fn start_with(&self, change: impl FnOnce(&mut Config)) -> Mirror {
        let index = self.index.path();
        let settings = [
            ("GIT_REPO_URL", index.to_str().unwrap()),
            ("ADVISORY_DB_URL", &self.server.url()),
            ("DATA_DIR", self.data.path().to_str().unwrap()),
            // Only the advisories change.
            ("REFRESH_INTERVAL_SECS", "3600"),
        ];
        let mirror = Mirror::start_with(&settings, |config| {
            config.advisory_interval = INTERVAL;
            change(config);
        });
        mirror.wait_until_ready();
        mirror
    }

    /// The clone of the database in use.
    fn clone(&self) -> PathBuf {
        let clones = self.data.path().join("advisory-db");
        clones.join(fs::read_to_string(clones.join("current")).unwrap())
    }

    /// Runs git, and returns its output.
    fn git(&self, arguments: &[&str]) -> String {
        let mut git = hermetic("git", self.data.path());
        let output = git.args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The newest commit in a client's clone.
    fn head(&self, name: &str) -> String {
        let clone = self.data.path().join(name);
        let head = self.git(&["-C", clone.to_str().unwrap(), "rev-parse", "HEAD"]);
        head.trim().to_owned()
    }
}

/// The advisories in `/readyz`, and the warnings. The mirror is ready in every case.
fn report(mirror: &Mirror) -> (Value, Vec<String>) {
    let answer = mirror.get("/readyz");
    assert_eq!(answer.status, 200, "{answer:?}");
    let report = answer.json();
    // The age can grow between two answers.
    let without_age = |report: &Value| {
        let mut advisories = report["advisories"].clone();
        let age = advisories.as_object_mut().unwrap().remove("age_seconds");
        (advisories, age.map(|age| age.is_null()))
    };
    let status = mirror.get("/status").json();
    assert_eq!(without_age(&report), without_age(&status));
    let warnings = report["warnings"].as_array().unwrap().iter();
    let warnings = warnings.map(|text| text.as_str().unwrap().to_owned());
    (report["advisories"].clone(), warnings.collect())
}

fn wait_for(mirror: &Mirror, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    eventually_some(what, || {
        // The age can grow between two answers.
        let advisories = mirror.get("/readyz").json()["advisories"].clone();
        is_so(&advisories).then_some(advisories)
    })
}

fn wait_for_commit(mirror: &Mirror, commit: &str) {
    wait_for(mirror, "the commit of the database is followed", |report| {
        report["commit"] == commit && report["last_error"].is_null()
    });
}

fn metric(mirror: &Mirror, name: &str) -> Option<f64> {
    let page = mirror.get("/metrics").text();
    let begin = format!("crates_io_mirror_{name} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&begin));
    value.map(|value| value.parse().unwrap())
}

#[test]
fn the_database_survives_outages_damage_and_restarts_and_git_can_clone_it() {
    let scene = Scene::new();
    let mirror = scene.start();

    // Before the first clone.
    let failed = wait_for(&mirror, "the first failure", |report| {
        report["state"] == "failed"
    });
    assert!(failed["commit"].is_null() && failed["age_seconds"].is_null());
    assert_eq!(failed["upstream"], scene.server.url());
    let (_, warnings) = report(&mirror);
    assert!(
        warnings[0].starts_with("there are no advisories: ") && warnings[0].contains("500"),
        "{warnings:?}"
    );
    let post = mirror.post(UPLOAD_PACK, &[REQUEST_TYPE], b"0000");
    for answer in [mirror.get(REFS), mirror.request("HEAD", REFS, &[]), post] {
        assert_eq!(answer.status, 503);
        assert!(answer.header("retry-after").is_some());
    }
    assert!(mirror.get(REFS).text().contains("advisory database yet"));
    assert_eq!(metric(&mirror, "advisories_skipped"), None);

    // The first clone.
    scene.server.set(Fault::None);
    let first = scene.database.head();
    wait_for_commit(&mirror, &first);
    let (advisories, warnings) = report(&mirror);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(advisories["state"], "ready");
    assert_eq!(
        (&advisories["advisories"], &advisories["skipped"]),
        (&2.into(), &1.into())
    );
    assert!(advisories["age_seconds"].as_u64().unwrap() < 30);
    assert_eq!(metric(&mirror, "advisories_skipped"), Some(1.0));
    assert!(metric(&mirror, "advisories_age_seconds").unwrap() < 30.0);

    git_gets_it(&scene, &mirror, &first);
    its_history_is_followed(&scene, &mirror);
    it_survives_its_upstream(&scene, &mirror);
    it_is_made_again_when_damaged(&scene, &mirror);

    // A restart without the upstream and without a git program.
    let newest = scene.database.head();
    mirror.stop();
    scene.server.set(Fault::Disconnect);
    let mirror = scene.start_with(|config| config.search_path = "/nonexistent".into());
    let advisories = wait_for(&mirror, "a failure after the restart", |report| {
        !report["last_error"].is_null()
    });
    assert_eq!(
        (&advisories["state"], &advisories["commit"]),
        (&"ready".into(), &newest.into())
    );
    assert!(advisories["age_seconds"].is_u64());
    let answer = mirror.get(REFS);
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("5"))
    );
    assert!(answer.text().contains("no git program"), "{answer:?}");
}

/// Clients clone with both versions of the protocol, in full and shallow. Other requests are refused, as for the index.
fn git_gets_it(scene: &Scene, mirror: &Mirror, commit: &str) {
    let url = format!("http://{}/git/advisory-db", mirror.address);
    for (name, arguments) in [
        ("v0", &["-c", "protocol.version=0", "clone"][..]),
        ("v2", &["-c", "protocol.version=2", "clone"]),
        ("shallow", &["clone", "--depth=1"]),
    ] {
        let target = scene.data.path().join(name);
        scene.git(&[arguments, &["--quiet", &url, target.to_str().unwrap()]].concat());
        assert_eq!(scene.head(name), commit, "{name}");
        let branch = fs::read_to_string(target.join(".git/HEAD")).unwrap();
        assert_eq!(branch, "ref: refs/heads/main\n");
        let file = fs::read(target.join("crates/evil/RUSTSEC-2026-0001.md")).unwrap();
        assert!(file.starts_with(b"```toml"));
        assert!(!target.join("config.json").exists());
    }
    assert_eq!(
        scene.git(&["ls-remote", "--symref", &url]),
        format!("ref: refs/heads/main\tHEAD\n{commit}\tHEAD\n{commit}\trefs/heads/main\n")
    );
    let answer = mirror.get(REFS);
    assert_eq!(
        answer.header("content-type"),
        Some("application/x-git-upload-pack-advertisement")
    );
    assert_eq!(answer.header("x-index-commit"), None);
    let refused: [(Answer, u16); 7] = [
        (mirror.get("/git/advisory-db/info/refs"), 403),
        (
            mirror.get("/git/advisory-db/info/refs?service=git-receive-pack"),
            403,
        ),
        (mirror.post(RECEIVE_PACK, &[], b"0000"), 403),
        (mirror.post(UPLOAD_PACK, &[], b"0000"), 415),
        (mirror.get(UPLOAD_PACK), 405),
        (mirror.get("/git/advisory-db/HEAD"), 404),
        (mirror.get("/git/advisory-db"), 404),
    ];
    for (answer, status) in refused {
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

/// Existing clones get new commits by a fast-forward, and a rewritten history by force.
fn its_history_is_followed(scene: &Scene, mirror: &Mirror) {
    let more = advisory("RUSTSEC-2026-0005", "worse", "expect-deleted = true");
    let commit = scene
        .database
        .commit()
        .file("crates/worse/RUSTSEC-2026-0005.md", &more)
        .send();
    wait_for_commit(mirror, &commit);
    assert_eq!(report(mirror).0["advisories"], 3);
    for name in ["v0", "v2", "shallow"] {
        let clone = scene.data.path().join(name);
        scene.git(&[
            "-C",
            clone.to_str().unwrap(),
            "pull",
            "--quiet",
            "--ff-only",
        ]);
        assert_eq!(scene.head(name), commit, "{name}");
    }
    // crates.io squashes its index. RustSec may do that, too.
    scene.database.squash();
    scene.database.rename_default_branch("trunk");
    let squashed = scene.database.head();
    assert_ne!(squashed, commit);
    wait_for_commit(mirror, &squashed);
    let clone = scene.data.path().join("v2");
    let clone = clone.to_str().unwrap();
    scene.git(&["-C", clone, "fetch", "--quiet", "origin", "main"]);
    scene.git(&["-C", clone, "reset", "--quiet", "--hard", "FETCH_HEAD"]);
    assert_eq!(scene.head("v2"), squashed);
}

/// The last clone stays in use, and its age grows.
fn it_survives_its_upstream(scene: &Scene, mirror: &Mirror) {
    let commit = scene.database.head();
    scene.server.set(Fault::GarbagePack);
    scene.server.set(Fault::Status(500));
    wait_for(mirror, "the age grows", |report| {
        report["age_seconds"].as_u64().is_some_and(|age| age >= 1)
            && report["failures"]
                .as_u64()
                .is_some_and(|failures| failures >= 1)
    });
    let (advisories, warnings) = report(mirror);
    assert_eq!(
        (&advisories["state"], &advisories["commit"]),
        (&"ready".into(), &commit.clone().into())
    );
    assert!(
        warnings[0].starts_with(&format!(
            "the advisories are those of commit {commit}, because"
        )),
        "{warnings:?}"
    );
    assert!(metric(mirror, "advisories_age_seconds").unwrap() >= 1.0);
    assert_eq!(mirror.get(REFS).status, 200);
    scene.server.set(Fault::None);
    wait_for_commit(mirror, &commit);
    assert_eq!(report(mirror).1, Vec::<String>::new());
}

/// A damaged clone is replaced. The advisories in memory stay in use.
fn it_is_made_again_when_damaged(scene: &Scene, mirror: &Mirror) {
    let damaged = scene.clone();
    let packs = fs::read_dir(damaged.join("objects/pack")).unwrap();
    for pack in packs.map(|entry| entry.unwrap().path()) {
        if pack
            .extension()
            .is_some_and(|extension| extension == "pack")
        {
            scribble(&pack);
        }
    }
    eventually("the clone is replaced", || scene.clone() != damaged);
    wait_for_commit(mirror, &scene.database.head());
    let url = format!("http://{}/git/advisory-db", mirror.address);
    let target = scene.data.path().join("again");
    scene.git(&["clone", "--quiet", &url, target.to_str().unwrap()]);
    assert_eq!(scene.head("again"), scene.database.head());
}

#[test]
fn without_the_setting_there_is_no_database() {
    let (index, data) = (GitIndex::empty(), TempDir::new().unwrap());
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", index.path().to_str().unwrap()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    for answer in [
        mirror.get(REFS),
        mirror.post(UPLOAD_PACK, &[REQUEST_TYPE], b"0000"),
        mirror.post(RECEIVE_PACK, &[], b"0000"),
    ] {
        assert_eq!(answer.status, 404, "{answer:?}");
    }
    assert!(mirror.get("/readyz").json()["advisories"].is_null());
    assert_eq!(metric(&mirror, "advisories_skipped"), None);
    assert!(!data.path().join("advisory-db").exists());
}

#[test]
fn a_first_fetch_that_hangs_delays_neither_readiness_nor_a_stop() {
    let scene = Scene::new();
    scene.server.set(Fault::Hang);
    let mirror = scene.start();
    let (advisories, warnings) = report(&mirror);
    assert_eq!(advisories["state"], "waiting");
    assert_eq!(warnings, ["there are no advisories yet"]);
    let answer = mirror.get(REFS);
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, Some("5"))
    );
    let began = Instant::now();
    mirror.stop();
    assert!(began.elapsed() < Duration::from_secs(4), "too slow");
}
