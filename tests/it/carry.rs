//! `export` and `import` as processes: their output, the files that they leave, and what they refuse.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use crates_io_mirror::Config;
use tempfile::TempDir;

use crate::support::{
    CrateFile, Mirror, Origin, Program, S3Fault, S3Server, StoredFiles, eventually,
};

const AIR_GAP: &str = include_str!("../../docs/air-gap.md");

/// The source of crates in a lock file.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// A mirror with a network, a mirror without one, and a directory between them.
struct Gap {
    origin: Origin,
    outside: TempDir,
    carried: TempDir,
    inside: TempDir,
}

/// The output of a run.
struct Run {
    code: Option<i32>,
    results: String,
    notes: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            code: output.status.code(),
            results: text(&output.stdout),
            notes: text(&output.stderr),
        }
    }
}

impl Run {
    #[track_caller]
    fn done(self) -> String {
        assert_eq!((self.code, self.notes.as_str()), (Some(0), ""));
        self.results
    }
}

impl Gap {
    /// All crates of the origin are stored in the outer mirror.
    fn of(count: usize) -> Self {
        Self::with(Origin::of(count))
    }

    fn with(origin: Origin) -> Self {
        let gap = Self {
            origin,
            outside: TempDir::new().unwrap(),
            carried: TempDir::new().unwrap(),
            inside: TempDir::new().unwrap(),
        };
        gap.outside(&["prefetch", "--all"]).done();
        gap
    }

    fn settings_outside(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.origin.settings().to_vec();
        settings.push(("DATA_DIR", text(self.outside.path())));
        settings
    }

    /// The inner mirror does not know where the index comes from.
    fn settings_inside(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DATA_DIR", text(self.inside.path())),
            ("DOWNLOAD_MODE", "offline".to_owned()),
        ]
    }

    fn outside(&self, arguments: &[&str]) -> Run {
        run(arguments, &self.settings_outside())
    }

    fn inside(&self, arguments: &[&str]) -> Run {
        run(arguments, &self.settings_inside())
    }

    fn archive(&self, name: &str) -> String {
        text(&self.carried.path().join(name))
    }

    /// Publishes another crate, fetches it and exports it.
    fn next_day(&mut self, number: usize, archive: &str, since: &str) -> String {
        self.origin.publish(CrateFile::numbered(number));
        self.outside(&["prefetch", "--all"]).done();
        self.outside(&["export", archive, "--since", since]).done()
    }

    /// Turns the name of an archive or a list on the command line into its path, and leaves other words.
    fn located(&self, word: &str) -> String {
        let is_file = word.ends_with(".tar") || word.ends_with(".lock");
        if is_file {
            self.archive(word)
        } else {
            word.to_owned()
        }
    }

    /// A lock file with all crates of the origin.
    fn write_lockfile(&self, path: &str) {
        let packages = self.origin.files.iter().map(|file| {
            format!(
                "[[package]]\nname = \"{}\"\nversion = \"{}\"\nsource = \"{SOURCE}\"\nchecksum = \"{}\"\n",
                file.name,
                file.version,
                file.checksum()
            )
        });
        fs::write(path, packages.collect::<String>()).unwrap();
    }

    fn held_inside(&self) -> usize {
        let held = StoredFiles::look(&self.inside.path().join("crates"));
        assert!(held.staged.is_empty(), "{:?}", held.staged);
        held.checksums.len()
    }

    /// The name of the clone in use in the inner mirror.
    fn clone_inside(&self) -> Option<String> {
        fs::read_to_string(self.inside.path().join("index/current")).ok()
    }

    fn start_inside(&self) -> Mirror {
        let settings = self.settings_inside();
        let mirror = Mirror::start_with(&borrowed(&settings), |_config| ());
        mirror.wait_until_ready();
        mirror
    }

    /// Neither temporary files nor unused clones are left.
    #[track_caller]
    fn assert_nothing_is_left(&self) {
        for data in [&self.outside, &self.inside] {
            assert!(!scratch(data.path()).exists());
        }
        let clones = fs::read_dir(self.inside.path().join("index"));
        let clones = clones.map_or(0, |entries| {
            let entries = entries.map(|entry| entry.unwrap().path());
            entries.filter(|path| path.is_dir()).count()
        });
        assert_eq!(clones, usize::from(self.clone_inside().is_some()));
    }
}

