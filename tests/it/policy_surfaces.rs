//! Every surface agrees on every version: the sparse index, the git index, the API, `/policy` and downloads. The lines
//! are real ones, in both forms.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use crates_io_mirror::Clock;
use git2::Repository;
use serde_json::Value;
use tempfile::TempDir;

use crate::git_served::GitClone;
use crate::support::{GitIndex, Mirror, borrowed, eventually, fixture, index_path};

/// 2026-08-20T00:00:00Z.
const NOW: i64 = 1_787_184_000;
const DAY: i64 = 86_400;

const CRATES: [&str; 6] = [
    "cfg-if",
    "fnv",
    "foreign-types-shared",
    "hex",
    "matches",
    "rand_core",
];

/// The policy files, one after the other, and the days that pass before each.
const STEPS: [(&str, i64); 6] = [
    ("", 0),
    (
        "bans.deny = [\"Cfg_If:<=0.1.4\", { crate = \"hex@0.4.3\", use-instead = \"fnv\" }]",
        0,
    ),
    (
        "mirror.exempt = [\"f*\", \"Rand-Core@0.10.1\"]\n[[mirror.age]]\ncrate = \"hex\"\nmin-publish-age = \"0\"",
        1,
    ),
    (
        "mirror.exempt = [{ crate = \"f*\", expires = 2026-08-22T00:00:00Z }]",
        0,
    ),
    (
        "bans.allow = [\"fnv\", \"CFG-IF:>=0.1.9\", \"matches\", \"rand_core\", \"foreign_types_shared\"]",
        2,
    ),
    ("", 9),
];

/// A line as crates.io writes it: without spaces between the fields.
fn compact(line: &str) -> String {
    let mut in_text = false;
    let keep = |character: &char| {
        in_text ^= *character == '"';
        in_text || *character != ' '
    };
    line.chars().filter(keep).collect()
}

