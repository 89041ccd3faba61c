//! The attack on arrayref of 20 August 2026, replayed step by step with real cargo, and honest mass yanks beside it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use crates_io_mirror::Clock;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::clone_on_disk::scribble;
use crate::support::{
    GitIndex, GitServer, Mirror, Program, Project, eventually, index_path, succeeds,
};

const MIN_AGE: (&str, &str) = ("MIN_PUBLISH_AGE", "3 days");
const GUARD: (&str, &str) = ("YANK_GUARD", "3 days");

fn time(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

/// A clock that the test sets.
#[derive(Clone)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn at(text: &str) -> Self {
        let clock = Self(Arc::default());
        clock.set(text);
        clock
    }

    fn set(&self, text: &str) {
        let seconds = time(text).timestamp().try_into().unwrap();
        self.0.store(seconds, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let seconds = Arc::clone(&self.0);
        Clock::custom(move || {
            SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.load(Ordering::SeqCst))
        })
    }
}

/// A version in the index, with its dependencies.
struct Version {
    number: &'static str,
    published: &'static str,
    dependency: Option<(&'static str, &'static str)>,
    yanked: bool,
}

/// The index file of a crate.
fn index_file(name: &str, versions: &[Version]) -> Vec<u8> {
    let mut file = Vec::new();
    for version in versions {
        let dependencies: Vec<Value> = version
            .dependency
            .iter()
            .map(|(name, requirement)| {
                json!({
                    "name": name, "req": requirement, "features": [], "optional": false,
                    "default_features": true, "target": null, "kind": "normal",
                })
            })
            .collect();
        let line = json!({
            "name": name, "vers": version.number, "deps": dependencies, "cksum": "0".repeat(64),
            "features": {}, "yanked": version.yanked, "pubtime": version.published,
        });
        file.extend(format!("{line}\n").into_bytes());
    }
    file
}

/// Versions without dependencies, each with its number, publish time and yanked flag.
fn plain(name: &str, versions: &[(&'static str, &'static str, bool)]) -> Vec<u8> {
    let versions = versions.iter().map(|(number, published, yanked)| Version {
        number,
        published,
        dependency: None,
        yanked: *yanked,
    });
    index_file(name, &versions.collect::<Vec<_>>())
}

/// The stage of the attack on arrayref.
#[derive(Clone, Copy)]
enum Attack {
    /// It has not begun, or it is over.
    None,
    /// The bad version is published.
    Published,
    /// The good versions are yanked, too.
    Yanked,
    /// The bad version is deleted. The good ones are still yanked.
    Deleted,
}

/// The index file of arrayref.
fn arrayref(attack: Attack) -> Vec<u8> {
    let yanked = matches!(attack, Attack::Yanked | Attack::Deleted);
    let version = |number, published, yanked| Version {
        number,
        published,
        dependency: None,
        yanked,
    };
    let mut versions = vec![
        version("0.3.4", "2017-05-13T16:34:14Z", false),
        version("0.3.5", "2018-10-21T00:44:27Z", yanked),
        version("0.3.6", "2020-02-02T21:29:30Z", yanked),
        version("0.3.7", "2023-04-10T14:16:27Z", yanked),
        version("0.3.8", "2024-08-08T23:33:18Z", yanked),
        version("0.3.9", "2024-09-14T22:32:17Z", yanked),
    ];
    if matches!(attack, Attack::Published | Attack::Yanked) {
        versions.push(Version {
            number: "0.3.10",
            published: "2026-08-20T07:15:00Z",
            dependency: Some(("proc-macro1", "^1.0.107")),
            yanked: false,
        });
    }
    index_file("arrayref", &versions)
}

/// The crate of the attacker: first a clean copy of another crate, later the bad version.
fn proc_macro1(bad: bool) -> Vec<u8> {
    let versions = [
        ("1.0.106", "2026-08-20T02:11:00Z", false),
        ("1.0.107", "2026-08-20T07:11:00Z", false),
    ];
    plain("proc-macro1", &versions[..1 + usize::from(bad)])
}

