//! The policy while everything changes at once: releases, yanks and deletions, the policy file, the advisories and the
//! time. Two answers of one commit and one policy never contradict each other, and a SIGKILL at any moment leaves
//! nothing wrong.
//!
//! Two variables start long runs: `POLICY_REFRESHES=5000` and `POLICY_KILLS=50`. `--nocapture` shows the memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use crates_io_mirror::Clock;
use git2::build::TreeUpdateBuilder;
use git2::{FileMode, Repository, Signature};
use serde_json::Value;
use tempfile::TempDir;

use crate::git_served::GitClone;
use crate::support::{Answer, Client, GitIndex, Mirror, Program, eventually, index_path};

const MINUTE: i64 = 60;
const DAY: i64 = 86_400;

/// 2026-08-20T00:00:00Z.
const NOW: i64 = 1_787_184_000;

const CRATES: usize = 12;
const VERSIONS_MAX: usize = 12;
const REFRESHES: usize = 150;
const READERS: usize = 2;
const READS_PER_REFRESH: usize = 4;
const GIT_FETCH_EVERY: usize = 50;
const KILLS: usize = 5;

#[expect(
    clippy::disallowed_methods,
    reason = "the long runs are switched on by a variable of the tests"
)]
fn number_from(variable: &str, usual: usize) -> usize {
    let text = std::env::var(variable).ok();
    text.map_or(usual, |text| text.parse().unwrap())
}

/// A version in the upstream's index.
#[derive(Clone)]
struct Version {
    number: String,
    published: i64,
    yanked: bool,
}

/// An upstream that changes at random.
struct Upstream {
    index: GitIndex,
    crates: BTreeMap<String, Vec<Version>>,
    /// The number of changes so far.
    changes: usize,
}

impl Upstream {
    fn new(now: i64) -> Self {
        let mut upstream = Self {
            index: GitIndex::empty(),
            crates: BTreeMap::new(),
            changes: 0,
        };
        for number in 0..CRATES {
            let versions = (0..3).map(|patch| Version {
                number: format!("1.0.{patch}"),
                published: now - (400 - patch) * DAY,
                yanked: false,
            });
            upstream
                .crates
                .insert(format!("crate{number}"), versions.collect());
        }
        let names: Vec<String> = upstream.crates.keys().cloned().collect();
        upstream.commit(&names);
        upstream
    }

    /// Changes a crate in one of the ways that crates.io has. Returns its name.
    fn change(&mut self, random: &mut fastrand::Rng, now: i64) -> String {
        self.changes += 1;
        let name = format!("crate{}", random.usize(..CRATES));
        let versions = self.crates.entry(name.clone()).or_default();
        let release = Version {
            number: format!("1.0.{}", 9 + self.changes),
            published: now - 5,
            yanked: false,
        };
        let place = random.usize(..versions.len().max(1));
        match random.u8(..10) {
            // The attack: all old versions are yanked beside a release.
            0 => {
                for version in &mut *versions {
                    version.yanked = true;
                }
                versions.push(release);
            }
            1 | 2 if !versions.is_empty() => versions[place].yanked ^= true,
            3 if !versions.is_empty() => drop(versions.remove(place)),
            4 => versions.clear(),
            _ => versions.push(release),
        }
        if versions.len() > VERSIONS_MAX {
            versions.remove(0);
        }
        name
    }

    /// Commits the current state of these crates. With git2, because a process for each step would take most of the
    /// time.
    fn commit(&self, names: &[String]) -> String {
        let git = Repository::open_bare(self.index.path()).unwrap();
        let parent = git.head().ok().map(|head| head.peel_to_commit().unwrap());
        let base = match &parent {
            Some(parent) => parent.tree().unwrap(),
            None => git
                .find_tree(git.treebuilder(None).unwrap().write().unwrap())
                .unwrap(),
        };
        let mut update = TreeUpdateBuilder::new();
        let names: BTreeSet<&String> = names.iter().collect();
        for name in names {
            let path = index_path(name);
            let versions = &self.crates[name];
            if versions.is_empty() {
                if base.get_path(Path::new(&path)).is_ok() {
                    update.remove(path);
                }
                continue;
            }
            let lines: String = versions.iter().map(|version| line(name, version)).collect();
            let blob = git.blob(lines.as_bytes()).unwrap();
            update.upsert(path, blob, FileMode::Blob);
        }
        let tree = git.find_tree(update.create_updated(&git, &base).unwrap());
        let who = Signature::now("index", "index@mirror.example").unwrap();
        let parents: Vec<_> = parent.iter().collect();
        let commit = git.commit(Some("HEAD"), &who, &who, "change", &tree.unwrap(), &parents);
        commit.unwrap().to_string()
    }
}