fn time(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap();
    time.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The real index file of a crate. Its last three versions are new: one hour, three days, and of unknown age.
fn file(name: &str, is_compact: bool) -> String {
    let text = String::from_utf8(fixture(name)).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut file = String::new();
    for (place, line) in lines.iter().enumerate() {
        let begin = line.find("\"pubtime\": \"").unwrap();
        let old = line
            .get(begin..begin + "\"pubtime\": \"2017-11-26T23:56:57Z\"".len())
            .unwrap();
        let line = match lines.len() - place {
            1 => line.replace(old, &format!("\"pubtime\": \"{}\"", time(NOW - 3_600))),
            2 => line.replace(old, &format!("\"pubtime\": \"{}\"", time(NOW - 3 * DAY))),
            3 => line.replace(&format!(", {old}"), ""),
            _ => (*line).to_owned(),
        };
        file.push_str(&if is_compact { compact(&line) } else { line });
        file.push('\n');
    }
    file + "junk\n\n{\"name\": \"no version\"}"
}

/// The yanked flag of each version in the lines.
fn flags(file: &str) -> BTreeMap<String, bool> {
    let lines = file
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let flag = |line: Value| Some((line["vers"].as_str()?.to_owned(), line["yanked"].as_bool()?));
    lines.filter_map(flag).collect()
}

/// A line without the value of its flag.
fn without_flag(line: &str) -> String {
    line.replace("\"yanked\": true", "\"yanked\": false")
        .replace("\"yanked\":true", "\"yanked\":false")
}

#[test]
fn every_surface_agrees_on_every_version_under_each_policy() {
    let seconds = Arc::new(AtomicI64::new(NOW));
    let (index, database) = (GitIndex::empty(), GitIndex::empty());
    let upstream: BTreeMap<&str, String> = CRATES
        .iter()
        .enumerate()
        .map(|(place, name)| (*name, file(name, place % 2 == 0)))
        .collect();
    let mut commit = index.commit();
    for (name, content) in &upstream {
        commit = commit.crate_file(name, content.as_bytes());
    }
    commit.send();
    let malware = "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"Matches\"\ndate = \"2026-08-19\"\n\
        categories = [\"malicious\"]\n\n[versions]\npatched = [\"> 0.1.9\"]\nunaffected = [\"< 0.1.9\"]\n```\n\n# A title\n";
    let fixed = "```toml\n[advisory]\nid = \"RUSTSEC-2026-0002\"\npackage = \"fnv\"\ndate = \"2026-08-19\"\n\n\
        [versions]\npatched = [\">= 1.0.7\"]\n```\n\n# A title\n";
    database
        .commit()
        .file("crates/matches/RUSTSEC-2026-0001.md", malware.as_bytes())
        .file("crates/fnv/RUSTSEC-2026-0002.md", fixed.as_bytes())
        .send();
    let (data, policies) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let policy = policies.path().join("policy.toml");
    std::fs::write(&policy, STEPS[0].0).unwrap();
    let settings = [
        ("GIT_REPO_URL", index.path().to_str().unwrap().to_owned()),
        (
            "ADVISORY_DB_URL",
            database.path().to_str().unwrap().to_owned(),
        ),
        ("DATA_DIR", data.path().to_str().unwrap().to_owned()),
        ("POLICY_FILE", policy.to_str().unwrap().to_owned()),
        ("PUBLIC_URL", "http://mirror.example".to_owned()),
        ("MIN_PUBLISH_AGE", "7 days".to_owned()),
        ("MIN_PUBLISH_AGE_UNKNOWN", "hold".to_owned()),
        ("HELD_DOWNLOADS", "deny".to_owned()),
    ];
    let clock = Arc::clone(&seconds);
    let clock = Clock::custom(move || {
        let seconds = clock.load(Ordering::Relaxed).try_into().unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    });
    let mirror = Mirror::start_with_clock(&borrowed(&settings), clock, |config| {
        config.refresh_interval = Some(Duration::from_millis(50));
    });
    mirror.wait_until_ready();
    let clone = GitClone::of(&format!("http://{}/git/index", mirror.address), &["--bare"]);
    let mut states = BTreeMap::new();
    for (text, days) in STEPS {
        let draft = policies.path().join("draft");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(draft, &policy).unwrap();
        seconds.fetch_add(days * DAY, Ordering::Relaxed);
        // The mirror follows this commit after the change of the policy.
        let name = format!("marker{}", seconds.load(Ordering::Relaxed));
        let line = upstream["fnv"].lines().next().unwrap();
        let commit = index
            .commit()
            .crate_file(&name, line.as_bytes())
            .file("README.md", text.as_bytes())
            .send();
        mirror.wait_for_commit(&commit);
        // The mirror may read the policy file before the commit, and the advisories later.
        let x_policy = || {
            mirror
                .get("/index/3/f/fnv")
                .header("x-policy")
                .map(str::to_owned)
        };
        eventually("the advisories are in use", || {
            !mirror.get("/policy").json()["advisories"].is_null()
        });
        let policy_of_step = x_policy();
        clone.git(&["fetch", "--quiet", "origin", "+HEAD:refs/heads/shown"]);
        let git = Repository::open_bare(clone.path()).unwrap();
        let tree = git
            .find_reference("refs/heads/shown")
            .unwrap()
            .peel_to_tree()
            .unwrap();
        for (name, source) in &upstream {
            let path = index_path(name);
            let shown = mirror.get(&format!("/index/{path}"));
            let blob = tree.get_path(Path::new(&path)).unwrap().id();
            let shown_by_git = git.find_blob(blob).unwrap().content().to_vec();
            assert_eq!(shown.body, shown_by_git, "{name}");
            assert_eq!(shown.header("etag"), Some(format!("\"{blob}\"").as_str()));
            let shown = shown.text();
            assert_eq!(
                without_flag(&shown),
                without_flag(source),
                "more than the flag has changed"
            );
            let expected = flags(&shown);

            let api = mirror.get(&format!("/api/v1/crates/{name}")).json();
            let versions = api["versions"].as_array().unwrap();
            let flag = |version: &Value| {
                (
                    version["num"].as_str().unwrap().to_owned(),
                    version["yanked"].as_bool().unwrap(),
                )
            };
            assert_eq!(
                versions.iter().map(flag).collect::<BTreeMap<_, _>>(),
                expected
            );
            let usable = versions.iter().filter(|version| version["yanked"] == false);
            let max: Option<semver::Version> = usable
                .map(|version| version["num"].as_str().unwrap().parse().unwrap())
                .max();
            let max = max.map_or_else(|| "0.0.0".to_owned(), |max| max.to_string());
            assert_eq!(api["crate"]["max_version"], max.as_str(), "{name}");

            let decided = mirror.get(&format!("/policy/{name}")).json();
            let decided = decided["versions"].as_array().unwrap();
            let source = flags(source);
            for version in decided {
                let number = version["version"].as_str().unwrap();
                let (state, served) = (
                    version["state"].as_str().unwrap(),
                    &version["served_yanked"],
                );
                let path = format!("/policy/{name}/{number}");
                let mut alone = mirror.get(&path).json();
                alone.as_object_mut().unwrap().remove("crate");
                assert_eq!(alone, *version);
                assert_eq!(*served, expected[number], "{name} {number}");
                assert_eq!(version["upstream_yanked"], source[number]);
                let is_refused = state == "held" || state == "denied";
                assert_eq!(
                    expected[number],
                    is_refused || source[number],
                    "{name} {number} {version}"
                );
                let download = mirror.get(&format!("/api/v1/crates/{name}/{number}/download"));
                assert_eq!(
                    download.status,
                    if is_refused { 403 } else { 302 },
                    "{name} {number}"
                );
                let message = versions
                    .iter()
                    .find(|version| version["num"] == number)
                    .unwrap();
                let message = message["yank_message"].as_str();
                if is_refused {
                    assert_eq!(message, Some(download.detail().as_str()));
                } else {
                    assert_eq!(message, None);
                }
                *states
                    .entry((
                        state.to_owned(),
                        version["rule"].as_str().unwrap_or("none").to_owned(),
                    ))
                    .or_insert(0) += 1;
            }
            assert_eq!(decided.len(), expected.len());
        }
        assert_eq!(
            x_policy(),
            policy_of_step,
            "the policy has changed meanwhile"
        );
    }
    println!("{states:?}");
    for rule in [
        "denied-by-file",
        "malware",
        "allow-list",
        "exempt",
        "security-fix",
        "min-publish-age",
        "unknown-publish-time",
        "none",
    ] {
        assert!(
            states.keys().any(|(_, found)| found == rule),
            "{rule}: {states:?}"
        );
    }
}
