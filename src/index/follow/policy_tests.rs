//! A view that was made step by step equals a view that is made from nothing: its tree, what the policy has found, and the
//! name of its decisions. The time, the index, the policy file and the advisories change at random.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use serde_json::Value;

use super::policy_facts::{PolicyFacts, PolicyLookup};
use crate::clock::Clock;
use crate::index::source::clone_dir;
use crate::index::source::fetch::UPSTREAM_HEAD;
use crate::index::status::ProgressCell;
use crate::index::testing::{TestIndex, checksum};
use crate::index::view::build::build;
use crate::index::view::policy::ViewPolicy;
use crate::index::{IndexHandle, ShownFlag};
use crate::package::{CrateName, IndexPath};
use crate::policy::testing::{CRATES, DAY, MINUTE, NOW, databases, policy_files, time};
use crate::policy::{DECISIONS, Facts, PolicyFile, Rule, Rules, SeenYanks, Settings, UnknownAge};

/// One version in the index of the upstream.
#[derive(Clone, Debug)]
struct Version {
    text: String,
    published: Option<i64>,
    yanked: bool,
    is_compact: bool,
}

type Files = BTreeMap<String, Vec<Version>>;

/// An upstream and its mirror, with all that decides what the mirror shows.
struct World {
    index: TestIndex,
    rules: Rules,
    guard: i64,
    clock: Arc<AtomicI64>,
    facts: Arc<Mutex<PolicyFacts>>,
    files: Files,
    /// The files of the last refresh.
    followed: Files,
    policy_time: i64,
    /// The number of releases so far. It makes their versions differ.
    releases: usize,
    /// When yanks were seen, by crate and version.
    seen: BTreeMap<String, BTreeMap<String, i64>>,
}

impl World {
    fn new(settings: Settings) -> Self {
        let mut index = TestIndex::new(&[("config.json", "{}")]);
        let clock = Arc::new(AtomicI64::new(NOW));
        let facts = Arc::new(Mutex::new(PolicyFacts::default()));
        let guard = i64::try_from(settings.yank_guard.seconds).unwrap();
        let rules = Rules::new(vec![Rule::Policy(settings)]);
        index.settings_mut(|follower| {
            follower.rules = rules.clone();
            let (seconds, facts) = (Arc::clone(&clock), Arc::clone(&facts));
            follower.clock = Clock::custom(move || {
                let now = seconds.load(Ordering::Relaxed).try_into().unwrap();
                SystemTime::UNIX_EPOCH + Duration::from_secs(now)
            });
            follower.policy_lookup = Some(PolicyLookup::new(move || facts.lock().unwrap().clone()));
        });
        let mut world = Self {
            index,
            rules,
            guard,
            clock,
            facts,
            files: Files::new(),
            followed: Files::new(),
            policy_time: NOW,
            releases: 0,
            seen: BTreeMap::new(),
        };
        for ([name, _], versions) in &CRATES {
            let version = |(place, text): (usize, &&str)| Version {
                text: (*text).to_owned(),
                published: (place > 0).then_some(NOW - 400 * DAY),
                yanked: false,
                is_compact: place % 2 == 0,
            };
            let versions = versions.iter().enumerate().map(version).collect();
            world.files.insert((*name).to_owned(), versions);
        }
        world
    }

    fn now(&self) -> i64 {
        self.clock.load(Ordering::Relaxed)
    }

