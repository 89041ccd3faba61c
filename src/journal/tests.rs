//! Tests of the whole journal, with real git indexes. A follower reads it as the HTTP side does.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::{Head, Journal, JournalError, JournalSettings, JournalTask, OffReason, StepCursor};
use crate::clock::Clock;
use crate::index::IndexHandle;
use crate::index::testing::TestIndex;
use crate::sqlite::{AskError, FollowsViews};

const DAY: u64 = 86_400;

/// A journal of an index, without a task: each step is made by the test.
struct Scene {
    data: TempDir,
    retention: Duration,
    /// Seconds since 1970.
    now: Arc<AtomicU64>,
    worker: JournalTask,
    journal: Journal,
    runtime: Runtime,
}

impl Scene {
    fn new(index: &IndexHandle, retention: Duration) -> Self {
        let data = tempfile::tempdir().unwrap();
        let now = Arc::new(AtomicU64::new(1_764_201_600));
        Self::at(data, index, retention, now)
    }

    fn at(data: TempDir, index: &IndexHandle, retention: Duration, now: Arc<AtomicU64>) -> Self {
        let clock = {
            let now = Arc::clone(&now);
            Clock::custom(move || {
                SystemTime::UNIX_EPOCH + Duration::from_secs(now.load(Ordering::Relaxed))
            })
        };
        let settings = JournalSettings {
            data_dir: data.path().to_owned(),
            retention,
            clock,
        };
        let journal = Journal::new(settings, CancellationToken::new());
        Self {
            worker: JournalTask::new(journal.clone(), index.clone()),
            journal,
            data,
            retention,
            now,
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    /// The same directory after the process has ended and begun again.
    fn restart(self, index: &IndexHandle) -> Self {
        let Self {
            data,
            retention,
            now,
            worker,
            journal,
            ..
        } = self;
        drop((worker, journal));
        Self::at(data, index, retention, now)
    }

    fn step(&mut self) {
        self.worker.step().unwrap();
    }

    fn pass(&self, seconds: u64) {
        self.now.fetch_add(seconds, Ordering::Relaxed);
    }

    fn file(&self) -> PathBuf {
        self.data.path().join("changes/journal.sqlite")
    }

    fn head(&self) -> Head {
        self.runtime.block_on(self.journal.head()).unwrap()
    }

    /// Everything after a place, page by page: the lines, and the place then.
    fn follow(
        &self,
        since: StepCursor,
        limit: usize,
    ) -> Result<(Vec<Value>, StepCursor), JournalError> {
        self.runtime.block_on(async {
            let (mut lines, mut cursor) = (Vec::new(), since);
            loop {
                let steps = self.journal.steps_after(cursor, limit).await?;
                let mut from = steps.from;
                if from.is_none() {
                    return Ok((lines, cursor));
                }
                while let Some(place) = from {
                    let pieces;
                    (pieces, from) = self.journal.read(place, steps.head.cursor).await?;
                    for piece in pieces {
                        let text = String::from_utf8(piece.lines).unwrap();
                        assert!(text.ends_with('\n'));
                        let parsed = text.lines().map(|line| serde_json::from_str(line).unwrap());
                        lines.extend(parsed);
                        cursor = piece.end.unwrap_or(cursor);
                    }
                }
                assert_eq!(cursor, steps.head.cursor);
            }
        })
    }

    /// The lines after a place, as `type crate version`.
    fn changes(&self, since: StepCursor) -> Vec<String> {
        let (lines, _) = self.follow(since, 1_000).unwrap();
        lines.iter().map(short).collect()
    }

    fn is_gone(&self, cursor: StepCursor) -> bool {
        matches!(self.follow(cursor, 10), Err(JournalError::Gone))
    }
}

fn short(line: &Value) -> String {
    let text = |field: &str| line[field].as_str().unwrap_or("-").to_owned();
    format!("{} {} {}", text("type"), text("crate"), text("version"))
}

fn line(name: &str, version: &str, yanked: bool) -> String {
    format!(
        r#"{{"name":"{name}","vers":"{version}","deps":[],"cksum":"{}","features":{{}},"yanked":{yanked}}}{}"#,
        "ab".repeat(32),
        "\n"
    )
}

fn weeks(number: u64) -> Duration {
    Duration::from_secs(7 * DAY * number)
}

/// An index of these crates: name of a path, and its versions.
fn index_of(files: &[(&str, &str)]) -> TestIndex {
    let mut index = TestIndex::new(files);
    index.refresh();
    index
}

#[test]
fn a_follower_gets_each_step_once_and_in_order() {
    let (one, two) = (line("a", "1.0.0", false), line("a", "2.0.0", false));
    let both = format!("{one}{two}");
    let mut index = index_of(&[("1/a", &one), ("1/b", &line("b", "1.0.0", false))]);
    let mut scene = Scene::new(&index.handle, weeks(1));
    assert!(matches!(
        scene.runtime.block_on(scene.journal.head()),
        Err(JournalError::Off(OffReason::NotReady))
    ));
    scene.step();
    let start = scene.head();
    assert_eq!(scene.changes(start.cursor), [""; 0]);
    let c = line("c", "0.1.0", true);
    index.commit(&[("1/a", &both), ("1/c", &c)]);
    index.refresh();
    scene.step();
    let middle = scene.head();
    let last = index.commit(&[("1/a", &two.replace("false", "true")), ("1/c", &c)]);
    index.refresh();
    // Nothing is new the second time.
    scene.step();
    scene.step();
    let first_step = [
        "added a 2.0.0",
        "version_deleted b 1.0.0",
        "crate_deleted b -",
        "added c 0.1.0",
    ];
    let second_step = ["version_deleted a 1.0.0", "yanked a 2.0.0"];
    assert_eq!(scene.changes(middle.cursor), second_step);
    assert_eq!(
        scene.changes(start.cursor),
        [&first_step[..], &second_step].concat()
    );
    assert_eq!(scene.head().commit, last);
    for limit in [1, 3, 4, 5] {
        let (lines, cursor) = scene.follow(start.cursor, limit).unwrap();
        assert_eq!((lines.len(), cursor), (6, scene.head().cursor), "{limit}");
    }
    let whole = scene.journal.steps_after(start.cursor, 3);
    let whole = scene.runtime.block_on(whole).unwrap();
    assert_eq!(whole.head.cursor, middle.cursor, "a step is never cut");
}

#[test]
fn two_views_can_be_one_step_and_a_change_that_is_undone_is_none() {
    let one = line("a", "1.0.0", false);
    let mut index = index_of(&[("1/a", &one)]);
    let mut scene = Scene::new(&index.handle, weeks(1));
    scene.step();
    let start = scene.head();
    index.commit(&[("1/a", &one.replace("false", "true"))]);
    index.refresh();
    index.commit(&[("1/a", &one), ("1/b", &line("b", "1.0.0", false))]);
    index.refresh();
    scene.step();
    assert_eq!(scene.changes(start.cursor), ["added b 1.0.0"]);
}

#[test]
fn a_squash_is_no_step_and_neither_is_another_readme() {
    let one = line("a", "1.0.0", false);
    let mut index = index_of(&[("1/a", &one)]);
    let mut scene = Scene::new(&index.handle, weeks(1));
    scene.step();
    let start = scene.head();
    // Every commit of these tests has no parent, as after a squash.
    let commit = index.commit(&[("1/a", &one), ("README.md", "text")]);
    index.refresh();
    scene.step();
    assert_eq!(
        scene.head(),
        Head {
            commit,
            ..start.clone()
        }
    );
    assert_eq!(scene.changes(start.cursor), [""; 0]);
    let two = line("a", "2.0.0", false);
    index.commit(&[("1/a", &format!("{one}{two}"))]);
    index.refresh();
    scene.step();
    assert_eq!(scene.changes(start.cursor), ["added a 2.0.0"]);
}

#[test]
fn the_journal_survives_a_restart_and_a_clone_that_is_replaced_while_the_mirror_runs() {
    let one = line("a", "1.0.0", false);
    let mut index = index_of(&[("1/a", &one)]);
    let mut scene = Scene::new(&index.handle, weeks(1));
    scene.step();
    let start = scene.head();
    // A restart finds the state of the last step in the clone.
    index.commit(&[("1/a", &one), ("1/b", &line("b", "1.0.0", false))]);
    index.refresh();
    scene = scene.restart(&index.handle);
    scene.step();
    assert_eq!(scene.changes(start.cursor), ["added b 1.0.0"]);
    // The new clone has nothing of the state before.
    index.commit(&[("1/c", &line("c", "1.0.0", false))]);
    index.replace_clone();
    scene.step();
    let expected = [
        "added b 1.0.0",
        "version_deleted a 1.0.0",
        "crate_deleted a -",
        "version_deleted b 1.0.0",
        "crate_deleted b -",
        "added c 1.0.0",
    ];
    assert_eq!(scene.changes(start.cursor), expected);
    // A clone that is replaced before a restart shows the same, so nothing is lost.
    index.replace_clone();
    scene = scene.restart(&index.handle);
    scene.step();
    assert_eq!(scene.changes(start.cursor), expected);
    // Only where both come together, and the index has changed, the state is gone.
    let head = scene.head();
    index.commit(&[("1/d", &line("d", "1.0.0", false))]);
    index.replace_clone();
    scene = scene.restart(&index.handle);
    scene.step();
    assert!(scene.is_gone(start.cursor) && scene.is_gone(head.cursor));
    assert_eq!(scene.changes(scene.head().cursor), [""; 0]);
    assert_eq!(index.handle.status().last_error, None);
    let view = index.handle.view().unwrap();
    assert!(!view.source().repository().is_suspect(), "no damage");
}

#[test]
fn steps_are_kept_for_the_set_time_and_the_last_one_with_zero() {
    let states = ["1.0.0", "2.0.0", "3.0.0"].map(|version| line("a", version, false));
    for retention in [weeks(1), Duration::ZERO] {
        let mut index = index_of(&[("1/a", &states[0])]);
        let mut scene = Scene::new(&index.handle, retention);
        scene.step();
        let start = scene.head().cursor;
        index.commit(&[("1/a", &states[1])]);
        index.refresh();
        scene.step();
        let middle = scene.head().cursor;
        assert_eq!(scene.changes(start).len(), 2);
        scene.pass(5 * DAY);
        index.commit(&[("1/a", &states[2])]);
        index.refresh();
        scene.step();
        let end = scene.head().cursor;
        assert_eq!(scene.changes(middle).len(), 2);
        if retention.is_zero() {
            assert!(scene.is_gone(start));
            continue;
        }
        assert_eq!(scene.changes(start).len(), 4);
        // A step that is too old is gone at once, even while the file still has it.
        scene.pass(3 * DAY);
        assert!(scene.is_gone(start));
        assert_eq!(scene.changes(middle).len(), 2);
        scene.step();
        assert!(scene.is_gone(start));
        assert_eq!(scene.changes(middle).len(), 2);
        scene.pass(30 * DAY);
        scene.step();
        assert!(scene.is_gone(middle));
        assert_eq!(scene.changes(end).len(), 0, "the end is never too old");
        index.commit(&[("1/a", &states[0])]);
        index.refresh();
        scene.step();
        assert_eq!(scene.changes(end).len(), 2);
    }
}

/// Crates with one version each: a few kilobytes of lines for every ten.
fn many(count: usize, version: &str) -> BTreeMap<String, String> {
    let crates = (0..count).map(|number| {
        let name = format!("abcd{number}");
        (format!("ab/cd/{name}"), line(&name, version, false))
    });
    crates.collect()
}

fn commit_all(index: &mut TestIndex, files: &BTreeMap<String, String>) {
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_str()))
        .collect();
    index.commit(&files);
    index.refresh();
}