fn line(name: &str, version: &Version) -> String {
    let time = chrono::DateTime::from_timestamp(version.published, 0).unwrap();
    let time = time.format("%Y-%m-%dT%H:%M:%SZ");
    let Version { number, yanked, .. } = version;
    format!(
        "{{\"name\":\"{name}\",\"vers\":\"{number}\",\"deps\":[],\"cksum\":\"{}\",\"features\":{{}},\"yanked\":{yanked},\"pubtime\":\"{time}\"}}\n",
        "0".repeat(64)
    )
}

/// A policy file that changes atomically.
struct PolicyFile {
    directory: TempDir,
}

impl PolicyFile {
    fn new() -> Self {
        let file = Self {
            directory: TempDir::new().unwrap(),
        };
        file.write("# nothing");
        file
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("policy.toml")
    }

    fn write(&self, text: &str) {
        let draft = self.directory.path().join("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, self.path()).unwrap();
    }

    /// Writes one of a few contents, so that contents come again.
    fn change(&self, random: &mut fastrand::Rng, now: i64) {
        let (one, other) = (random.usize(..CRATES), random.usize(..CRATES));
        let text = match random.u8(..6) {
            0 => "# nothing".to_owned(),
            1 => format!("bans.deny = [\"crate{one}\"]"),
            2 => format!("bans.deny = [{{ crate = \"crate{one}:<=1.0.1\", reason = \"old\" }}]"),
            3 => format!("mirror.exempt = [\"CRATE{one}\", \"crate{other}@1.0.2\"]"),
            4 => {
                let end = chrono::DateTime::from_timestamp(now + 2 * DAY, 0).unwrap();
                let end = end.format("%Y-%m-%dT%H:%M:%SZ");
                format!("mirror.exempt = [{{ crate = \"crate1*\", expires = {end} }}]")
            }
            _ => format!(
                "mirror.age = [{{ crate = \"crate{one}\", min-publish-age = \"30 days\" }}]"
            ),
        };
        self.write(&text);
    }
}

/// The commit and the policy that an answer was made from.
type Pair = (String, String);

/// The answers so far. An answer that contradicts them makes the test fail.
#[derive(Default)]
struct Answers {
    /// The bytes, by pair and path.
    bytes: HashMap<(Pair, String), u64>,
    /// The yanked flags, by pair and crate.
    flags: HashMap<(Pair, String), (BTreeMap<String, bool>, String)>,
    /// Whether the file of a version is refused, by pair, crate and version.
    refused: HashMap<(Pair, String, String), (bool, String)>,
    /// How many answers were equal to an earlier one, or agreed with one on another surface.
    compared: usize,
    /// How many versions were seen in each state.
    states: BTreeMap<String, usize>,
    /// The pairs in the order in which they were met.
    pairs: Vec<Pair>,
}

impl Answers {
    fn pair(answer: &Answer) -> Option<Pair> {
        let header = |name| answer.header(name).map(str::to_owned);
        Some((header("x-index-commit")?, header("x-policy")?))
    }

    fn note_bytes(&mut self, pair: &Pair, path: &str, answer: &Answer) {
        let mut hasher = DefaultHasher::new();
        (
            answer.status,
            &answer.body,
            answer.header("location"),
            answer.header("etag"),
        )
            .hash(&mut hasher);
        let bytes = hasher.finish();
        let before = self.bytes.insert((pair.clone(), path.to_owned()), bytes);
        if let Some(before) = before {
            assert_eq!(before, bytes, "{path} {pair:?} {answer:?}");
            self.compared += 1;
        }
        if !self.pairs.contains(pair) {
            self.pairs.push(pair.clone());
        }
    }

    fn note_flags(
        &mut self,
        pair: &Pair,
        name: &str,
        (flags, surface): (BTreeMap<String, bool>, &str),
    ) {
        let key = (pair.clone(), name.to_owned());
        let (before, where_before) = self
            .flags
            .entry(key)
            .or_insert_with(|| (flags.clone(), surface.to_owned()));
        assert_eq!(
            *before, flags,
            "{where_before} and {surface}: {name} {pair:?}"
        );
        self.compared += usize::from(where_before != surface);
    }