    fn turn_clock(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Until the next change that the mirror has promised.
    fn turn_clock_to_next_change(&self) {
        let view = self.index.handle.view().unwrap();
        let states = self
            .followed
            .keys()
            .filter_map(|name| view.policy_state(name));
        let next = states.filter_map(|state| state.next_change).min();
        if let Some(next) = next.filter(|next| *next > self.now()) {
            self.clock.store(next, Ordering::Relaxed);
        }
    }

    /// How many versions of a crate are held and frozen.
    fn found(&self, name: &str) -> (u32, u32) {
        let view = self.index.handle.view().unwrap();
        let state = view.policy_state(name);
        state.map_or((0, 0), |state| (state.held, state.frozen))
    }

    /// One change of something. `number` says of what exactly.
    fn change(&mut self, kind: u8, number: usize) {
        let ([name, _], versions) = &CRATES[number % CRATES.len()];
        let detail = number / CRATES.len();
        let now = self.now();
        self.releases += 1;
        let release = format!("{}{}", versions[2], self.releases);
        let file = self.files.entry((*name).to_owned()).or_default();
        let place = detail % file.len().max(1);
        match kind {
            // Time: on by some hours, to the next change, on by some days, back by a little, back by much.
            0 => self.turn_clock(i64::try_from(detail % 2_000).unwrap() * MINUTE + 7),
            1 => self.turn_clock_to_next_change(),
            2 => self.turn_clock(i64::try_from(detail % 12).unwrap() * DAY),
            3 => self.turn_clock(-i64::try_from(detail % 600).unwrap()),
            4 => self.turn_clock(-i64::try_from(detail % 4).unwrap() * DAY - 700),
            // The policy file and the advisories.
            5 | 6 => {
                let files = policy_files();
                let file = Arc::clone(&files[detail % files.len()]);
                self.facts.lock().unwrap().file = file;
            }
            7 => {
                let databases = databases();
                let database = databases
                    .get(detail % (databases.len() + 3))
                    .map(Arc::clone);
                self.facts.lock().unwrap().advisories = database;
            }
            // A release: of now, of long ago, or without a time.
            8 => file.push(Version {
                text: release,
                published: [Some(now - 60), Some(now - 40 * DAY), None][detail % 3],
                yanked: false,
                is_compact: detail.is_multiple_of(2),
            }),
            // The attack: a release, and all others yanked.
            9 => {
                for version in &mut *file {
                    version.yanked = true;
                }
                file.push(Version {
                    text: release,
                    published: Some(now - 60),
                    yanked: false,
                    is_compact: true,
                });
            }
            10 | 11 => {
                if let Some(version) = file.get_mut(place) {
                    version.yanked = !version.yanked;
                }
            }
            12 if !file.is_empty() => {
                file.remove(place);
            }
            // It vanishes, or comes back as it was at first.
            13 => file.clear(),
            _ => {
                if file.is_empty() {
                    file.extend(versions.iter().map(|text| Version {
                        text: (*text).to_owned(),
                        published: Some(now - 400 * DAY),
                        yanked: detail.is_multiple_of(2),
                        is_compact: false,
                    }));
                }
            }
        }
        self.files.retain(|_name, versions| !versions.is_empty());
    }

    fn commit(&self) {
        let mut files = vec![("config.json".to_owned(), "{}".to_owned())];
        for (name, versions) in &self.files {
            let path = IndexPath::from(&CrateName::try_from(name.clone()).unwrap());
            let line = |version: &Version| {
                let space = if version.is_compact { "" } else { " " };
                let time = version.published.map_or_else(String::new, |published| {
                    format!(",{space}\"pubtime\":{space}\"{}\"", time(published))
                });
                let Version { text, yanked, .. } = version;
                format!(
                    "{{\"name\":{space}\"{name}\",{space}\"vers\":{space}\"{text}\",{space}\"cksum\":{space}\"{}\",{space}\"yanked\":{space}{yanked}{time}}}\n",
                    checksum(1)
                )
            };
            let content: String = versions.iter().map(line).collect();
            files.push((path.as_str().to_owned(), content + "junk\n"));
        }
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_str()))
            .collect();
        self.index.commit(&files);
    }

    /// Notes what the mirror must notice at its next fetch.
    fn note_fetch(&mut self) {
        let fetched = self.now() - self.now().rem_euclid(MINUTE);
        let is_correction = (1..=600).contains(&(self.policy_time - fetched));
        if !is_correction {
            self.policy_time = fetched;
        }
        if self.guard == 0 {
            return;
        }
        let is_yanked = |files: &Files, name: &str, text: &str| {
            let version = files
                .get(name)?
                .iter()
                .find(|version| version.text == text)?;
            Some(version.yanked)
        };
        for (name, versions) in &self.followed {
            for before in versions {
                let after = is_yanked(&self.files, name, &before.text);
                let seen = self.seen.entry(name.clone()).or_default();
                match (before.yanked, after) {
                    (false, Some(true)) => {
                        seen.insert(before.text.clone(), self.policy_time);
                    }
                    (true, Some(false) | None) => {
                        seen.remove(&before.text);
                    }
                    _ => {}
                }
            }
        }
        // Before a clock goes back, all is forgotten that cannot matter any more.
        let (guard, now) = (self.guard, self.policy_time);
        self.seen
            .retain(|_name, seen| seen.values().any(|at| at + guard >= now));
    }

    /// What the mirror should decide from.
    fn facts(&self) -> Facts {
        let mut yanks = SeenYanks::default();
        for (name, versions) in &self.seen {
            for (version, at) in versions {
                yanks.note(name, version, *at);
            }
        }
        let facts = self.facts.lock().unwrap().clone();
        Facts {
            file: facts.file,
            advisories: facts.advisories,
            yanks: Arc::new(yanks),
            policy_time: self.policy_time,
            ..Facts::default()
        }
    }

    /// How many files the mirror must read if nothing but the time changes.
    fn due(&self) -> usize {
        let Some(view) = self.index.handle.view() else {
            return self.files.len();
        };
        let is_due = |name: &&String| {
            let next = view.policy_state(name).and_then(|state| state.next_change);
            next.is_some_and(|next| next <= self.policy_time)
        };
        self.files.keys().filter(is_due).count()
    }

    fn check(&self) {
        let view = self.index.handle.view().unwrap();
        let read = |name: &String| {
            let name = CrateName::try_from(name.clone()).unwrap();
            let blob = view.find(&name).unwrap();
            view.read_blob(blob, <[u8]>::len).unwrap()
        };
        // The clone has every file that is shown; so this comes before all of them are written again.
        assert!(self.files.keys().map(read).all(|bytes| bytes > 0));
        let facts = self.facts();
        let progress = ProgressCell::default();
        let anew = build(view.source(), None, (&self.rules, &facts), &progress).unwrap();
        for name in self.files.keys() {
            assert_eq!(view.policy_state(name), anew.states.of(name), "{name}");
        }
        assert_eq!(view.policy_totals(), Some(&anew.states.totals));
        assert_eq!(view.root().tree, anew.tree);
        let policy = ViewPolicy::new(
            self.rules.clone(),
            Some(facts),
            Arc::clone(&anew.states),
            anew.tree,
        );
        assert_eq!(view.policy_id(), Some(policy.id()));
        // The explanation is decided later, from the facts of the view.
        for name in self.files.keys() {
            let (file, blob) = view
                .source_file(&CrateName::try_from(name.clone()).unwrap())
                .unwrap();
            let explained = view.read_blob(blob, |content| view.decisions(file, content));
            let explained = explained.unwrap();
            let shown = view
                .find(&CrateName::try_from(name.clone()).unwrap())
                .unwrap();
            let shown = view.read_blob(shown, <[u8]>::to_vec).unwrap();
            let flags = shown
                .split(|byte| *byte == b'\n')
                .filter_map(crate::policy::Line::parse);
            let flags: Vec<Option<bool>> = flags.map(|line| Some(line.yanked)).collect();
            let explained: Vec<Option<bool>> = explained
                .iter()
                .map(|decided| decided.served_yanked)
                .collect();
            assert_eq!(explained, flags, "{name}");
        }
    }

    fn step(&mut self, restart: u8) {
        let is_same_index = format!("{:?}", self.files) == format!("{:?}", self.followed);
        let (before, time_before) = (self.seen.clone(), self.policy_time);
        let facts_before = self.last_facts();
        if !is_same_index {
            self.commit();
        }
        match restart {
            // A restart after a correction of the clock may forget that correction.
            0 if self.now() - self.now().rem_euclid(MINUTE) >= self.policy_time => {
                self.index.stop();
                self.index.handle = IndexHandle::new();
                self.index.start_again();
                self.note_fetch();
                self.index.refresh();
            }
            1 => {
                self.note_fetch();
                self.index.replace_clone();
            }
            _ => {
                let is_first = self.index.handle.view().is_none();
                self.note_fetch();
                let due = self.due();
                self.index.refresh();
                let is_same =
                    is_same_index && before == self.seen && facts_before == self.last_facts();
                if is_same && !is_first && time_before <= self.policy_time {
                    assert_eq!(self.index.files_read(), due, "only what is due is read");
                }
            }
        }
        self.followed = self.files.clone();
        self.check();
    }

    fn last_facts(&self) -> (String, Option<String>) {
        let view = self.index.handle.view();
        let facts = view.as_ref().and_then(|view| view.policy_facts());
        facts.map_or_else(Default::default, |facts| {
            let advisories = facts.advisories.as_ref();
            (
                facts.file.digest.clone(),
                advisories.map(|advisories| advisories.commit.clone()),
            )
        })
    }
}