#[test]
fn a_long_step_comes_in_parts_and_the_journal_keeps_to_its_size() {
    let mut index = index_of(&[("1/a", "")]);
    let mut scene = Scene::new(&index.handle, weeks(1));
    scene.step();
    let start = scene.head().cursor;
    commit_all(&mut index, &many(25, "1.0.0"));
    scene.step();
    let first = scene.head().cursor;
    // The file of `a` is gone, too.
    let (lines, cursor) = scene.follow(start, 1).unwrap();
    assert_eq!((lines.len(), cursor), (26, first));
    for version in ["1.0.1", "1.0.2", "1.0.3"] {
        commit_all(&mut index, &many(25, version));
        scene.step();
    }
    assert!(scene.is_gone(start) && scene.is_gone(first));
    let newest = scene.head().cursor;
    commit_all(&mut index, &many(15, "1.0.3"));
    scene.step();
    assert_eq!(scene.changes(newest).len(), 20);
    let bytes = fs::metadata(scene.file()).unwrap().len();
    assert!(bytes < 100_000, "{bytes}");
    // More lines than all steps together may have.
    let before = scene.head();
    commit_all(&mut index, &many(100, "2.0.0"));
    scene.step();
    assert!(scene.is_gone(before.cursor) && scene.is_gone(newest));
    let after = scene.head();
    assert!(after.cursor.number > before.cursor.number);
    commit_all(&mut index, &many(101, "2.0.0"));
    scene.step();
    assert_eq!(scene.changes(after.cursor), ["added abcd100 2.0.0"]);
}