fn run(arguments: &[&str], settings: &[(&'static str, String)]) -> Run {
    Program::run_verb(arguments, &borrowed(settings)).into()
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    let pairs = settings.iter();
    pairs.map(|(name, value)| (*name, value.as_str())).collect()
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn scratch(data: &Path) -> PathBuf {
    data.join("scratch")
}

/// The commands of the program in the code block at the beginning of `rest`.
fn block_lines(rest: &str) -> impl Iterator<Item = &str> {
    let block = rest.split("```").next().unwrap();
    block
        .lines()
        .filter(|line| line.contains("crates-io-mirror") && !line.contains("://"))
}

/// The names of the entries of an archive, and the positions of their content.
fn entries(archive: &[u8]) -> Vec<(String, std::ops::Range<usize>)> {
    let mut tar = tar::Archive::new(archive);
    let entries = tar.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let begin = usize::try_from(entry.raw_file_position()).unwrap();
        let length = usize::try_from(entry.size()).unwrap();
        (text(&entry.path().unwrap()), begin..begin + length)
    });
    entries.collect()
}

#[test]
fn the_first_archive_has_everything_and_later_ones_only_what_is_new() {
    let mut gap = Gap::of(3);
    let [monday, tuesday] = ["monday.tar", "tuesday.tar"].map(|name| gap.archive(name));
    let said = gap.outside(&["export", &monday]).done();
    assert!(said.starts_with("exported 3 crate files and "), "{said}");
    let said = gap.inside(&["import", &monday]).done();
    assert!(said.starts_with("imported 3 crate files, and the index; 0 stored already"));
    let mirror = gap.start_inside();
    for file in &gap.origin.files {
        assert_eq!(mirror.get(&file.download_path()).body, file.bytes());
    }

    let said = gap.next_day(3, &tuesday, &monday);
    assert!(
        said.starts_with("exported 1 crate files and 1 files of the index"),
        "{said}"
    );
    let lengths = [&monday, &tuesday].map(|path| fs::metadata(path).unwrap().len());
    assert!(lengths[1] < lengths[0], "{lengths:?}");
    let said = gap.inside(&["import", &tuesday]).done();
    assert!(said.starts_with("imported 1 crate files, and the index; 0 stored already"));
    let new = gap.origin.files.last().unwrap();
    eventually("the running mirror shows the imported crate", || {
        mirror.get(&new.download_path()).body == new.bytes()
    });
    mirror.stop();

    // Lost files can come from an earlier archive again. The index stays at the newer commit.
    fs::remove_dir_all(gap.inside.path().join("crates")).unwrap();
    let lossy = gap.inside(&["import", &tuesday]);
    assert_eq!(lossy.code, Some(1));
    assert!(
        lossy
            .notes
            .contains("3 crate files of earlier archives are not here")
    );
    let said = gap.inside(&["import", &monday]).done();
    assert!(
        said.contains("3 crate files, the index here is newer and stays"),
        "{said}"
    );
    assert_eq!(
        gap.start_inside().get(&new.download_path()).body,
        new.bytes()
    );
    gap.assert_nothing_is_left();
}

#[test]
fn the_commands_of_the_air_gap_document_work() {
    let gap = Gap::of(2);
    gap.write_lockfile(&gap.archive("Cargo.lock"));
    let mut verbs = Vec::new();
    for line in AIR_GAP.split("```sh\n").skip(1).flat_map(block_lines) {
        let (settings, command) = line.split_once("crates-io-mirror").unwrap_or((line, ""));
        let settings = settings
            .split_whitespace()
            .filter_map(|pair| pair.split_once('='));
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let arguments: Vec<String> = command
            .split_whitespace()
            .map(|word| gap.located(word))
            .collect();
        let Some(verb) = arguments.first() else {
            Config::from_pairs(settings).unwrap();
            continue;
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let run = match verb.as_str() {
            "import" => gap.inside(&arguments),
            _ => gap.outside(&arguments),
        };
        assert_eq!(run.code, Some(0), "{line}: {}", run.notes);
        verbs.push(verb.clone());
    }
    let expected = "prefetch prefetch export import prefetch export import verify";
    assert_eq!(verbs.join(" "), expected);
    assert_eq!(gap.held_inside(), 2);
}

#[test]
fn a_later_mirror_with_a_network_continues_from_the_imported_clone() {
    let mut gap = Gap::of(1);
    let archive = gap.archive("a.tar");
    gap.outside(&["export", &archive]).done();
    gap.inside(&["import", &archive]).done();
    let imported = gap.clone_inside().unwrap();
    let new = gap.origin.publish(CrateFile::numbered(1));
    let mut settings = gap.origin.settings().to_vec();
    settings.push(("DATA_DIR", text(gap.inside.path())));
    let mirror = Mirror::start_with(&borrowed(&settings), |_config| ());
    eventually("the new version is fetched", || {
        let answer = mirror.get("/api/v1/crates/kept-001");
        answer.header("x-index-commit") == Some(new.as_str())
    });
    assert_eq!(gap.clone_inside().unwrap(), imported);
}

#[test]
fn a_truncated_or_changed_archive_leaves_the_index_as_it_was() {
    let mut gap = Gap::of(2);
    let [first, second, bad] = ["first.tar", "second.tar", "bad.tar"].map(|name| gap.archive(name));
    gap.outside(&["export", &first]).done();
    gap.next_day(2, &second, &first);
    gap.inside(&["import", &first]).done();
    let before = gap.clone_inside();
    let good = fs::read(&second).unwrap();
    let places = entries(&good);
    let (_, pack) = places
        .iter()
        .find(|(name, _)| name.starts_with("index/"))
        .unwrap();
    let (_, end) = places.last().unwrap();
    let with_another_byte = |at: usize| {
        let mut changed = good.clone();
        changed[at] ^= 1;
        changed
    };
    for (content, code, words) in [
        (good[..end.start].to_vec(), 1, "ends early"),
        (good[..pack.start + 10].to_vec(), 1, "ends early"),
        (
            with_another_byte(pack.end - 3),
            1,
            "damaged or not complete",
        ),
        (with_another_byte(3), 2, "not an archive"),
        (good[..100].to_vec(), 2, "not an archive"),
    ] {
        fs::write(&bad, content).unwrap();
        let run = gap.inside(&["import", &bad]);
        assert_eq!(
            (run.code, run.results.as_str()),
            (Some(code), ""),
            "{words}"
        );
        assert!(run.notes.contains(words), "{words}: {}", run.notes);
        assert_eq!(gap.clone_inside(), before);
        gap.assert_nothing_is_left();
    }
    let said = gap.inside(&["import", "--dry-run", &second]).done();
    assert!(said.starts_with("would import"), "{said}");
    assert_eq!(gap.clone_inside(), before);
    gap.inside(&["import", &second]).done();
    assert_eq!(gap.held_inside(), 3);
}

#[test]
fn an_archive_without_its_base_is_refused_and_the_base_is_named() {
    let mut gap = Gap::of(1);
    let [monday, tuesday] = ["monday.tar", "tuesday.tar"].map(|name| gap.archive(name));
    let commit = gap.origin.index.head();
    gap.outside(&["export", &monday]).done();
    gap.next_day(1, &tuesday, &monday);
    let run = gap.inside(&["import", &tuesday]);
    assert_eq!((run.code, run.results.as_str()), (Some(2), ""));
    assert_eq!(
        run.notes,
        format!(
            "this archive builds on `monday.tar`, which has the index at {commit}: import that one first\n"
        )
    );
    assert_eq!((gap.held_inside(), gap.clone_inside()), (0, None));
    gap.assert_nothing_is_left();
}

#[test]
fn an_index_with_a_new_history_is_exported_in_full() {
    let mut gap = Gap::of(1);
    let [monday, tuesday] = ["monday.tar", "tuesday.tar"].map(|name| gap.archive(name));
    gap.outside(&["export", &monday]).done();
    gap.inside(&["import", &monday]).done();
    // As after a replacement of the clone, whose history begins anew.
    gap.origin.index.squash();
    fs::remove_dir_all(gap.outside.path().join("index")).unwrap();
    gap.next_day(1, &tuesday, &monday);
    let said = gap.inside(&["import", &tuesday]).done();
    assert!(
        said.starts_with("imported 1 crate files, and the index"),
        "{said}"
    );
    assert_eq!(gap.held_inside(), 2);
}

#[test]
fn an_archive_can_go_through_a_pipe() {
    let gap = Gap::of(2);
    let (outside, inside) = (gap.settings_outside(), gap.settings_inside());
    let [exported, imported] = Program::run_verbs_in_a_pipe(
        (&["export", "-"], &borrowed(&outside)),
        (&["import", "-"], &borrowed(&inside)),
    )
    .map(Run::from);
    assert_eq!(exported.code, Some(0), "{}", exported.notes);
    assert!(
        exported.notes.starts_with("exported 2 crate files"),
        "{}",
        exported.notes
    );
    assert!(
        imported
            .done()
            .starts_with("imported 2 crate files, and the index")
    );
    assert_eq!(gap.held_inside(), 2);
    gap.assert_nothing_is_left();
}

#[test]
fn an_import_beside_a_mirror_that_fetches_is_refused_at_once() {
    let gap = Gap::of(1);
    let settings = gap.settings_outside();
    let mirror = Mirror::start_with(&borrowed(&settings), |_config| ());
    mirror.wait_until_ready();
    // An export is allowed.
    gap.outside(&["export", &gap.archive("a.tar")]).done();
    let run = gap.outside(&["import", "there-is-no-such-archive.tar"]);
    assert_eq!((run.code, run.results.as_str()), (Some(1), ""));
    assert!(
        run.notes.contains("DATA_DIR is in use") && run.notes.contains("DOWNLOAD_MODE=offline"),
        "{}",
        run.notes
    );
}

#[test]
fn a_stopped_import_leaves_only_complete_files() {
    let gap = Gap::with(Origin::with(vec![
        CrateFile::noise("small", "1.0.0", 1, 1_000),
        CrateFile::noise("large", "1.0.0", 2, 12_000_000),
    ]));
    let archive = gap.archive("a.tar");
    gap.outside(&["export", &archive]).done();
    let content = fs::read(&archive).unwrap();
    let largest = entries(&content)
        .into_iter()
        .max_by_key(|(_, place)| place.len());
    let half = largest.unwrap().1.start + 7_000_000;
    let settings = gap.settings_inside();
    // The file is so large that its first part is in the store before the end.
    let crates = gap.inside.path().join("crates");
    let run = Run::from(Program::stop_verb_fed_with(
        &["import", "-"],
        &borrowed(&settings),
        &content[..half],
        || scratch(gap.inside.path()).exists() && !StoredFiles::look(&crates).staged.is_empty(),
    ));
    assert_eq!((run.code, run.results.as_str()), (Some(1), ""));
    assert!(run.notes.starts_with("stopped; "), "{}", run.notes);
    gap.assert_nothing_is_left();
    assert!(gap.held_inside() < 2 && gap.clone_inside().is_none());
    let said = gap.inside(&["import", &archive]).done();
    assert!(said.contains(", and the index; "), "{said}");
}

#[test]
fn a_stopped_export_leaves_no_archive() {
    let (gap, bucket) = (Gap::of(1), S3Server::start());
    let mut settings = gap.settings_outside();
    settings.extend(bucket.settings());
    run(&["prefetch", "--all"], &settings).done();
    bucket.set(S3Fault::HangOnFiles);
    let archive = gap.archive("a.tar");
    let begun = || gap.carried.path().read_dir().unwrap().count() == 1;
    let run: Run =
        Program::stop_verb_when(&["export", &archive], &borrowed(&settings), begun).into();
    assert_eq!((run.code, run.results.as_str()), (Some(1), ""));
    assert_eq!(run.notes, "stopped; there is no archive\n");
    assert_eq!(gap.carried.path().read_dir().unwrap().count(), 0);
    gap.assert_nothing_is_left();
}