fn settings(min_age: &str, yank_guard: &str, unknown_age: UnknownAge) -> Settings {
    Settings {
        min_age: min_age.parse().unwrap(),
        yank_guard: yank_guard.parse().unwrap(),
        unknown_age,
        ..crate::policy::testing::settings()
    }
}

const AS_USUAL: u8 = 9;
const RESTART: u8 = 0;

#[test]
fn holds_follow_the_clock_on_and_back_and_through_restarts() {
    let mut world = World::new(settings("7 days", "0", UnknownAge::Allow));
    world.step(AS_USUAL);
    world.files.get_mut("fnv").unwrap().push(Version {
        text: "1.0.8".to_owned(),
        published: Some(NOW - DAY),
        yanked: false,
        is_compact: true,
    });
    world.step(AS_USUAL);
    assert_eq!(world.found("fnv"), (1, 0));
    world.step(RESTART);
    world.turn_clock_to_next_change();
    world.turn_clock(-1);
    world.step(AS_USUAL);
    assert_eq!(world.found("fnv"), (1, 0), "a second too early");
    world.turn_clock(1);
    world.step(AS_USUAL);
    assert_eq!(world.found("fnv"), (0, 0));
    // A time server corrects the clock: a released version stays released.
    world.turn_clock(-300);
    world.step(AS_USUAL);
    assert_eq!(world.found("fnv"), (0, 0));
    // The clock was wrong.
    world.turn_clock(-DAY);
    world.step(AS_USUAL);
    assert_eq!(world.found("fnv"), (1, 0));
    world.step(RESTART);
    // A process that was killed has written what the policy found for a tree that it has not recorded.
    let clone = world
        .index
        .handle
        .view()
        .unwrap()
        .source()
        .repository()
        .path()
        .to_owned();
    let other = r#"{"id":"of another tree","states":{}}"#;
    std::fs::write(clone.join("policy-states.json"), other).unwrap();
    world.step(RESTART);
    assert_eq!(world.found("fnv"), (1, 0));
    world.turn_clock(2 * DAY);
    world.step(RESTART);
    assert_eq!(world.found("fnv"), (0, 0));
}

