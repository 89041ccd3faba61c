//! Tests of the whole catalog, with real git indexes: answers are compared with a simple model, and a catalog that has
//! followed with one that was built afresh.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rusqlite::types::Value;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use super::database::Crates;
use super::handle::WAITING_MAX;
use super::names::{NameTable, TableBuilder};
use super::questions::CrateList;
use super::record::ShownCrate;
use super::worker::WorkError;
use super::{
    Catalog, CatalogError, CatalogSettings, CatalogState, CatalogTask, CrateFilter, CrateOrder,
    CrateSummary, Dependent, Page, Search, Start,
};
use crate::index::testing::{TestIndex, checksum, read_crate};
use crate::index::{IndexFilesOf, IndexHandle, StoredFiles};
use crate::package::{Checksum, CrateHistory, CrateName, IndexPath, Timestamp, canonical_order};
use crate::policy::{Rule, Rules};
use crate::sqlite::{ANSWERED_MAX, AskError, FollowsViews};

/// A catalog of an index, without a task: each step is made by the test.
struct Scene {
    directory: TempDir,
    worker: CatalogTask,
    catalog: Catalog,
    runtime: Runtime,
}

impl Scene {
    fn new(index: &IndexHandle) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::at(directory, index)
    }

    fn at(directory: TempDir, index: &IndexHandle) -> Self {
        let settings = CatalogSettings {
            data_dir: directory.path().join("data"),
            temp_dir: directory.path().to_owned(),
        };
        let catalog = Catalog::new();
        Self {
            worker: CatalogTask::new(settings, catalog.clone(), index.clone()),
            catalog,
            directory,
            runtime: Builder::new_current_thread().enable_all().build().unwrap(),
        }
    }

    fn step(&mut self) {
        self.worker.step().unwrap();
    }

    /// The same directory after the process has ended and begun again.
    fn restart(self, index: &IndexHandle) -> Self {
        let Self {
            directory, worker, ..
        } = self;
        drop(worker);
        Self::at(directory, index)
    }

    fn database(&self) -> PathBuf {
        let files = fs::read_dir(self.directory.path().join("data/catalog")).unwrap();
        let mut files = files.map(|file| file.unwrap().path());
        let is_database = |path: &PathBuf| path.extension().is_some_and(|end| end == "sqlite");
        files.find(is_database).unwrap()
    }

    fn ask<T>(&self, question: impl Future<Output = T>) -> T {
        self.runtime.block_on(question)
    }

    fn search(&self, search: Search) -> CrateList {
        self.ask(self.catalog.search(search)).unwrap()
    }

    fn names(&self, search: Search) -> Vec<String> {
        let found = self.search(search).crates.into_iter();
        found.map(|found| found.name).collect()
    }

    /// Everything in the database but what depends on its history: row numbers and generation.
    fn dump(&self) -> Vec<String> {
        dump(&self.database())
    }
}

fn dump(database: &Path) -> Vec<String> {
    let connection = Connection::open(database).unwrap();
    let mut dump = Vec::new();
    for select in [
        "SELECT upstream_commit, source_tree, shown_tree FROM state",
        "SELECT key, file, source, shown, is_skipped, name, number, created, updated, num_versions, is_yanked, \
         default_version, default_id, max_version, newest_version, max_stable_version FROM crates",
        "SELECT file, position, num, published, checksum, versions.is_yanked, shown_yanked \
         FROM versions LEFT JOIN crates ON crates.id = crate",
        "SELECT file, target, dependencies.number FROM dependencies LEFT JOIN crates ON crates.id = crate",
    ] {
        let mut statement = connection.prepare(select).unwrap();
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values = (0..columns).map(|column| row.get::<_, Value>(column));
            Ok(format!("{:?}", values.collect::<Result<Vec<_>, _>>()?))
        });
        dump.extend(rows.unwrap().map(Result::unwrap));
    }
    dump.sort();
    dump
}

fn everything() -> Search {
    Search {
        text: String::new(),
        filter: CrateFilter::None,
        include_yanked: true,
        order: CrateOrder::Name,
        page: Page {
            start: Start::Skip(0),
            limit: 1_000,
        },
    }
}

fn text(text: &str) -> Search {
    Search {
        text: text.to_owned(),
        ..everything()
    }
}