#[test]
fn a_damaged_journal_begins_anew_whether_the_start_or_a_question_finds_the_damage() {
    let mut index = index_of(&[("1/a", &line("a", "1.0.0", false))]);
    let mut scene = Scene::new(&index.handle, weeks(1));
    scene.step();
    commit_all(&mut index, &many(20, "1.0.0"));
    scene.step();
    for damage in [Damage::Text, Damage::Pages, Damage::Empty, Damage::Schema] {
        let before = scene.head().cursor;
        scene = scene.restart(&index.handle);
        damage.apply(&scene.file());
        let first = scene.worker.step();
        if first.is_err() {
            scene.step();
        }
        assert!(scene.is_gone(before), "{damage:?}");
        let after = scene.head().cursor;
        commit_all(&mut index, &many(5, &format!("1.0.{}", damage as u8)));
        scene.step();
        assert!(!scene.changes(after).is_empty(), "{damage:?}");
    }
    // A question finds the damage first.
    scene = scene.restart(&index.handle);
    scene.step();
    Damage::Text.apply(&scene.file());
    let head = scene.runtime.block_on(scene.journal.head());
    assert!(
        matches!(head, Err(JournalError::Failed(AskError::Unreadable(_)))),
        "{head:?}"
    );
    scene
        .runtime
        .block_on(scene.journal.questions().damage_reported());
    scene.worker.suspect();
    scene.worker.step().unwrap_err();
    assert!(matches!(
        scene.runtime.block_on(scene.journal.head()),
        Err(JournalError::Off(OffReason::Failed))
    ));
    scene.step();
    scene.head();
    // The file was removed.
    let before = scene.head().cursor;
    fs::remove_dir_all(scene.data.path().join("changes")).unwrap();
    scene = scene.restart(&index.handle);
    scene.step();
    assert!(scene.is_gone(before));
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    Text = 1,
    Pages,
    Empty,
    Schema,
}