#[test]
fn a_freeze_follows_what_the_upstream_does_and_survives_restarts() {
    let mut world = World::new(settings("0", "3 days", UnknownAge::Allow));
    world.step(AS_USUAL);
    let yank = |world: &mut World, place: usize, yanked: bool| {
        world.files.get_mut("fnv").unwrap()[place].yanked = yanked;
    };
    for place in 0..3 {
        yank(&mut world, place, true);
    }
    world.files.get_mut("fnv").unwrap().push(Version {
        text: "1.0.8".to_owned(),
        published: Some(NOW - 60),
        yanked: false,
        is_compact: true,
    });
    world.step(AS_USUAL);
    assert_eq!(world.found("fnv"), (1, 3));
    world.step(RESTART);
    assert_eq!(world.found("fnv"), (1, 3));
    // Unyanked and yanked again: that yank begins anew.
    world.turn_clock(DAY);
    for place in 0..3 {
        yank(&mut world, place, false);
    }
    world.step(AS_USUAL);
    assert_eq!(world.found("fnv"), (0, 0));
    world.turn_clock(DAY);
    yank(&mut world, 1, true);
    world.step(AS_USUAL);
    assert_eq!(world.found("fnv"), (1, 1));
    world.turn_clock(3 * DAY - 1);
    world.step(RESTART);
    assert_eq!(world.found("fnv"), (1, 1), "a second too early");
    world.turn_clock(1);
    world.step(AS_USUAL);
    assert_eq!(world.found("fnv"), (0, 0));
}