/// An index file: versions with their publish (days after 2020-01-01), yanked flag and dependencies.
fn index_file(name: &str, versions: &[(&str, Option<u8>, bool, &[&str])]) -> String {
    let lines = versions.iter().map(|(version, day, yanked, dependencies)| {
        let deps: Vec<String> = dependencies
            .iter()
            .map(|name| format!(r#"{{"name":"{name}","req":"^1"}}"#))
            .collect();
        let time = day.map_or(String::new(), |day| {
            format!(r#","pubtime":"2020-{:02}-{:02}T00:00:00Z""#, 1 + day / 28, 1 + day % 28)
        });
        let number = u8::try_from(name.len()).unwrap() ^ version.as_bytes()[0];
        format!(
            r#"{{"name":"{name}","vers":"{version}","deps":[{}],"cksum":"{}","features":{{}},"yanked":{yanked}{time}}}{}"#,
            deps.join(","),
            checksum(number),
            "\n"
        )
    });
    lines.collect()
}

type Files = BTreeMap<String, String>;

fn path_of(name: &str) -> String {
    IndexPath::from(&CrateName::try_from(name.to_owned()).unwrap())
        .as_str()
        .to_owned()
}

fn put(files: &mut Files, name: &str, versions: &[(&str, Option<u8>, bool, &[&str])]) {
    files.insert(path_of(name), index_file(name, versions));
}

fn listed(files: &Files) -> Vec<(&str, &str)> {
    let files = files.iter();
    files
        .map(|(path, content)| (path.as_str(), content.as_str()))
        .collect()
}

fn sample() -> Files {
    let mut files = Files::new();
    put(
        &mut files,
        "serde",
        &[
            ("1.0.0", Some(1), false, &[]),
            ("1.0.1", Some(40), false, &[]),
        ],
    );
    put(
        &mut files,
        "serde_json",
        &[("1.0.0", Some(2), false, &["serde"])],
    );
    put(
        &mut files,
        "Serde-With",
        &[("2.0.0-rc.1", Some(3), false, &["serde", "serde_json"])],
    );
    put(
        &mut files,
        "no-serde",
        &[("0.1.0", Some(4), true, &["serde"])],
    );
    put(&mut files, "a", &[("1.0.0", None, false, &["SERDE", "a"])]);
    put(&mut files, "io", &[("1.0.0", Some(5), false, &["gone"])]);
    files.insert("ju/nk/junk".to_owned(), "junk\n\n{}\n".to_owned());
    files.insert("config.json".to_owned(), "{}".to_owned());
    files
}

fn built(files: &Files) -> (TestIndex, Scene) {
    let mut index = TestIndex::new(&listed(files));
    index.refresh();
    let mut scene = Scene::new(&index.handle);
    scene.step();
    (index, scene)
}

#[test]
fn search_finds_names_by_parts_words_letters_and_lists() {
    let (_index, scene) = built(&sample());
    let all = ["a", "io", "no-serde", "serde", "Serde-With", "serde_json"];
    assert_eq!(scene.names(everything()), all);
    let serdes = ["serde", "no-serde", "Serde-With", "serde_json"];
    for (query, expected) in [
        ("serde", serdes.as_slice()),
        ("SERDE", &serdes),
        ("erd", &["no-serde", "serde", "Serde-With", "serde_json"]),
        ("serde-json", &["serde_json"]),
        ("e_j", &["serde_json"]),
        ("e-w", &["Serde-With"]),
        ("se", &["no-serde", "serde", "Serde-With", "serde_json"]),
        ("wi", &["Serde-With"]),
        ("s", &["no-serde", "serde", "Serde-With", "serde_json"]),
        ("A", &["a"]),
        ("io", &["io"]),
        ("_", &[]),
        ("-", &[]),
        ("%", &[]),
        ("serde%", &[]),
        ("a_io", &[]),
        ("o_no", &[]),
        ("京", &[]),
        ("\n", &[]),
    ] {
        assert_eq!(scene.names(text(query)), expected, "{query}");
    }
    let with = |filter| Search {
        filter,
        ..everything()
    };
    for (letter, expected) in [
        ('S', ["serde", "Serde-With", "serde_json"].as_slice()),
        ('n', &["no-serde"]),
        ('-', &[]),
        ('_', &[]),
        ('京', &[]),
    ] {
        let found = scene.names(with(CrateFilter::Letter(letter)));
        assert_eq!(found, expected, "{letter}");
    }
    let names = [
        "serde",
        "io",
        "serde",
        "Serde_With",
        "serde-with",
        "",
        "none",
    ];
    let names = names.map(str::to_owned).to_vec();
    assert_eq!(
        scene.names(with(CrateFilter::Names(names.clone()))),
        ["io", "serde"]
    );
    let both = Search {
        filter: CrateFilter::Names(names),
        ..text("erd")
    };
    assert_eq!(scene.names(both), ["serde"]);
    let unyanked = Search {
        include_yanked: false,
        ..text("erd")
    };
    assert_eq!(scene.search(unyanked.clone()).total, 3);
    assert!(!scene.names(unyanked).contains(&"no-serde".to_owned()));
}

#[test]
fn a_summary_has_the_values_of_the_index_file() {
    let (index, scene) = built(&sample());
    let found = scene.search(text("serde"));
    assert!(Arc::ptr_eq(&found.view, &index.handle.view().unwrap()));
    let serde = &found.crates[0];
    assert_eq!(serde.default_version, "1.0.1");
    assert_eq!(serde.num_versions, 2);
    let with = &found.crates[2];
    assert_eq!(with.max_version.as_deref(), Some("2.0.0-rc.1"));
    assert_eq!(with.max_stable_version, None);
    let yanked = &found.crates[1];
    assert!(yanked.is_yanked && yanked.max_version.is_none() && yanked.newest_version.is_none());
    let summary = scene.ask(scene.catalog.summary(2)).unwrap();
    let names = |crates: &[CrateSummary]| -> Vec<String> {
        crates.iter().map(|found| found.name.clone()).collect()
    };
    assert_eq!(summary.num_crates, 6);
    assert_eq!(names(&summary.new_crates), ["io", "no-serde"]);
    assert_eq!(names(&summary.just_updated), ["serde"]);
    let status = scene.catalog.status();
    assert_eq!((status.crates, status.skipped_files), (6, 0));
    assert_eq!(status.commit, Some(found.view.commit().to_string()));
}

#[test]
fn dependents_are_crates_whose_default_version_is_not_yanked() {
    let (_index, scene) = built(&sample());
    let ask = |name: &str, skip, limit| {
        let name = CrateName::try_from(name.to_owned()).unwrap();
        let found = scene
            .ask(scene.catalog.dependents(name, skip, limit))
            .unwrap();
        let names = found.dependents.into_iter().map(|dependent| dependent.name);
        (found.crate_name, found.total, names.collect::<Vec<_>>())
    };
    let some = |name: &str| Some(name.to_owned());
    let all = ["Serde-With", "serde_json", "a"].map(str::to_owned);
    assert_eq!(ask("Serde", 0, 10), (some("serde"), 3, all.to_vec()));
    assert_eq!(ask("serde", 1, 1), (some("serde"), 3, all[1..2].to_vec()));
    assert_eq!(ask("serde", 9, 1), (some("serde"), 3, Vec::new()));
    assert_eq!(
        ask("A", 0, 10),
        (some("a"), 1, vec!["a".to_owned()]),
        "a self-dependency counts"
    );
    assert_eq!(ask("io", 0, 10), (some("io"), 0, Vec::new()));
    assert_eq!(
        ask("gone", 0, 10),
        (None, 0, Vec::new()),
        "it was deleted, and io still depends on it"
    );
    let files = scene
        .catalog
        .index_files_of(&[checksum(b'1' ^ 5), checksum(200)]);
    // The catalog cannot read the lines of `junk`.
    let files: Vec<String> = files.unwrap().names.into_iter().collect();
    assert_eq!(files, ["junk", "serde"]);
}

/// Crates by their row.
type Shown = BTreeMap<i64, ShownCrate>;

fn table_of(shown: &Shown) -> NameTable {
    let mut builder = TableBuilder::default();
    for (row, shown) in shown {
        builder.push_shown(*row, shown);
    }
    builder.build()
}

/// A crate whose name shares parts with others, and has several spellings, as in a strange index.
fn random_shown(random: &mut fastrand::Rng, row: i64) -> ShownCrate {
    let count = random.usize(1..5);
    let name: String = (0..count)
        .map(|at| match at {
            0 => random.choice(['a', 'b', 'A']).unwrap(),
            _ => random.choice(['a', 'b', 'A', 'B', '-', '_']).unwrap(),
        })
        .collect();
    let mut time = || Timestamp::from_unix_seconds(random.i64(0..4)).unwrap();
    let summary = CrateSummary {
        name,
        created_at: time(),
        updated_at: time(),
        num_versions: 1,
        is_yanked: random.bool(),
        default_version: "1.0.0".to_owned(),
        max_version: None,
        newest_version: None,
        max_stable_version: None,
    };
    ShownCrate {
        summary,
        number: random.i64(0..4) * 1_000 + row,
        default_id: 0,
    }
}

/// Makes a random search in two tables, page by page, in both ways to name a page.
fn check_random_search(random: &mut fastrand::Rng, table: &NameTable, fresh: &NameTable) {
    let names = [
        "a", "b", "ab", "A-b", "a_b", "aB", "a-b", "Ab", "ab", "none",
    ];
    let filters = [
        CrateFilter::None,
        CrateFilter::Letter('A'),
        CrateFilter::Names(names.map(str::to_owned).to_vec()),
    ];
    let orders = [
        CrateOrder::Name,
        CrateOrder::Id,
        CrateOrder::Updated,
        CrateOrder::Created,
    ];
    let texts = ["", "a", "b", "ab", "_a", "abA", "b-a", "a_b", "b_b", "zz"];
    let mut search = Search {
        filter: random.choice(filters).unwrap(),
        include_yanked: random.bool(),
        order: random.choice(orders).unwrap(),
        page: Page {
            start: Start::Skip(0),
            limit: random.usize(1..20),
        },
        ..text(random.choice(texts).unwrap())
    };
    let mut seen = 0;
    loop {
        let found = table.search(&search);
        search.page.start = Start::Skip(seen);
        assert_eq!(found, fresh.search(&search), "{search:?}");
        seen += found.rows.len();
        let Some(last) = found.last else { break };
        search.page.start = Start::After(last);
    }
    let limit = search.page.limit;
    assert_eq!(table.just_updated(limit), fresh.just_updated(limit));
}

#[test]
fn an_updated_table_of_names_answers_like_a_fresh_one_and_shares_what_has_not_changed() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut shown = Shown::new();
    let mut table = NameTable::default();
    for step in 0..90 {
        let is_emptied = step % 30 == 29;
        let changed: BTreeSet<i64> = match is_emptied {
            true => shown.keys().copied().collect(),
            false => (0..random.usize(0..8)).map(|_| random.i64(0..60)).collect(),
        };
        let (mut without, mut with) = (BTreeMap::new(), Shown::new());
        for row in &changed {
            let removed = shown.remove(row).map(|removed| removed.summary.name);
            if !is_emptied && random.u8(..) < 200 {
                let mut added = random_shown(&mut random, *row);
                if let Some(name) = removed.as_ref().filter(|_| random.bool()) {
                    added.summary.name.clone_from(name);
                }
                with.insert(*row, added);
            }
            without.extend(removed.map(|name| (*row, name)));
        }
        shown.extend(with.clone());
        let updated = table.updated(&without, with.iter().map(|(row, shown)| (*row, shown)));
        let (chunks, shared) = updated.chunks_shared(&table);
        assert!(
            chunks - shared <= 3 * changed.len(),
            "{step}: {chunks} {shared}"
        );
        table = updated;
        let fresh = table_of(&shown);
        assert_eq!((table.count(), fresh.count()), (shown.len(), shown.len()));
        // Every chunk has a crate, and none too many.
        assert!(chunks <= shown.len() && shown.len() <= 4 * chunks);
        for _ in 0..20 {
            check_random_search(&mut random, &table, &fresh);
        }
    }
    // A changed crate makes one chunk anew, wherever in its chunk it is.
    let shown: Shown = (0..100)
        .map(|row| (row, random_shown(&mut random, row)))
        .collect();
    let table = table_of(&shown);
    for (row, crate_) in &shown {
        let without = [(*row, crate_.summary.name.clone())].into();
        let updated = table.updated(&without, [(*row, crate_)].into_iter());
        let (chunks, shared) = updated.chunks_shared(&table);
        assert_eq!(
            (chunks, shared + 1),
            (table.chunks_shared(&table).0, chunks)
        );
    }
}

/// A random index of a few crates, whose names share parts.
fn random_files(random: &mut fastrand::Rng, files: &mut Files) {
    const NAMES: [&str; 14] = [
        "a", "b", "ab", "A-b", "a_c", "abc", "Abc-d", "b-a", "bab", "a-b-c", "cab", "c_ab-c", "ca",
        "d",
    ];
    for _ in 0..random.usize(1..5) {
        let name = random.choice(NAMES).unwrap();
        if random.u8(..) < 50 {
            files.remove(&path_of(name));
            continue;
        }
        let count = random.usize(0..5);
        let versions: Vec<(String, Option<u8>, bool, Vec<&str>)> = (0..count)
            .map(|number| {
                let version = format!(
                    "{}.{number}.0{}",
                    random.u8(0..3),
                    random.choice(["", "", "-rc.1", "+b"]).unwrap()
                );
                let day = (random.u8(..) < 200).then(|| random.u8(0..200));
                let is_yanked = random.u8(..) < 80;
                let dependencies = (0..random.usize(0..3)).map(|_| random.choice(NAMES).unwrap());
                (version, day, is_yanked, dependencies.collect())
            })
            .collect();
        let versions: Vec<_> = versions
            .iter()
            .map(|(version, day, yanked, deps)| (version.as_str(), *day, *yanked, deps.as_slice()))
            .collect();
        let junk = random.choice(["", "junk\n", "\n"]).unwrap();
        files.insert(
            path_of(name),
            format!("{junk}{}", index_file(name, &versions)),
        );
    }
}

/// What a catalog of the shown files must answer, worked out the slow way.
struct Model {
    crates: Vec<(CrateSummary, i32, Vec<String>, i32)>,
}

impl Model {
    fn of(index: &IndexHandle) -> Self {
        let view = index.view().unwrap();
        let listing = view.listing();
        let mut crates = Vec::new();
        for listed in listing.crates() {
            let name = CrateName::try_from(listed.name.to_owned()).unwrap();
            let Some(blob) = view.find_exactly(&IndexPath::from(&name)) else {
                continue;
            };
            let content = view.read_blob(blob, <[u8]>::to_vec).unwrap();
            let Some(history) = CrateHistory::parse(&content, &name) else {
                continue;
            };
            let default = history.default_release().unwrap();
            let text =
                |version: Option<&crate::package::CrateVersion>| version.map(ToString::to_string);
            let summary = CrateSummary {
                name: history.name().to_owned(),
                created_at: history.created_at(),
                updated_at: history.updated_at(),
                num_versions: u32::try_from(history.releases().len()).unwrap(),
                is_yanked: history.visible().next().is_none(),
                default_version: default.version().to_string(),
                max_version: text(history.max_version()),
                newest_version: text(history.newest_version()),
                max_stable_version: text(history.max_stable_version()),
            };
            let dependencies = default.line.dependencies.iter();
            let dependencies = match default.line.yanked {
                true => Vec::new(),
                false => dependencies
                    .map(|found| found.crate_name().to_owned())
                    .collect(),
            };
            crates.push((summary, history.releases()[0].id, dependencies, default.id));
        }
        crates.sort_by_key(|found| found.0.name.to_lowercase());
        Self { crates }
    }

    fn matching(&self, query: &str) -> Vec<&(CrateSummary, i32, Vec<String>, i32)> {
        let canonical = |name: &str| name.to_lowercase().replace('-', "_");
        let query = canonical(query);
        let matches = |name: &str| {
            let name = canonical(name);
            match query.len() {
                0 => true,
                1 | 2 => format!("_{name}").contains(&format!("_{query}")),
                _ => name.contains(&query),
            }
        };
        let mut found: Vec<_> = self
            .crates
            .iter()
            .filter(|found| matches(&found.0.name))
            .collect();
        found.sort_by_key(|found| query.is_empty() || canonical(&found.0.name) != query);
        found
    }

    fn check(&self, scene: &Scene) {
        for query in [
            "", "a", "b", "ab", "a-", "a_b", "abc", "b_c", "AB-C", "c", "zz", "d",
        ] {
            let expected = self.matching(query);
            let found = scene.search(text(query));
            assert_eq!(found.total, expected.len(), "{query}");
            let summaries: Vec<_> = expected.iter().map(|found| found.0.clone()).collect();
            assert_eq!(found.crates, summaries, "{query}");
            for order in [
                CrateOrder::Name,
                CrateOrder::Id,
                CrateOrder::Updated,
                CrateOrder::Created,
            ] {
                self.check_pages(scene, query, order, expected.len());
            }
        }
        for (krate, ..) in &self.crates {
            let name = CrateName::try_from(krate.name.clone()).unwrap();
            let found = scene.ask(scene.catalog.dependents(name, 0, 100)).unwrap();
            let mut expected: Vec<&(CrateSummary, i32, Vec<String>, i32)> = self
                .crates
                .iter()
                .filter(|other| {
                    other
                        .2
                        .iter()
                        .any(|on| canonical_order(on, &krate.name).is_eq())
                })
                .collect();
            assert_eq!(found.total, expected.len());
            assert!(found.dependents.len() == found.total);
            expected.sort_by_key(|found| std::cmp::Reverse(found.1));
            let ids = |found: &Dependent| {
                self.crates
                    .iter()
                    .find(|(krate, ..)| krate.name == found.name)
                    .unwrap()
                    .1
            };
            assert!(
                found
                    .dependents
                    .is_sorted_by_key(|found| std::cmp::Reverse(ids(found)))
            );
            for dependent in found.dependents {
                let (expected, _, _, id) = expected
                    .iter()
                    .find(|found| found.0.name == dependent.name)
                    .unwrap();
                assert_eq!(
                    (dependent.version, dependent.version_id),
                    (expected.default_version.clone(), *id)
                );
            }
        }
    }

    /// Walks through all pages in both ways, which must show every crate once, in order.
    fn check_pages(&self, scene: &Scene, query: &str, order: CrateOrder, total: usize) {
        let all = scene
            .search(Search {
                order,
                ..text(query)
            })
            .crates;
        let key = |found: &CrateSummary| {
            let id = self
                .crates
                .iter()
                .find(|(krate, ..)| krate.name == found.name)
                .unwrap()
                .1;
            let time = match order {
                CrateOrder::Updated => found.updated_at.unix_seconds(),
                CrateOrder::Created => found.created_at.unix_seconds(),
                CrateOrder::Id | CrateOrder::Name => 0,
            };
            std::cmp::Reverse((time, id))
        };
        assert!(
            order == CrateOrder::Name || all.is_sorted_by_key(key),
            "{query} {order:?}"
        );
        assert_eq!(all.len(), total);
        let (mut skipped, mut sought) = (Vec::new(), Vec::new());
        let mut start = Start::Skip(0);
        loop {
            let page = |start| Search {
                order,
                page: Page { start, limit: 2 },
                ..text(query)
            };
            skipped.extend(scene.search(page(Start::Skip(skipped.len()))).crates);
            let found = scene.search(page(start));
            assert_eq!(found.total, total);
            sought.extend(found.crates);
            // The place as a client sends it back.
            let Some(last) = found.last else { break };
            let last = serde_json::to_string(&last).unwrap();
            start = Start::After(serde_json::from_str(&last).unwrap());
        }
        assert_eq!((&skipped, &sought), (&all, &all), "{query} {order:?}");
    }
}

/// Follows random changes, also through rules, restarts, squashes and new clones.
fn follow_random_history(seed: u64, rules: Vec<Rule>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut files = sample();
    let mut index = TestIndex::new(&listed(&files));
    index.settings_mut(|settings| {
        settings.rules = Rules::new(rules);
        let stored = (0..=u8::MAX).filter(|number| number % 4 != 0).map(checksum);
        let stored: HashSet<_> = stored.collect();
        settings.stored_files = Some(StoredFiles::new(move || Ok(stored.clone())));
    });
    index.refresh();
    let mut scene = Scene::new(&index.handle);
    scene.step();
    for step in 0..8 {
        random_files(&mut random, &mut files);
        // Without parents, as after a squash, or with them.
        match random.bool() {
            true => drop(index.commit(&listed(&files))),
            false => index.commit_with_parents(&listed(&files)),
        }
        if step % 4 == 3 {
            scene = scene.restart(&index.handle);
        }
        if step == 6 {
            index.replace_clone();
        }
        index.refresh();
        scene.step();
    }
    Model::of(&index.handle).check(&scene);
    let mut fresh = Scene::new(&index.handle);
    fresh.step();
    assert_eq!(scene.dump(), fresh.dump());
}

#[test]
fn a_catalog_that_has_followed_equals_a_fresh_one_and_the_model() {
    follow_random_history(1, Vec::new());
}

#[test]
fn a_catalog_follows_a_view_whose_rules_hide_versions() {
    follow_random_history(2, vec![Rule::StoredOnly]);
}

#[test]
fn a_catalog_follows_a_view_whose_rules_yank_versions() {
    follow_random_history(3, vec![Rule::EveryThirdYanked]);
}

/// Crates that the random histories below do not touch.
const QUIET: usize = 40;

/// What the rule about stored files shows of an index file.
fn stored_lines(file: &str, stored: &HashSet<Checksum>) -> Option<String> {
    let is_stored = |line: &&str| stored.iter().any(|found| line.contains(&found.to_string()));
    let lines: String = file.split_inclusive('\n').filter(is_stored).collect();
    (!lines.is_empty()).then_some(lines)
}

/// Files come and go in the store, and in the index, while the catalog is up to date, or behind.
fn follow_stored_files(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut files = sample();
    files.remove("config.json");
    for number in 0..QUIET {
        let name = format!("abcdefghijklmnopqr{number:02}");
        put(&mut files, &name, &[("1.0.0", Some(1), false, &[])]);
    }
    // Look-ups skip the second line of a version, and the rule does not.
    let twice = index_file("twice", &[("1.0.0", None, false, &[])]);
    let other = twice.replace(&checksum(b'1' ^ 5).to_string(), &checksum(0x38).to_string());
    assert_ne!(twice, other);
    files.insert(path_of("twice"), twice + &other);
    let stored: HashSet<Checksum> = [0x25, 0x30, 0x31, 0x35].map(checksum).into();
    let stored = Arc::new(Mutex::new(stored));
    let catalog = Arc::new(Mutex::new(Catalog::new()));
    let mut index = TestIndex::new(&listed(&files));
    index.settings_mut(|settings| {
        settings.rules = Rules::new(vec![Rule::StoredOnly]);
        let stored = Arc::clone(&stored);
        settings.stored_files = Some(StoredFiles::new(move || Ok(stored.lock().unwrap().clone())));
        let catalog = Arc::clone(&catalog);
        let find = move |checksums: &[Checksum]| {
            let catalog = catalog.lock().unwrap().clone();
            Ok(catalog.index_files_of(checksums)?)
        };
        settings.index_files_of = Some(IndexFilesOf::new(find));
    });
    index.refresh();
    assert!(index.files_read() > QUIET);
    let mut scene = Scene::new(&index.handle);
    *catalog.lock().unwrap() = scene.catalog.clone();
    scene.step();
    for step in 0..12 {
        for number in 0..random.u8(0..3) {
            let found = checksum(0x30 + (random.u8(0..9) + number) % 9);
            let mut stored = stored.lock().unwrap();
            if !stored.remove(&found) {
                stored.insert(found);
            }
        }
        if random.bool() {
            let twice = files.remove(&path_of("twice")).unwrap();
            random_files(&mut random, &mut files);
            files.insert(path_of("twice"), twice);
            index.commit(&listed(&files));
        }
        match step {
            3 => index.start_again_after_stop(),
            6 => index.replace_clone(),
            8 => {
                scene = scene.restart(&index.handle);
                *catalog.lock().unwrap() = scene.catalog.clone();
                scene.step();
            }
            _ => {}
        }
        index.refresh();
        // A new clone is read as a whole.
        assert!(step == 6 || index.files_read() < QUIET, "{seed} {step}");
        let stored = stored.lock().unwrap();
        let mut shown = 0;
        for (path, file) in &files {
            let (_, name) = path.rsplit_once('/').unwrap();
            let expected = stored_lines(file, &stored);
            shown += usize::from(expected.is_some());
            assert_eq!(
                read_crate(&index.handle, name),
                expected,
                "{seed} {step} {name}"
            );
        }
        assert_eq!(
            index.handle.view().unwrap().crate_count(),
            shown,
            "{seed} {step}"
        );
        drop(stored);
        if random.bool() {
            scene.step();
        }
    }
    let mut fresh = TestIndex::new(&listed(&files));
    let settings = index.settings();
    fresh.settings_mut(|of_fresh| {
        of_fresh.rules = settings.rules;
        of_fresh.stored_files = settings.stored_files;
    });
    fresh.refresh();
    let trees = |index: &TestIndex| index.handle.view().unwrap().listing().trees();
    assert_eq!(trees(&index), trees(&fresh));
}

#[test]
fn a_change_of_the_stored_files_reads_only_the_index_files_that_it_affects() {
    for seed in 0..3 {
        follow_stored_files(seed);
    }
}

/// Damages a database of this length.
type Damage = fn(&Path, usize);

#[test]
fn a_damaged_database_is_built_again() {
    let files = sample();
    let (index, mut scene) = built(&files);
    let expected = scene.dump();
    let path = scene.database();
    let length = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
    let damages: [(&str, Damage); 6] = [
        ("no database", |path, _| {
            fs::write(path, "no database").unwrap();
        }),
        ("empty", |path, _| fs::write(path, "").unwrap()),
        ("cut", |path, length| {
            let content = fs::read(path).unwrap();
            fs::write(path, &content[..length / 2]).unwrap();
        }),
        ("zeros", |path, length| {
            let mut content = fs::read(path).unwrap();
            content[4_096..length].fill(0);
            fs::write(path, content).unwrap();
        }),
        ("another schema", |path, _| {
            let connection = Connection::open(path).unwrap();
            connection.pragma_update(None, "user_version", 99).unwrap();
        }),
        ("no state", |path, _| {
            let connection = Connection::open(path).unwrap();
            connection.execute("DELETE FROM state", []).unwrap();
        }),
    ];
    for (name, damage) in damages {
        scene.worker.close();
        let path = scene.database();
        damage(&path, length);
        scene = scene.restart(&index.handle);
        // The first step may find the damage, and the next one builds.
        let _found = scene.worker.step();
        scene.step();
        assert_eq!(scene.dump(), expected, "{name}");
        assert_eq!(scene.names(text("io")), ["io"], "{name}");
    }
}

#[test]
fn an_interrupted_build_is_removed_and_a_log_is_never_applied_to_another_database() {
    let (index, scene) = built(&sample());
    let (path, expected) = (scene.database(), scene.dump());
    let directory = path.parent().unwrap().to_owned();
    fs::write(directory.join("building"), "half").unwrap();
    fs::write(directory.join("catalog-0.sqlite"), "old").unwrap();
    fs::write(directory.join("catalog-0.sqlite-wal"), "old log").unwrap();
    let mut scene = scene.restart(&index.handle);
    scene.step();
    assert_eq!(scene.dump(), expected);
    let mut names: Vec<_> = fs::read_dir(&directory)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm"))
        .collect();
    names.sort();
    assert_eq!(names, ["catalog-1.sqlite", "lock"]);
}

#[test]
fn the_catalog_of_another_index_is_brought_up_to_this_one() {
    let (_index, scene) = built(&sample());
    let mut files = Files::new();
    put(&mut files, "other", &[("1.0.0", Some(9), false, &[])]);
    put(
        &mut files,
        "serde",
        &[
            ("1.0.0", Some(1), false, &[]),
            ("1.0.1", Some(40), false, &[]),
        ],
    );
    let (other, fresh) = built(&files);
    let mut scene = scene.restart(&other.handle);
    scene.step();
    assert_eq!(scene.dump(), fresh.dump());
    assert_eq!(scene.names(everything()), ["other", "serde"]);
}

#[test]
fn without_a_directory_of_its_own_the_catalog_is_temporary() {
    let (index, scene) = built(&sample());
    // Another mirror uses the directory.
    let directory = tempfile::tempdir().unwrap();
    let settings = CatalogSettings {
        data_dir: scene.directory.path().join("data"),
        temp_dir: directory.path().to_owned(),
    };
    let catalog = Catalog::new();
    let mut worker = CatalogTask::new(settings.clone(), catalog.clone(), index.handle.clone());
    // The other mirror may be about to end.
    for _ in 0..3 {
        assert!(matches!(worker.step(), Err(WorkError::InUse)));
    }
    worker.step().unwrap();
    assert!(catalog.status().is_temporary);
    assert_eq!(catalog.status().crates, 6);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    drop(worker);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    // A file is where the directory should be.
    fs::write(directory.path().join("catalog"), "").unwrap();
    let settings = CatalogSettings {
        data_dir: directory.path().to_owned(),
        ..settings
    };
    let mut worker = CatalogTask::new(settings, catalog.clone(), index.handle);
    worker.step().unwrap();
    assert!(catalog.status().is_temporary);
}

#[test]
fn before_the_first_view_there_are_no_answers_and_a_stop_ends_a_build() {
    let mut index = TestIndex::new(&listed(&sample()));
    let mut scene = Scene::new(&index.handle);
    scene.step();
    let none = scene.ask(scene.catalog.search(everything()));
    assert!(matches!(none, Err(CatalogError::NotReady)));
    index.refresh();
    scene.worker.stop_flag().set();
    assert!(matches!(
        scene.worker.step(),
        Err(WorkError::Read(_) | WorkError::Database(_))
    ));
    let none = scene.ask(scene.catalog.summary(1));
    assert!(matches!(none, Err(CatalogError::NotReady)));
}

/// Waits until the catalog of a running task is in this state, and belongs to the view.
async fn reaches(catalog: &Catalog, index: &IndexHandle, state: CatalogState) {
    let commit = || index.view().map(|view| view.commit().to_string());
    let is_reached = || {
        let status = catalog.status();
        status.state() == state && (state != CatalogState::Ready || status.commit == commit())
    };
    let reached = async {
        while !is_reached() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let reached = tokio::time::timeout(Duration::from_secs(60), reached).await;
    reached.unwrap();
}

#[tokio::test]
async fn the_task_follows_views_repairs_a_damaged_database_and_ends_with_the_mirror() {
    let mut index = TestIndex::new(&listed(&sample()));
    let directory = tempfile::tempdir().unwrap();
    let settings = CatalogSettings {
        data_dir: directory.path().to_owned(),
        temp_dir: directory.path().to_owned(),
    };
    let catalog = Catalog::new();
    let stop = CancellationToken::new();
    let task = CatalogTask::new(settings, catalog.clone(), index.handle.clone());
    let task = tokio::spawn(task.run(stop.clone()));
    assert_eq!(catalog.status().state(), CatalogState::Building);
    index.refresh();
    reaches(&catalog, &index.handle, CatalogState::Ready).await;
    let mut files = sample();
    put(&mut files, "new", &[("1.0.0", Some(9), false, &[])]);
    index.commit(&listed(&files));
    index.refresh();
    reaches(&catalog, &index.handle, CatalogState::Ready).await;
    assert_eq!(catalog.search(text("new")).await.unwrap().total, 1);
    // Questions open the file by its name, and the task has it open.
    let database = directory.path().join("catalog/catalog-1.sqlite");
    for file in fs::read_dir(database.parent().unwrap()).unwrap() {
        let path = file.unwrap().path();
        if path.to_str().unwrap().contains(".sqlite") {
            let length = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
            fs::write(path, vec![b'x'; length]).unwrap();
        }
    }
    let replaced = async {
        while database.exists() {
            let _unreadable = catalog.search(text("new")).await;
            let _unreadable = catalog.summary(1).await;
        }
    };
    let replaced = tokio::time::timeout(Duration::from_secs(60), replaced).await;
    replaced.unwrap();
    reaches(&catalog, &index.handle, CatalogState::Ready).await;
    assert_eq!(catalog.search(text("new")).await.unwrap().total, 1);
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(60), task).await;
    ended.unwrap().unwrap().unwrap();
}

#[test]
fn more_questions_than_may_wait_are_refused_and_the_others_are_answered() {
    let (_index, scene) = built(&sample());
    scene.ask(async {
        let held = scene.catalog.questions().hold_answers().await;
        let mut questions = tokio::task::JoinSet::new();
        for _ in 0..ANSWERED_MAX + WAITING_MAX + 3 {
            let catalog = scene.catalog.clone();
            questions.spawn(async move { catalog.search(text("serde")).await });
        }
        for _ in 0..3 {
            let refused = questions.join_next().await.unwrap().unwrap();
            assert!(matches!(refused, Err(CatalogError::Failed(AskError::Busy))));
        }
        drop(held);
        for answer in questions.join_all().await {
            assert_eq!(answer.unwrap().total, 4);
        }
    });
}

#[test]
fn an_answer_ends_at_its_deadline() {
    let (_index, scene) = built(&sample());
    let mut reader = Crates::open_reader(&scene.database()).unwrap();
    reader.end_at(Instant::now()).unwrap();
    let endless = reader.count_to(10_000_000).map_err(AskError::from);
    assert!(matches!(endless, Err(AskError::TimedOut)));
}

#[test]
fn a_build_that_the_system_refuses_is_reported_and_succeeds_later() {
    let mut index = TestIndex::new(&listed(&sample()));
    index.refresh();
    let mut scene = Scene::new(&index.handle);
    let directory = scene.directory.path().join("data/catalog");
    // A directory in place of the database cannot be removed or written.
    fs::create_dir_all(directory.join("building/x")).unwrap();
    assert!(scene.worker.step().is_err());
    assert_eq!(scene.catalog.status().state(), CatalogState::Failed);
    assert!(scene.catalog.status().last_error.is_some());
    fs::remove_dir_all(directory.join("building")).unwrap();
    scene.step();
    assert_eq!(scene.catalog.status().state(), CatalogState::Ready);
    assert_eq!(scene.search(everything()).total, 6);
}

#[test]
fn a_too_large_index_file_is_left_out_and_counted() {
    let mut files = sample();
    let large = "x".repeat(33 * 1024 * 1024);
    files.insert(path_of("large"), large);
    let (mut index, mut scene) = built(&files);
    assert_eq!(scene.catalog.status().skipped_files, 1);
    assert_eq!(scene.search(everything()).total, 6);
    put(&mut files, "large", &[("1.0.0", Some(9), false, &[])]);
    index.commit(&listed(&files));
    index.refresh();
    scene.step();
    assert_eq!(scene.catalog.status().skipped_files, 0);
    assert_eq!(scene.names(text("large")), ["large"]);
}

#[test]
fn many_changes_lead_to_a_new_database_and_questions_are_answered_meanwhile() {
    let mut files = sample();
    let (mut index, mut scene) = built(&files);
    for number in 0..100 {
        files.insert(
            path_of(&format!("many{number}")),
            index_file(&format!("many{number}"), &[("1.0.0", None, false, &["io"])]),
        );
    }
    index.commit(&listed(&files));
    index.refresh();
    scene.step();
    assert!(scene.database().ends_with("catalog-2.sqlite"));
    assert_eq!(scene.search(text("many")).total, 100);
    // All of them have no time, so many share an id.
    let name = CrateName::try_from("io".to_owned()).unwrap();
    let found = scene.ask(scene.catalog.dependents(name, 0, 2_000)).unwrap();
    assert_eq!(found.dependents.len(), 100);
    assert!(
        found
            .dependents
            .is_sorted_by_key(|found| std::cmp::Reverse(found.version_id))
    );
    files.retain(|path, _| !path.starts_with("ma/ny/"));
    index.commit(&listed(&files));
    index.refresh();
    scene.step();
    let (_, fresh) = built(&files);
    assert_eq!(scene.dump().len(), fresh.dump().len());
    assert_eq!(scene.search(everything()).total, 6);
}