fn start(index: &Path, data: &Path, clock: &TestClock, settings: &[(&str, &str)]) -> Mirror {
    let own = [
        ("GIT_REPO_URL", index.to_str().unwrap()),
        ("DATA_DIR", data.to_str().unwrap()),
    ];
    let mirror = Mirror::start_at(&[&own, settings].concat(), clock.clock());
    mirror.wait_until_ready();
    mirror
}

/// One of the four mirrors, and two developers who use it.
struct Column {
    mirror: Mirror,
    /// A developer without a lock file.
    new: Project,
    /// A developer with a lock file that names arrayref 0.3.9.
    locked: Project,
    lock: String,
    _data: TempDir,
}

impl Column {
    fn start(index: &GitIndex, clock: &TestClock, settings: &[(&str, &str)]) -> Self {
        let data = TempDir::new().unwrap();
        let mirror = start(&index.path(), data.path(), clock, settings);
        let url = format!("sparse+http://{}/index/", mirror.address);
        let project = || Project::with(&url, &[], "blake3 = \"1\"\n", "");
        let column = Self {
            new: project(),
            locked: project(),
            lock: String::new(),
            mirror,
            _data: data,
        };
        succeeds(&column.locked.cargo(&["generate-lockfile"]));
        let lock = column.locked.lock_file();
        Self { lock, ..column }
    }

    /// The versions that cargo chooses: for a new lock file, and in an update of the old one.
    fn resolved(&self) -> [String; 2] {
        drop(fs::remove_file(self.new.lock_path()));
        fs::write(self.locked.lock_path(), &self.lock).unwrap();
        [
            resolved(&self.new, "generate-lockfile"),
            resolved(&self.locked, "update"),
        ]
    }
}

/// The versions of arrayref and of its dependencies, or cargo's error.
fn resolved(project: &Project, command: &str) -> String {
    let output = project.cargo(&[command]);
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let yanked: Vec<&str> = said
            .lines()
            .filter(|line| line.ends_with("is yanked"))
            .collect();
        assert!(!yanked.is_empty(), "{said}");
        return "error: all are yanked".to_owned();
    }
    let mut found = Vec::new();
    let lock = project.lock_file();
    for package in lock.split("[[package]]") {
        let value = |key: &str| {
            let begin = format!("{key} = \"");
            package
                .lines()
                .find_map(|line| Some(line.strip_prefix(&begin)?.trim_end_matches('"')))
        };
        match (value("name"), value("version")) {
            (Some("arrayref"), Some(version)) => found.insert(0, version.to_owned()),
            (Some("proc-macro1"), Some(version)) => found.push(format!("proc-macro1 {version}")),
            _ => {}
        }
    }
    found.join(" and ")
}

const GOOD: &str = "0.3.9";
const BAD: &str = "0.3.10 and proc-macro1 1.0.107";
const NONE: &str = "error: all are yanked";