#[test]
fn what_an_earlier_build_has_decided_is_not_served() {
    let mut world = World::new(settings("7 days", "0", UnknownAge::Allow));
    world.files.get_mut("fnv").unwrap().push(Version {
        text: "1.0.8".to_owned(),
        published: Some(NOW - DAY),
        yanked: false,
        is_compact: true,
    });
    world.step(AS_USUAL);
    assert_eq!(world.found("fnv"), (1, 0));
    let clone = clone_dir::current_in(&world.index.data_dir()).unwrap();
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(clone.join(name)).unwrap()).unwrap()
    };
    let write = |name: &str, value: &Value| {
        std::fs::write(clone.join(name), value.to_string()).unwrap();
    };
    // From the same rules and facts that one has decided to hold nothing.
    let (mut record, mut states) = (read("pruned.json"), read("policy-states.json"));
    let of_now = format!("policy-{DECISIONS}-");
    let fingerprint = record["held"]
        .as_str()
        .unwrap()
        .replace(&of_now, "policy-0-");
    record["held"] = fingerprint.into();
    record["pruned"] = record["source"].clone();
    states["states"] = serde_json::json!({});
    write("pruned.json", &record);
    write("policy-states.json", &states);
    world.step(RESTART);
    assert_eq!(world.found("fnv"), (1, 0));
}

/// An index whose clock is ten minutes ahead as soon as a clone has the upstream's commit.
struct SlowFetch {
    index: TestIndex,
    began: Arc<AtomicI64>,
    commit: Arc<Mutex<String>>,
}

impl SlowFetch {
    fn new(files: &[(&str, &str)]) -> Self {
        let mut index = TestIndex::new(files);
        let (began, commit) = (Arc::new(AtomicI64::new(NOW)), Arc::new(Mutex::default()));
        let (clones, seconds, wanted) = (
            index.data_dir().join("index"),
            Arc::clone(&began),
            Arc::clone(&commit),
        );
        index.settings_mut(|follower| {
            follower.rules = Rules::new(vec![Rule::Policy(settings(
                "7 days",
                "0",
                UnknownAge::Allow,
            ))]);
            follower.clock = Clock::custom(move || {
                let mut clones = std::fs::read_dir(&clones).into_iter().flatten().flatten();
                let has_commit = |clone: std::fs::DirEntry| {
                    let git = git2::Repository::open_bare(clone.path()).ok()?;
                    let head = git.refname_to_id(UPSTREAM_HEAD).ok()?;
                    Some(head.to_string() == *wanted.lock().unwrap())
                };
                let is_fetched = clones.any(|clone| has_commit(clone) == Some(true));
                let ahead = if is_fetched { 10 * MINUTE } else { 0 };
                let now = seconds.load(Ordering::Relaxed) + ahead;
                SystemTime::UNIX_EPOCH + Duration::from_secs(now.try_into().unwrap())
            });
        });
        Self {
            index,
            began,
            commit,
        }
    }

    fn upstream(&self) -> git2::Repository {
        git2::Repository::open_bare(self.index.data_dir().with_file_name("upstream")).unwrap()
    }

    /// Fetches the upstream's commit, beginning at this time.
    fn fetch_at(&mut self, seconds: i64) {
        let head = self.upstream().head().unwrap().target().unwrap();
        *self.commit.lock().unwrap() = head.to_string();
        self.began.store(seconds, Ordering::Relaxed);
        self.index.try_refresh();
    }

    fn policy_time(&self) -> String {
        let view = self.index.handle.view().unwrap();
        view.policy_time().unwrap().to_string()
    }
}

/// A version of `a` that is held until so many seconds after [`NOW`].
fn held_until(seconds: i64) -> String {
    let time = time(NOW + seconds - 7 * DAY);
    format!(r#"{{"name":"a","vers":"1.0.0","deps":[],"cksum":"","pubtime":"{time}"}}"#)
}

#[test]
fn policy_time_is_when_the_fetch_began() {
    let line = held_until(5 * MINUTE);
    let mut slow = SlowFetch::new(&[("1/a", &line)]);
    let began = |slow: &SlowFetch, seconds: i64| {
        let clone = clone_dir::current_in(&slow.index.data_dir()).unwrap();
        let record = clone_dir::read_record(&clone).unwrap().last_success();
        assert_eq!(record, slow.index.handle.status().last_success);
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.try_into().unwrap());
        assert_eq!(record, Some(time));
        slow.policy_time()
    };
    let is_held = |slow: &SlowFetch| {
        let view = slow.index.handle.view().unwrap();
        view.policy_state("a").is_some_and(|state| state.held == 1)
    };
    slow.fetch_at(NOW);
    assert_eq!(began(&slow, NOW), time(NOW).to_string());
    slow.index.commit(&[("1/a", &line), ("1/b", "new")]);
    let next = NOW + MINUTE + 7;
    slow.fetch_at(next);
    assert_eq!(began(&slow, next), time(NOW + MINUTE).to_string());
    // During this fetch, too, the upstream may have deleted the version.
    assert!(is_held(&slow));
    slow.commit.lock().unwrap().clear();
    // Nothing is new but the time.
    slow.began.store(NOW + 2 * MINUTE, Ordering::Relaxed);
    slow.index.refresh();
    assert_eq!(slow.policy_time(), time(NOW + 2 * MINUTE).to_string());
    slow.began.store(NOW + 5 * MINUTE, Ordering::Relaxed);
    slow.index.refresh();
    assert!(!is_held(&slow));
}