    fn note_refused(
        &mut self,
        pair: &Pair,
        (name, version): (&str, &str),
        (refused, surface): (bool, &str),
    ) {
        let key = (pair.clone(), name.to_owned(), version.to_owned());
        let (before, where_before) = self
            .refused
            .entry(key)
            .or_insert_with(|| (refused, surface.to_owned()));
        assert_eq!(
            *before, refused,
            "{where_before} and {surface}: {name} {version} {pair:?}"
        );
        self.compared += usize::from(where_before != surface);
    }

    /// Forgets all but the newest pairs, because the long run also measures the memory.
    fn forget_old(&mut self) {
        const KEPT: usize = 40;
        if self.pairs.len() < 2 * KEPT {
            return;
        }
        self.pairs.drain(..self.pairs.len() - KEPT);
        let pairs = &self.pairs;
        self.bytes.retain(|(pair, _), _| pairs.contains(pair));
        self.flags.retain(|(pair, _), _| pairs.contains(pair));
        self.refused.retain(|(pair, ..), _| pairs.contains(pair));
    }
}

fn flags_of_file(file: &[u8]) -> BTreeMap<String, bool> {
    let lines = file
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let flag = |line: &[u8]| {
        let line: Value = serde_json::from_slice(line).unwrap();
        (text(&line["vers"]), line["yanked"].as_bool().unwrap())
    };
    lines.map(flag).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Asks for a crate on a surface, and records the answer.
fn read(mirror: Client, answers: &Mutex<Answers>, (name, version, surface): (&str, usize, usize)) {
    let number = || format!("1.0.{version}");
    let path = match surface % 8 {
        0 | 1 => format!("/index/{}", index_path(name)),
        2 => format!("/api/v1/crates/{name}"),
        3 | 4 => format!("/policy/{name}"),
        5 => format!("/api/v1/crates/{name}/{}/download", number()),
        6 => format!("/api/v1/crates?q={name}"),
        _ => format!("/at/2026-08-01/index/{}", index_path(name)),
    };
    let answer = mirror.get(&path);
    let Some(pair) = Answers::pair(&answer) else {
        panic!("{path}: {answer:?}");
    };
    let mut answers = answers.lock().unwrap();
    answers.note_bytes(&pair, &path, &answer);
    let is_found = answer.status != 404;
    match surface % 8 {
        0 | 1 => {
            let flags = if is_found {
                flags_of_file(&answer.body)
            } else {
                BTreeMap::new()
            };
            answers.note_flags(&pair, name, (flags, "sparse"));
        }
        2 => {
            let json = answer.json();
            let versions = json["versions"].as_array().into_iter().flatten();
            let flag =
                |version: &Value| (text(&version["num"]), version["yanked"].as_bool().unwrap());
            answers.note_flags(&pair, name, (versions.map(flag).collect(), "api"));
        }
        3 | 4 => {
            let json = answer.json();
            let versions = || json["versions"].as_array().into_iter().flatten();
            let flag = |version: &Value| {
                (
                    text(&version["version"]),
                    version["served_yanked"].as_bool().unwrap(),
                )
            };
            answers.note_flags(&pair, name, (versions().map(flag).collect(), "policy"));
            for version in versions() {
                let state = text(&version["state"]);
                let is_refused = state == "held" || state == "denied";
                let number = text(&version["version"]);
                answers.note_refused(&pair, (name, &number), (is_refused, "policy"));
                *answers.states.entry(state).or_insert(0) += 1;
            }
        }
        5 if is_found => {
            assert!([302, 403].contains(&answer.status), "{path}: {answer:?}");
            let is_refused = answer.status == 403;
            answers.note_refused(&pair, (name, &number()), (is_refused, "download"));
        }
        _ => {}
    }
}

/// Reads until the last refresh.
fn keep_reading(
    mirror: Client,
    answers: &Mutex<Answers>,
    refreshes: &Receiver<usize>,
    reader: usize,
) {
    let mut random = fastrand::Rng::with_seed(reader.try_into().unwrap());
    for newest in refreshes {
        // One crate on several surfaces, so that their answers can be compared.
        let name = format!("crate{}", random.usize(..CRATES));
        for _ in 0..READS_PER_REFRESH {
            let version = if random.bool() {
                random.usize(..3)
            } else {
                9 + random.usize(newest.saturating_sub(15)..=newest)
            };
            read(mirror, answers, (&name, version, random.usize(..8)));
        }
    }
}

/// The repository for git clients, inside the clone in use.
fn served_repository(data: &Path) -> Option<Repository> {
    let index = data.join("index");
    let clone = fs::read_to_string(index.join("current")).ok()?;
    Repository::open_bare(index.join(clone.trim()).join("served")).ok()
}

/// The index file of a crate in a repository, or nothing if there is none.
fn file_in(git: &Repository, reference: &str, name: &str) -> Option<Vec<u8>> {
    let tree = git.find_reference(reference).ok()?.peel_to_tree().ok()?;
    let Ok(entry) = tree.get_path(Path::new(&index_path(name))) else {
        return Some(Vec::new());
    };
    Some(git.find_blob(entry.id()).ok()?.content().to_vec())
}

/// Compares the repository for git clients with the sparse index. The repository is ahead of the view for a moment.
fn compare_served(mirror: Client, answers: &Mutex<Answers>, data: &Path, name: &str) {
    let path = format!("/index/{}", index_path(name));
    eventually("the git index and the sparse one are equal", || {
        let before = mirror.get(&path);
        let served = served_repository(data);
        let git = served.and_then(|git| file_in(&git, "refs/heads/master", name));
        let after = mirror.get(&path);
        let pair = Answers::pair(&before).unwrap();
        let is_same = git.as_ref() == Some(&content(before));
        if !is_same || Answers::pair(&after).as_ref() != Some(&pair) {
            return false;
        }
        let flags = (flags_of_file(&git.unwrap()), "git");
        answers.lock().unwrap().note_flags(&pair, name, flags);
        true
    });
}

/// Compares a git client's clone with the sparse index while nothing changes.
fn compare_fetched(mirror: Client, clone: &GitClone, name: &str) {
    let path = format!("/index/{}", index_path(name));
    let refs = "/git/index/info/refs?service=git-upload-pack";
    eventually("a git client and a reader of files have one view", || {
        let before = Answers::pair(&mirror.request("HEAD", refs, &[]));
        clone.git(&["fetch", "--quiet", "origin", "+HEAD:refs/heads/shown"]);
        let sparse = mirror.get(&path);
        let after = Answers::pair(&mirror.request("HEAD", refs, &[]));
        if before.is_none() || before != after || before != Answers::pair(&sparse) {
            return false;
        }
        let git = Repository::open_bare(clone.path()).unwrap();
        assert_eq!(
            file_in(&git, "refs/heads/shown", name),
            Some(content(sparse))
        );
        true
    });
}

/// The content of an index file; empty without one.
fn content(answer: Answer) -> Vec<u8> {
    if answer.status == 404 {
        Vec::new()
    } else {
        answer.body
    }
}

/// What the caches of the mirror have, in MiB.
fn cached_mib(client: Client) -> f64 {
    let page = client.get("/metrics").text();
    let lines = page.lines();
    let caches = lines.filter_map(|line| line.strip_prefix("crates_io_mirror_cache_bytes{"));
    let bytes = caches.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
    bytes.sum::<f64>() / 1024.0 / 1024.0
}

/// The anonymous memory of this process, in MiB.
fn memory_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib / 1024
}

/// A database with this many advisories about malware.
fn malware(database: &GitIndex, crates: &[usize]) {
    let mut commit = database.commit().file("README.md", b"# Advisories\n");
    for number in 0..CRATES {
        let path = format!("crates/crate{number}/RUSTSEC-2026-{number:04}.md");
        // Other advisories were withdrawn.
        let withdrawn = if crates.contains(&number) {
            ""
        } else {
            "withdrawn = \"2026-08-21\"\n"
        };
        let text = format!(
            "```toml\n[advisory]\nid = \"RUSTSEC-2026-{number:04}\"\npackage = \"Crate{number}\"\ndate = \"2026-08-20\"\n{withdrawn}\
             categories = [\"malicious\"]\n\n[versions]\npatched = [\">= 1.0.2\"]\n```\n\n# A title\n\nA description.\n"
        );
        commit = commit.file(&path, text.as_bytes());
    }
    commit.send();
}

#[test]
fn answers_of_one_commit_and_one_policy_always_agree() {
    let refreshes = number_from("POLICY_REFRESHES", REFRESHES);
    let seconds = Arc::new(AtomicI64::new(NOW));
    let mut upstream = Upstream::new(NOW);
    let (policy, database) = (PolicyFile::new(), GitIndex::empty());
    malware(&database, &[1]);
    let data = TempDir::new().unwrap();
    let settings = [
        (
            "GIT_REPO_URL",
            upstream.index.path().to_str().unwrap().to_owned(),
        ),
        (
            "ADVISORY_DB_URL",
            database.path().to_str().unwrap().to_owned(),
        ),
        ("DATA_DIR", data.path().to_str().unwrap().to_owned()),
        ("POLICY_FILE", policy.path().to_str().unwrap().to_owned()),
        ("PUBLIC_URL", "http://mirror.example".to_owned()),
        ("MIN_PUBLISH_AGE", "7 days".to_owned()),
        ("YANK_GUARD", "3 days".to_owned()),
        ("HELD_DOWNLOADS", "deny".to_owned()),
    ];
    let clock = Arc::clone(&seconds);
    let clock = Clock::custom(move || {
        let seconds = clock.load(Ordering::Relaxed).try_into().unwrap();
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    });
    let mirror = Mirror::start_with_clock(&crate::support::borrowed(&settings), clock, |config| {
        config.refresh_interval = Some(Duration::from_millis(60));
        config.advisory_interval = Duration::from_secs(1);
    });
    mirror.wait_until_ready();
    eventually("the advisories are in use", || {
        !mirror.get("/policy").json()["advisories"].is_null()
    });
    let client = Client::new(mirror.address);
    let clone = GitClone::of(&format!("http://{}/git/index", mirror.address), &["--bare"]);
    let answers = Mutex::new(Answers::default());
    let mut random = fastrand::Rng::with_seed(14);
    let mut memory = memory_mib();
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|reader| {
                let (next, refreshes) = channel();
                let answers = &answers;
                scope.spawn(move || keep_reading(client, answers, &refreshes, reader));
                next
            })
            .collect();
        for refresh in 0..refreshes {
            if refresh == refreshes / 10 {
                memory = memory_mib();
            }
            if refresh % 250 == 249 {
                let caches = cached_mib(client);
                println!(
                    "{refresh} refreshes, {} MiB, caches {caches:.1} MiB",
                    memory_mib()
                );
            }
            // Holds begin and end. Sometimes the clock goes back, by a little or by much.
            let step = match random.u8(..20) {
                0 => -3 * MINUTE,
                1 => -2 * DAY,
                2 => 6 * DAY,
                _ => random.i64(0..600) * MINUTE,
            };
            let now = seconds.fetch_add(step, Ordering::Relaxed) + step;
            if refresh % 3 == 0 {
                policy.change(&mut random, now);
            }
            if refresh % 40 == 20 {
                malware(&database, &[random.usize(..CRATES)]);
            }
            for next in &readers {
                next.send(upstream.changes).unwrap();
            }
            let mut names = Vec::new();
            for _ in 0..random.usize(1..4) {
                names.push(upstream.change(&mut random, now));
            }
            // This crate makes the commit differ from the last one.
            upstream.crates.insert(
                "last".to_owned(),
                vec![Version {
                    number: format!("1.0.{refresh}"),
                    published: now - 30 * DAY,
                    yanked: false,
                }],
            );
            names.push("last".to_owned());
            let commit = upstream.commit(&names);
            // One request for each check, because there are many checks.
            eventually("the commit is followed", || {
                let answer = mirror.request("HEAD", "/index/la/st/last", &[]);
                answer.header("x-index-commit") == Some(&commit)
            });
            for name in &names {
                for surface in [0, 2, 3] {
                    read(client, &answers, (name, 0, surface));
                }
            }
            let name = &names[0];
            compare_served(client, &answers, data.path(), name);
            if refresh % GIT_FETCH_EVERY == 0 {
                compare_fetched(client, &clone, name);
            }
            answers.lock().unwrap().forget_old();
        }
    });
    let answers = answers.into_inner().unwrap();
    let memory_at_end = memory_mib();
    println!(
        "{refreshes} refreshes, {} comparisons, {:?}; {memory} MiB after a tenth, {memory_at_end} MiB at the end",
        answers.compared, answers.states
    );
    assert!(answers.compared > 2 * refreshes, "{}", answers.compared);
    for state in ["allowed", "held", "denied", "frozen"] {
        assert!(answers.states.contains_key(state), "{:?}", answers.states);
    }
    if refreshes > REFRESHES {
        assert!(
            memory_at_end < memory + memory / 4 + 32,
            "{memory} MiB, then {memory_at_end} MiB"
        );
    }
}