impl Damage {
    fn apply(self, file: &std::path::Path) {
        for suffix in ["sqlite-wal", "sqlite-shm"] {
            let _absent = fs::remove_file(file.with_extension(suffix));
        }
        let mut content = fs::read(file).unwrap();
        match self {
            Self::Text => content.fill(b'x'),
            Self::Pages => {
                let begin = content.len().min(2 * 4096);
                content[begin..].fill(b'x');
            }
            Self::Empty => content.clear(),
            // The user version, which is the number of the tables.
            Self::Schema => content[60..64].copy_from_slice(&[0, 0, 0, 99]),
        }
        fs::write(file, content).unwrap();
    }
}

#[test]
fn a_second_mirror_waits_and_a_read_only_view_has_no_journal() {
    let mut index = index_of(&[("1/a", "")]);
    let mut scene = Scene::new(&index.handle, weeks(1));
    scene.step();
    let second = scene.journal.settings().clone();
    let journal = Journal::new(second, CancellationToken::new());
    let mut worker = JournalTask::new(journal.clone(), index.handle.clone());
    worker.step().unwrap_err();
    let head = scene.runtime.block_on(journal.head());
    assert!(
        matches!(head, Err(JournalError::Off(OffReason::InUse))),
        "{head:?}"
    );
    let before = scene.head().cursor;
    drop(scene.worker);
    index.commit(&[("1/a", &line("a", "1.0.0", false))]);
    index.refresh();
    worker.step().unwrap();
    let steps = scene.runtime.block_on(journal.steps_after(before, 10));
    assert!(steps.unwrap().from.is_some(), "the second goes on");
}

#[test]
fn a_cursor_of_another_journal_is_unknown() {
    let index = index_of(&[("1/a", "")]);
    let mut scenes = [(); 2].map(|()| Scene::new(&index.handle, weeks(1)));
    for scene in &mut scenes {
        scene.step();
    }
    let [first, second] = scenes;
    let (ours, theirs) = (first.head().cursor, second.head().cursor);
    assert_eq!(ours.number, theirs.number);
    assert!(first.is_gone(theirs) && second.is_gone(ours));
    for number in [0, ours.number + 1, i64::MAX, i64::MIN] {
        assert!(first.is_gone(StepCursor { number, ..ours }));
    }
}
