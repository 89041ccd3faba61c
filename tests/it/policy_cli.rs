//! The policy on the command line: `explain`, and the other subcommands, beside a running mirror.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{CrateFile, GitIndex, Mirror, Origin, Program, borrowed, eventually};

const DAY: u64 = 86_400;

const ADVISORY: &[u8] =
    b"```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"evil\"\ndate = \"2026-08-20\"\n\
    categories = [\"malicious\"]\n\n[versions]\npatched = []\n```\n\n# A title\n\nA description.\n";

const POLICY: &str = "[bans]\ndeny = [{ crate = 'banned', reason = 'SEC-7' }]\n\
    [mirror]\nexempt = [{ crate = 'other', expires = 2020-01-01T00:00:00Z }]\n";

/// An upstream with a crate in each state, a mirror of it, and the settings of its subcommands.
struct Scene {
    origin: Origin,
    _database: GitIndex,
    directory: TempDir,
    settings: Vec<(&'static str, String)>,
}

/// The result of a subcommand.
struct Run {
    code: Option<i32>,
    results: String,
    notes: String,
}

#[expect(
    clippy::disallowed_methods,
    reason = "the mirror of these tests has the system's clock"
)]
/// The index line of a file that was published `days` ago.
fn line(file: &CrateFile, days: u64, yanked: bool) -> String {
    let time = SystemTime::now() - Duration::from_secs(days * DAY);
    let time: chrono::DateTime<chrono::Utc> = time.into();
    let mut line: Value = serde_json::from_slice(&file.index_line()).unwrap();
    line["pubtime"] = time.format("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    line["yanked"] = yanked.into();
    format!("{line}\n")
}

impl Scene {
    fn new() -> Self {
        let pack = |name, version| CrateFile::pack(name, version, &[]);
        let origin = Origin::with(vec![
            CrateFile::pack("top", "1.0.0", &["dep"]),
            pack("dep", "1.0.0"),
            pack("dep", "1.1.0"),
            pack("evil", "1.0.0"),
            pack("banned", "1.0.0"),
            pack("arr", "0.3.9"),
            pack("arr", "0.3.10"),
        ]);
        let database = GitIndex::empty();
        let path = "crates/evil/RUSTSEC-2026-0001.md";
        database.commit().file(path, ADVISORY).send();
        let directory = TempDir::new().unwrap();
        let file = directory.path().join("policy.toml");
        fs::write(&file, POLICY).unwrap();
        let mut settings = origin.settings().to_vec();
        settings.extend([
            ("DATA_DIR", text(&directory.path().join("data"))),
            ("POLICY_FILE", text(&file)),
            ("ADVISORY_DB_URL", text(&database.path())),
            ("MIN_PUBLISH_AGE", "7 days".to_owned()),
            ("YANK_GUARD", "3 days".to_owned()),
            ("HELD_DOWNLOADS", "deny".to_owned()),
        ]);
        let scene = Self {
            origin,
            _database: database,
            directory,
            settings,
        };
        scene.publish(&[("arr", 5, 400, false)]);
        scene
    }

    /// Lists versions in the index: the name of the crate, the number of the file, its age in days, and whether it is
    /// yanked.
    fn publish(&self, rows: &[(&str, usize, u64, bool)]) -> String {
        let mut files: BTreeMap<&str, String> = BTreeMap::new();
        for (name, place, days, yanked) in rows {
            let line = line(&self.origin.files[*place], *days, *yanked);
            files.entry(name).or_default().push_str(&line);
        }
        let mut commit = self.origin.index.commit();
        for (name, content) in files {
            commit = commit.crate_file(name, content.as_bytes());
        }
        commit.send()
    }

    /// Runs a subcommand with these settings and the common ones.
    fn run(&self, arguments: &[&str], more: &[(&str, &str)]) -> Run {
        let output = Program::run_verb(arguments, &[&borrowed(&self.settings), more].concat());
        Run {
            code: output.status.code(),
            results: String::from_utf8(output.stdout).unwrap(),
            notes: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Every file of the index, the advisories and the guard, with its size and the time of its last change.
    fn files(&self) -> BTreeMap<PathBuf, (u64, SystemTime)> {
        let mut found = BTreeMap::new();
        let mut directories = vec![self.directory.path().join("data")];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let entry = entry.unwrap();
                let metadata = entry.metadata().unwrap();
                if metadata.is_dir() {
                    directories.push(entry.path());
                }
                let changed = metadata.modified().unwrap();
                found.insert(entry.path(), (metadata.len(), changed));
            }
        }
        found
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.results).unwrap_or_else(|_| panic!("{}{}", run.results, run.notes))
}

#[test]
fn subcommands_decide_like_the_mirror_beside_them() {
    let scene = Scene::new();
    let early = scene.run(&["explain", "arr"], &[]);
    assert_eq!((early.code, early.results.as_str()), (Some(1), ""));
    assert!(
        early.notes.starts_with("there is no index in DATA_DIR: "),
        "{}",
        early.notes
    );

    let mirror = Mirror::start(&borrowed(&scene.settings));
    mirror.wait_until_ready();
    let commit = scene.publish(&[
        ("top", 0, 90, false),
        ("dep", 1, 90, false),
        ("dep", 2, 2, false),
        ("evil", 3, 90, false),
        ("banned", 4, 90, true),
        ("arr", 5, 400, true),
        ("arr", 6, 0, false),
    ]);
    mirror.wait_for_commit(&commit);
    let evil = || mirror.get("/policy/evil/1.0.0").json()["state"] == "denied";
    eventually("the advisories are in use", evil);
    // The record of the last fetch is written after the view is published.
    let counted = || {
        let counted = scene.run(&["check-config", "--json"], &[]);
        let (counted, served) = (&json(&counted)["policy"], mirror.get("/policy").json());
        ["versions", "policy_time"].map(|field| &counted[field])
            == ["versions", "policy_time"].map(|field| &served[field])
    };
    eventually("both count the same", counted);

    for name in ["arr", "dep", "Evil"] {
        let run = scene.run(&["explain", name, "--json"], &[]);
        let served = mirror.get(&format!("/policy/{name}")).json();
        assert_eq!((run.code, json(&run)), (Some(0), served));
    }
    drop(mirror);
    explain_is_for_people(&scene);
    files_that_are_denied_are_left_out(&scene);
}

fn explain_is_for_people(scene: &Scene) {
    let before = scene.files();
    let one = scene.run(&["explain", "dep@1.1.0"], &[]);
    let lines: Vec<&str> = one.results.lines().collect();
    assert!(
        lines[0].starts_with("dep 1.1.0 is held until 20")
            && lines[0].ends_with("and the minimum publish age is 7 days"),
        "{lines:?}"
    );
    assert_eq!(lines[1], "  rule: min-publish-age");
    assert_eq!(
        lines[3..6],
        [
            "  served as: yanked",
            "  download: refused (403)",
            "  use: cargo update dep --precise 1.0.0"
        ]
    );
    assert!(lines[6].starts_with("  policy time: 20"), "{lines:?}");
    assert_eq!(
        one.notes,
        "warning: POLICY_FILE: the exemption of `other` has expired at 2020-01-01T00:00:00Z\n"
    );
    let json_of_one = json(&scene.run(&["explain", "evil@1.0.0", "--json"], &[]));
    assert_eq!(
        (&json_of_one["crate"], &json_of_one["rule"]),
        (&"evil".into(), &"malware".into())
    );
    let frozen = scene.run(&["explain", "arr@<0.3.10"], &[]);
    assert!(
        frozen.results.starts_with("arr 0.3.9 is frozen until 20")
            && frozen.results.ends_with("; the upstream has yanked it\n"),
        "{}",
        frozen.results
    );
    for (spec, code, words) in [
        ("nothing", 1, "there is no crate `nothing` in the index\n"),
        (
            "dep@9.9.9",
            1,
            "there is no version `dep@9.9.9` in the index\n",
        ),
        ("dep@^3", 1, "there is no version `dep@^3` in the index\n"),
        ("se/rde", 2, "is not a crate"),
    ] {
        let run = scene.run(&["explain", spec], &[]);
        assert_eq!((run.code, run.results.as_str()), (Some(code), ""), "{spec}");
        assert!(run.notes.contains(words), "{}", run.notes);
    }
    let audit = scene.run(&["explain", "banned"], &[("POLICY_MODE", "audit")]);
    assert_eq!(
        audit.results,
        "banned 1.0.0 is denied: SEC-7; the upstream has yanked it\n"
    );
    assert!(
        audit.notes.contains("POLICY_MODE is audit"),
        "{}",
        audit.notes
    );
    assert_eq!(scene.files(), before, "a file has changed");
}

fn files_that_are_denied_are_left_out(scene: &Scene) {
    let archive = text(&scene.directory.path().join("all.tar"));
    let audit = [("POLICY_MODE", "audit")];
    // The resolution uses the served index. A named version is fetched unless it is denied.
    let plan = scene.run(&["prefetch", "top", "arr", "--dry-run"], &[]);
    assert_eq!(
        (plan.code, plan.results.as_str()),
        (Some(0), "arr@0.3.9\ndep@1.0.0\ntop@1.0.0\n"),
        "{}",
        plan.notes
    );
    let named = ["prefetch", "dep@1.1.0", "evil@1.0.0", "banned", "--dry-run"];
    let named = scene.run(&named, &[]);
    assert_eq!(
        (named.code, named.results.as_str()),
        (Some(1), "dep@1.1.0\n")
    );
    for words in [
        "problem: evil@1.0.0: the policy denies it: RUSTSEC-2026-0001, malicious code\n",
        "problem: banned: every version that matches was yanked, or the policy holds or denies it; ",
    ] {
        assert!(named.notes.contains(words), "{}", named.notes);
    }
    // Without a mirror, subcommands fetch the advisories themselves.
    let elsewhere = text(&scene.directory.path().join("elsewhere"));
    let alone = ["prefetch", "evil@1.0.0", "--dry-run"];
    let alone = scene.run(&alone, &[("DATA_DIR", &elsewhere)]);
    assert_eq!((alone.code, alone.results.as_str()), (Some(1), ""));
    assert!(alone.notes.contains("RUSTSEC-2026-0001"), "{}", alone.notes);
    let all = scene.run(&["prefetch", "--all", "--dry-run"], &[]);
    assert_eq!(
        (all.code, all.results.lines().count()),
        (Some(0), 5),
        "{}",
        all.results
    );
    assert!(
        all.notes
            .contains("passed over 2 files that the policy denies")
    );

    let all = scene.run(&["prefetch", "--all"], &audit);
    assert!(
        all.results.starts_with("7 files: 7 fetched"),
        "{}",
        all.results
    );
    let export = scene.run(&["export", &archive], &[]);
    assert!(
        export.results.starts_with("exported 5 crate files")
            && export
                .results
                .ends_with("; left out 2 that the policy denies\n"),
        "{}",
        export.results
    );
    let export = scene.run(&["export", &archive], &audit);
    assert!(export.results.starts_with("exported 7 crate files"));
    let verify = scene.run(&["verify"], &[]);
    assert_eq!((verify.code, verify.results.as_str()), (Some(0), ""));
    let evil = scene.origin.files[3].checksum();
    let denied =
        format!("{evil} is denied by the policy: evil 1.0.0: RUSTSEC-2026-0001, malicious code\n");
    assert!(verify.notes.contains(&denied), "{}", verify.notes);
    let said = verify.notes.matches("is denied by the policy").count();
    assert_eq!(said, 2, "{}", verify.notes);
    let verify = scene.run(&["verify"], &audit);
    assert!(verify.notes.starts_with("7 files: 0 damaged"));
    assert!(!verify.notes.contains("denied"), "{}", verify.notes);
}