/// A step: what happens and when, the changed index files, and the result of each of the four mirrors, for a new lock
/// file and in an update of one that names 0.3.9.
struct Step {
    what: &'static str,
    at: &'static str,
    files: Vec<(&'static str, Option<Vec<u8>>)>,
    expected: [[&'static str; 2]; 4],
}

fn steps() -> [Step; 6] {
    let all_good = [[GOOD; 2]; 4];
    [
        Step {
            what: "proc-macro1 1.0.106, a clean copy of proc-macro2",
            at: "2026-08-20T02:11:00Z",
            files: vec![("proc-macro1", Some(proc_macro1(false)))],
            expected: all_good,
        },
        Step {
            what: "proc-macro1 1.0.107, malicious",
            at: "2026-08-20T07:11:00Z",
            files: vec![("proc-macro1", Some(proc_macro1(true)))],
            expected: all_good,
        },
        Step {
            what: "arrayref 0.3.10, which depends on it",
            at: "2026-08-20T07:15:00Z",
            files: vec![("arrayref", Some(arrayref(Attack::Published)))],
            expected: [[BAD; 2], [GOOD; 2], [BAD; 2], [GOOD; 2]],
        },
        Step {
            what: "arrayref 0.3.5 to 0.3.9 are yanked",
            at: "2026-08-20T07:18:00Z",
            files: vec![("arrayref", Some(arrayref(Attack::Yanked)))],
            expected: [[BAD; 2], [NONE; 2], [GOOD; 2], [GOOD; 2]],
        },
        Step {
            what: "arrayref 0.3.10 and proc-macro1 are deleted",
            at: "2026-08-20T08:41:00Z",
            files: vec![
                ("arrayref", Some(arrayref(Attack::Deleted))),
                ("proc-macro1", None),
            ],
            expected: [[NONE; 2]; 4],
        },
        Step {
            what: "arrayref 0.3.5 to 0.3.9 are unyanked",
            at: "2026-08-20T12:00:00Z",
            files: vec![("arrayref", Some(arrayref(Attack::None)))],
            expected: all_good,
        },
    ]
}

#[test]
fn a_minimum_age_and_a_guard_stop_the_attack_on_arrayref() {
    let index = GitIndex::empty();
    let blake3 = index_file(
        "blake3",
        &[Version {
            number: "1.8.6",
            published: "2026-06-01T00:00:00Z",
            dependency: Some(("arrayref", "^0.3.5")),
            yanked: false,
        }],
    );
    let commit = index.commit().file("config.json", b"{}");
    let commit = commit.crate_file("blake3", &blake3);
    commit
        .crate_file("arrayref", &arrayref(Attack::None))
        .send();
    let clock = TestClock::at("2026-08-20T02:00:00Z");
    let settings: [&[(&str, &str)]; 4] = [&[], &[MIN_AGE], &[GUARD], &[MIN_AGE, GUARD]];
    let columns = settings.map(|settings| Column::start(&index, &clock, settings));

    let mut table = "| time | step | | neither | `MIN_PUBLISH_AGE=\"3 days\"` | `YANK_GUARD=\"3 days\"` | both |\n\
         | --- | --- | --- | --- | --- | --- | --- |\n"
        .to_owned();
    let mut differences = Vec::new();
    for step in steps() {
        clock.set(step.at);
        // Every step has a commit: a mirror that shows it has the time of the step.
        let mut commit = index.commit();
        for (name, file) in &step.files {
            commit = match file {
                Some(file) => commit.crate_file(name, file),
                None => commit.delete_crate(name),
            };
        }
        let head = commit.send();
        let cells = thread::scope(|scope| {
            let resolve = |column: &'_ Column| {
                column.mirror.wait_for_commit(&head);
                column.resolved()
            };
            let resolving = columns
                .each_ref()
                .map(|column| scope.spawn(move || resolve(column)));
            resolving.map(|cells| cells.join().unwrap())
        });
        for (place, command) in ["new lock file", "`cargo update`"].iter().enumerate() {
            let row = cells.each_ref().map(|cells| cells[place].as_str());
            let (at, what) = if place == 0 {
                (step.at, step.what)
            } else {
                ("", "")
            };
            writeln!(table, "| {at} | {what} | {command} | {} |", row.join(" | ")).unwrap();
            let expected = step.expected.map(|cells| cells[place]);
            if row != expected {
                differences.push(format!(
                    "{} {command}: {row:?} instead of {expected:?}",
                    step.at
                ));
            }
        }
    }
    println!("{table}");
    assert!(differences.is_empty(), "{differences:#?}");
}

/// A time before all steps.
const BEFORE: &str = "2026-09-01T00:00:00Z";
const YANKS: &str = "2026-09-01T02:00:00Z";
const AFTER: &str = "2026-09-01T04:00:00Z";
const RESTARTED: &str = "2026-09-02T02:00:00Z";

/// When fresh versions are published.
const FRESH: &str = "2026-09-01T01:00:00Z";

/// An index with crates whose versions are yanked, honestly or not.
struct Yanks {
    index: GitIndex,
    server: GitServer,
    advisories: GitIndex,
    data: TempDir,
    clock: TestClock,
}

/// The versions of a crate, each with its number, publish time and yanked flag.
type Versions<'a> = &'a [(&'static str, &'static str, bool)];

/// Each crate before and after the yanks.
const YANKED: [(&str, Versions<'_>, Versions<'_>); 7] = [
    (
        "retired",
        &[
            ("1.0.0", "2024-01-01T00:00:00Z", false),
            ("1.1.0", "2025-01-01T00:00:00Z", false),
        ],
        &[
            ("1.0.0", "2024-01-01T00:00:00Z", true),
            ("1.1.0", "2025-01-01T00:00:00Z", true),
        ],
    ),
    (
        "broken",
        &[("1.0.0", "2026-08-03T00:00:00Z", false)],
        &[
            ("1.0.0", "2026-08-03T00:00:00Z", true),
            ("1.0.1", FRESH, false),
        ],
    ),
    (
        "exempted",
        &[("1.0.0", "2024-01-01T00:00:00Z", false)],
        &[
            ("1.0.0", "2024-01-01T00:00:00Z", true),
            ("1.1.0", FRESH, false),
        ],
    ),
    (
        "fixed",
        &[("1.0.0", "2024-01-01T00:00:00Z", false)],
        &[
            ("1.0.0", "2024-01-01T00:00:00Z", true),
            ("1.1.0", FRESH, false),
        ],
    ),
    (
        "undone",
        &[("1.0.0", "2024-01-01T00:00:00Z", false)],
        &[
            ("1.0.0", "2024-01-01T00:00:00Z", true),
            ("1.1.0", FRESH, false),
        ],
    ),
    (
        "deleted",
        &[
            ("1.0.0", "2024-01-01T00:00:00Z", false),
            ("1.1.0", "2025-01-01T00:00:00Z", false),
        ],
        &[
            ("1.0.0", "2024-01-01T00:00:00Z", false),
            ("1.1.0", "2025-01-01T00:00:00Z", true),
            ("1.2.0", FRESH, false),
        ],
    ),
    (
        "attacked",
        &[("1.0.0", "2024-01-01T00:00:00Z", false)],
        &[
            ("1.0.0", "2024-01-01T00:00:00Z", true),
            ("1.1.0", FRESH, false),
        ],
    ),
];

impl Yanks {
    fn new() -> Self {
        let (index, advisories) = (GitIndex::empty(), GitIndex::empty());
        let mut commit = index.commit().file("config.json", b"{}");
        for (name, before, _after) in YANKED {
            commit = commit.crate_file(name, &plain(name, before));
        }
        commit.send();
        let advisory = "```toml\n[advisory]\nid = \"RUSTSEC-2026-9001\"\npackage = \"fixed\"\ndate = \"2026-09-01\"\n\n\
             [versions]\npatched = [\">= 1.1.0\"]\n```\n\n# A title\n\nA description.\n";
        let commit = advisories.commit();
        commit
            .file("crates/fixed/RUSTSEC-2026-9001.md", advisory.as_bytes())
            .send();
        let data = TempDir::new().unwrap();
        let exempt = "[mirror]\nexempt = [{ crate = \"exempted@1.1.0\", reason = \"SEC-7\" }]\n";
        fs::write(data.path().join("policy.toml"), exempt).unwrap();
        Self {
            server: GitServer::start(&index),
            index,
            advisories,
            data,
            clock: TestClock::at(BEFORE),
        }
    }

    /// Commits the state of some crates, and returns the commit.
    fn commit<'a>(&self, files: impl IntoIterator<Item = (&'a str, Versions<'a>)>) -> String {
        let mut commit = self.index.commit();
        for (name, versions) in files {
            commit = commit.crate_file(name, &plain(name, versions));
        }
        commit.send()
    }

    /// Starts a mirror with a guard on this data directory, and waits until it shows the index as of `now`.
    fn start(&self, data: &Path, now: &str) -> Mirror {
        self.clock.set(now);
        // A mirror that shows this commit has made its view at this time.
        let head = self.index.commit().send();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let (url, advisories) = (self.server.url(), path(&self.advisories.path()));
        let file = path(&self.data.path().join("policy.toml"));
        let data = path(data);
        let settings = [
            ("GIT_REPO_URL", url.as_str()),
            ("DATA_DIR", &data),
            ("ADVISORY_DB_URL", &advisories),
            ("POLICY_FILE", &file),
            GUARD,
        ];
        let mirror = Mirror::start_at(&settings, self.clock.clock());
        mirror.wait_until_ready();
        mirror.wait_for_commit(&head);
        let commit = self.advisories.head();
        eventually("the advisories are in use", || {
            mirror.get("/policy").json()["advisories"]["commit"] == commit
        });
        mirror
    }
}

/// The versions that are shown unyanked.
fn unyanked(mirror: &Mirror, name: &str) -> String {
    let file = mirror.get(&format!("/index/{}", index_path(name))).text();
    let lines = file
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let shown = lines.filter(|line| line["yanked"] == false);
    let shown: Vec<String> = shown
        .map(|line| line["vers"].as_str().unwrap().to_owned())
        .collect();
    shown.join(" ")
}

fn is_frozen(mirror: &Mirror, name: &str) -> bool {
    let report = mirror.get(&format!("/policy/{name}")).json();
    let versions = report["versions"].as_array().unwrap();
    versions.iter().any(|version| version["state"] == "frozen")
}

#[test]
fn honest_mass_yanks_pass_and_a_freeze_survives_restarts_and_replaced_clones() {
    let scene = Yanks::new();
    let mirror = scene.start(scene.data.path(), BEFORE);
    scene.clock.set(YANKS);
    let commit = scene.commit(YANKED.map(|(name, _before, after)| (name, after)));
    mirror.wait_for_commit(&commit);
    for (name, shown, frozen) in [
        ("retired", "", false),
        ("broken", "1.0.1", false),
        ("exempted", "1.1.0", false),
        ("fixed", "1.1.0", false),
        ("undone", "1.0.0", true),
        ("deleted", "1.0.0 1.1.0", true),
        ("attacked", "1.0.0", true),
    ] {
        assert_eq!(
            (unyanked(&mirror, name), is_frozen(&mirror, name)),
            (shown.to_owned(), frozen),
            "{name}"
        );
    }
    let url = format!("sparse+http://{}/index/", mirror.address);
    let names = YANKED
        .map(|(name, ..)| name)
        .into_iter()
        .filter(|name| *name != "retired");
    let dependencies: String = names
        .clone()
        .map(|name| format!("{name} = \"1\"\n"))
        .collect();
    let project = Project::with(&url, &[], &dependencies, "");
    succeeds(&project.cargo(&["generate-lockfile"]));
    let locked = |project: &Project| -> Vec<String> {
        let lock: toml::Table = toml::from_str(&project.lock_file()).unwrap();
        let packages = lock["package"].as_array().unwrap().iter();
        let packages = packages.filter(|package| package["name"].as_str() != Some("user"));
        let text = |package: &toml::Value| {
            format!(
                "{} {}",
                package["name"].as_str().unwrap(),
                package["version"].as_str().unwrap()
            )
        };
        packages.map(text).collect()
    };
    assert_eq!(
        locked(&project),
        [
            "attacked 1.0.0",
            "broken 1.0.1",
            "deleted 1.1.0",
            "exempted 1.1.0",
            "fixed 1.1.0",
            "undone 1.0.0"
        ]
    );

    // The upstream undoes a yank, and deletes a fresh version.
    scene.clock.set(AFTER);
    let commit = scene.commit([
        (
            "undone",
            &[
                ("1.0.0", "2024-01-01T00:00:00Z", false),
                ("1.1.0", FRESH, false),
            ][..],
        ),
        (
            "deleted",
            &[
                ("1.0.0", "2024-01-01T00:00:00Z", false),
                ("1.1.0", "2025-01-01T00:00:00Z", true),
            ],
        ),
    ]);
    mirror.wait_for_commit(&commit);
    succeeds(&project.cargo(&["generate-lockfile"]));
    assert_eq!(
        locked(&project),
        [
            "attacked 1.0.0",
            "broken 1.0.1",
            "deleted 1.0.0",
            "exempted 1.1.0",
            "fixed 1.1.0",
            "undone 1.1.0"
        ]
    );
    assert!(!is_frozen(&mirror, "undone") && !is_frozen(&mirror, "deleted"));

    // The freeze survives a restart, and a restart without the clone.
    mirror.stop();
    assert!(scene.data.path().join("yank-guard.json").exists());
    let mirror = scene.start(scene.data.path(), RESTARTED);
    assert!(is_frozen(&mirror, "attacked"));
    mirror.stop();
    fs::remove_dir_all(scene.data.path().join("index")).unwrap();
    let mirror = scene.start(scene.data.path(), RESTARTED);
    assert!(is_frozen(&mirror, "attacked"));
    assert_eq!(unyanked(&mirror, "attacked"), "1.0.0");
    a_freeze_and_the_guard_outlive_a_damaged_clone(&scene, &mirror);
    drop(mirror);

    // On an empty disk the guard begins without a memory.
    let empty = TempDir::new().unwrap();
    let mirror = scene.start(empty.path(), RESTARTED);
    assert!(!is_frozen(&mirror, "attacked"));
    assert_eq!(unyanked(&mirror, "attacked"), "1.1.0");
    mirror.stop();
    let empty = TempDir::new().unwrap();
    let url = scene.server.url();
    let settings = [
        ("GIT_REPO_URL", url.as_str()),
        ("DATA_DIR", empty.path().to_str().unwrap()),
        GUARD,
    ];
    let says = "the yank guard begins without a memory";
    let program = Program::start(&settings);
    program.wait_until_ready();
    assert_eq!(program.output().matches(says).count(), 1);
    eventually("the seen yanks are written", || {
        empty.path().join("yank-guard.json").exists()
    });
    drop(program);
    let program = Program::start(&settings);
    program.wait_until_ready();
    assert_eq!(program.output().matches(says).count(), 0);
}

/// The clone is damaged while the mirror runs, and the index changes before there is a new one.
fn a_freeze_and_the_guard_outlive_a_damaged_clone(scene: &Yanks, mirror: &Mirror) {
    let index = scene.data.path().join("index");
    let clone = || index.join(fs::read_to_string(index.join("current")).unwrap());
    let damaged = clone();
    for pack in fs::read_dir(damaged.join("objects/pack")).unwrap() {
        let pack = pack.unwrap().path();
        if pack
            .extension()
            .is_some_and(|extension| extension == "pack")
        {
            scribble(&pack);
        }
    }
    let mut versions = [
        ("1.0.0", "2024-01-01T00:00:00Z", false),
        ("1.1.0", FRESH, false),
        ("1.2.0", FRESH, false),
    ];
    let commit = scene.commit([("undone", &versions[..])]);
    eventually("the clone is replaced", || {
        // A failed read starts the repair.
        mirror.get("/index/at/ta/attacked");
        clone() != damaged
    });
    mirror.wait_for_commit(&commit);
    assert!(is_frozen(mirror, "attacked"));
    assert!(!is_frozen(mirror, "undone"));
    versions[0].2 = true;
    mirror.wait_for_commit(&scene.commit([("undone", &versions[..])]));
    assert!(is_frozen(mirror, "undone"));
}