/// All answers of a mirror about these crates.
fn all_answers(mirror: &Client, upstream: &Upstream) -> Vec<(String, Answer)> {
    let mut paths = vec![
        "/index/config.json".to_owned(),
        "/api/v1/crates?per_page=100".to_owned(),
    ];
    for (name, versions) in &upstream.crates {
        paths.push(format!("/index/{}", index_path(name)));
        paths.push(format!("/at/2026-01-01/index/{}", index_path(name)));
        paths.push(format!("/api/v1/crates/{name}"));
        paths.push(format!("/policy/{name}"));
        for version in versions.iter().rev().take(2) {
            paths.push(format!("/api/v1/crates/{name}/{}/download", version.number));
        }
    }
    let ask = |path: String| {
        let answer = mirror.get(&path);
        (path, answer)
    };
    paths.into_iter().map(ask).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the program of this test has the system's clock"
)]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs().try_into().unwrap()
}

#[test]
fn kills_at_any_moment_leave_the_same_decisions_as_an_empty_disk() {
    let kills = number_from("POLICY_KILLS", KILLS);
    let mut upstream = Upstream::new(now());
    let policy = PolicyFile::new();
    let mut random = fastrand::Rng::with_seed(14);
    let (data, url) = (TempDir::new().unwrap(), upstream.index.path());
    let settings = |data: &TempDir| {
        [
            ("GIT_REPO_URL", url.to_str().unwrap().to_owned()),
            ("DATA_DIR", data.path().to_str().unwrap().to_owned()),
            ("POLICY_FILE", policy.path().to_str().unwrap().to_owned()),
            ("PUBLIC_URL", "http://mirror.example".to_owned()),
            ("MIN_PUBLISH_AGE", "7 days".to_owned()),
            ("HELD_DOWNLOADS", "deny".to_owned()),
        ]
    };
    let own = settings(&data);
    let mut running = Program::start(&crate::support::borrowed(&own));
    running.wait_until_ready();
    for kill in 0..kills {
        let names: Vec<String> = (0..6)
            .map(|_| upstream.change(&mut random, now()))
            .collect();
        let commit = upstream.commit(&names);
        policy.change(&mut random, now());
        std::thread::scope(|scope| {
            let client = Client::new(running.address);
            // A request for an unlisted version makes the mirror fetch the index.
            scope
                .spawn(move || drop(client.try_request("GET", "/api/v1/crates/crate0/9.9.9", &[])));
            // A kill may come at any moment, so this waits for no condition.
            std::thread::park_timeout(Duration::from_millis(random.u64(..120)));
            running.kill();
        });
        running = Program::start(&crate::support::borrowed(&own));
        let empty = TempDir::new().unwrap();
        let others = settings(&empty);
        let fresh = Mirror::start(&crate::support::borrowed(&others));
        fresh.wait_until_ready();
        fresh.wait_for_commit(&commit);
        running.wait_for_commit(&commit);
        // The catalog follows the view a moment later.
        eventually("both have a catalog", || {
            let search = "/api/v1/crates?per_page=100";
            [&*fresh, &*running]
                .iter()
                .all(|mirror| mirror.get(search).status == 200)
        });
        let expected = all_answers(&fresh, &upstream);
        let found = all_answers(&running, &upstream);
        for ((path, expected), (_, found)) in expected.iter().zip(&found) {
            let output = running.output();
            assert_eq!(expected.status, found.status, "{path}, {kill}: {output}");
            assert_eq!(expected.body, found.body, "{path}, {kill}: {output}");
            for header in ["x-index-commit", "x-policy", "etag", "location"] {
                let (expected, found) = (expected.header(header), found.header(header));
                assert_eq!(expected, found, "{header} of {path}, {kill}: {output}");
            }
        }
    }
}