#[test]
fn a_commit_that_is_refused_ends_no_hold() {
    let mut slow = SlowFetch::new(&[("1/a", &held_until(DAY))]);
    slow.fetch_at(NOW);
    let upstream = slow.upstream();
    let head = upstream.head().unwrap().peel_to_commit().unwrap();
    let (who, text) = (head.author(), "x".repeat(2 * 1024 * 1024));
    let large = upstream.commit(None, &who, &who, &text, &head.tree().unwrap(), &[&head]);
    upstream
        .reference("refs/heads/master", large.unwrap(), true, "moved")
        .unwrap();
    slow.fetch_at(NOW + 2 * DAY);
    let error = slow.index.handle.status().last_error.unwrap();
    assert!(error.contains("refused"), "{error}");
    // The index that is served is shown again, although it could not be fetched.
    std::fs::write(upstream.path().join("refs/heads/master"), "damaged").unwrap();
    slow.index.try_refresh();
    assert!(slow.index.handle.status().failures == 2);
    assert_eq!(slow.policy_time(), time(NOW).to_string());
    let view = slow.index.handle.view().unwrap();
    assert_eq!(view.policy_state("a").unwrap().held, 1);
}

#[test]
fn a_changed_policy_file_takes_effect_although_the_upstream_has_vanished() {
    let mut world = World::new(settings("7 days", "0", UnknownAge::Allow));
    world.step(AS_USUAL);
    let id = |world: &World| world.index.handle.view().unwrap().policy_id();
    let before = id(&world);
    world.index.remove_upstream();
    world.facts.lock().unwrap().file = Arc::clone(&policy_files()[1]);
    world.index.try_refresh();
    assert!(world.index.handle.status().last_error.is_some());
    assert_ne!(id(&world), before);
}

#[test]
fn a_flag_that_the_upstream_has_set_is_not_called_the_policys() {
    let mut world = World::new(settings("7 days", "0", UnknownAge::Allow));
    world.facts.lock().unwrap().file =
        Arc::new(PolicyFile::parse("bans.deny = [\"fnv:<1.0.3\"]").unwrap());
    let file = world.files.get_mut("fnv").unwrap();
    for (text, published, yanked) in [
        ("1.0.1", NOW - 90 * DAY, true),
        ("1.0.8", NOW - DAY, false),
        ("1.0.9", NOW - DAY, true),
    ] {
        file.push(Version {
            text: text.to_owned(),
            published: Some(published),
            yanked,
            is_compact: true,
        });
    }
    world.step(AS_USUAL);
    let view = world.index.handle.view().unwrap();
    let flags: BTreeMap<String, ShownFlag> = view.flags_of("fnv").unwrap().into_iter().collect();
    let until = ShownFlag::HeldUntil(Some(time(NOW + 6 * DAY)));
    let expected = [
        ("1.0.2".to_owned(), ShownFlag::Denied(true)),
        ("1.0.8".to_owned(), until),
    ];
    assert_eq!(flags, expected.into());
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_view_made_step_by_step_equals_a_view_made_from_nothing(
        steps in prop::collection::vec(
            (prop::collection::vec((0..15_u8, any::<u16>()), 0..4), 0..8_u8),
            1..10,
        ),
        (has_age, has_guard, holds_unknown) in (prop::bool::weighted(0.8), prop::bool::weighted(0.7), any::<bool>()),
    ) {
        let unknown = if holds_unknown { UnknownAge::Hold } else { UnknownAge::Allow };
        let settings = settings(
            if has_age { "7 days" } else { "0" },
            if has_guard { "3 days" } else { "0" },
            unknown,
        );
        let mut world = World::new(settings);
        world.step(AS_USUAL);
        for (changes, restart) in steps {
            for (kind, number) in changes {
                world.change(kind, usize::from(number));
            }
            world.step(restart);
        }
    }
}
