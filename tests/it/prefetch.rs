//! `prefetch` as a process, with a real index, a real upstream and a store on a disk.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{
    CrateFile, Mirror, Origin, Program, Project, StoredFiles, UpstreamFault, borrowed, succeeds,
};

/// The output and the exit code of a run.
struct Run {
    code: Option<i32>,
    results: String,
    notes: String,
}

fn prefetch(origin: &Origin, data: &Path, arguments: &[&str], settings: &[(&str, &str)]) -> Run {
    let own = origin.settings();
    let mut all: Vec<(&str, &str)> = vec![("DATA_DIR", data.to_str().unwrap())];
    all.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
    all.extend(settings);
    let arguments = [&["prefetch"], arguments].concat();
    let output = Program::run_verb(&arguments, &all);
    Run {
        code: output.status.code(),
        results: String::from_utf8(output.stdout).unwrap(),
        notes: String::from_utf8(output.stderr).unwrap(),
    }
}

/// `top` needs `middle`, and `middle` needs `bottom`. `other` needs nothing.
fn origin() -> Origin {
    Origin::with(vec![
        CrateFile::pack("top", "1.0.0", &["middle"]),
        CrateFile::pack("middle", "1.2.0", &["bottom"]),
        CrateFile::pack("bottom", "1.0.3", &[]),
        CrateFile::pack("other", "1.0.0", &[]),
    ])
}

/// The settings of a mirror of this origin with its data in `data`.
fn settings(origin: &Origin, data: &TempDir) -> Vec<(&'static str, String)> {
    let data = data.path().to_str().unwrap().to_owned();
    let mut settings = origin.settings().to_vec();
    settings.push(("DATA_DIR", data));
    settings
}

fn held(data: &TempDir) -> StoredFiles {
    StoredFiles::look(&data.path().join("crates"))
}

#[test]
fn a_crate_is_fetched_with_its_dependencies_once_and_served_offline() {
    let (mut origin, data) = (origin(), TempDir::new().unwrap());
    let run = prefetch(&origin, data.path(), &["top"], &[]);
    assert_eq!(
        (run.code, run.notes.as_str()),
        (Some(0), ""),
        "{}",
        run.results
    );
    assert!(
        run.results.starts_with("3 files: 3 fetched ("),
        "{}",
        run.results
    );
    assert_eq!(held(&data).checksums.len(), 3);
    let again = prefetch(&origin, data.path(), &["top"], &[]);
    assert_eq!(again.code, Some(0));
    assert!(again.results.contains("0 fetched") && again.results.contains("3 stored already"));
    assert_eq!(origin.fetched().len(), 3);
    origin.upstream.stop();
    let own = origin.settings();
    let mut settings: Vec<(&str, &str)> = own
        .iter()
        .filter(|(name, _)| *name != "DOWNLOAD_MODE")
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    settings.extend([
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("DOWNLOAD_MODE", "offline"),
    ]);
    let mirror = Mirror::start_with(&settings, |_config| ());
    mirror.wait_until_ready();
    for file in &origin.files[..3] {
        assert_eq!(mirror.get(&file.download_path()).body, file.bytes());
    }
    assert_eq!(mirror.get(&origin.files[3].download_path()).status, 404);
}

#[test]
fn a_store_that_can_lose_files_gives_a_warning() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    for (setting, words) in [
        (("STORAGE_URL", "memory://"), "gone when this command ends"),
        (("STORAGE_MAX_BYTES", "1000000"), "may push out"),
    ] {
        let run = prefetch(&origin, data.path(), &["top"], &[setting]);
        assert_eq!((run.code, run.notes.lines().count()), (Some(0), 1));
        assert!(
            run.notes.starts_with(&format!("warning: {}", setting.0)) && run.notes.contains(words),
            "{}",
            run.notes
        );
        let dry = prefetch(&origin, data.path(), &["-n", "top"], &[setting]);
        assert_eq!((dry.code, dry.notes.as_str()), (Some(0), ""));
    }
}

#[test]
fn files_that_evict_each_other_are_a_problem() {
    let large = |name, seed| CrateFile::noise(name, "1.0.0", seed, 600_000);
    let origin = Origin::with(vec![large("one", 1), large("two", 2), large("three", 3)]);
    let data = TempDir::new().unwrap();
    let limit = [("STORAGE_MAX_BYTES", "1000000")];
    let run = prefetch(&origin, data.path(), &["--all", "--jobs", "1"], &limit);
    assert_eq!(run.code, Some(1), "{}", run.notes);
    assert!(run.notes.contains("were pushed out again"), "{}", run.notes);
}

#[test]
fn a_dry_run_lists_the_wanted_versions_and_fetches_nothing() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    let list = prefetch(&origin, data.path(), &["--dry-run", "top"], &[]);
    assert_eq!(list.code, Some(0), "{}", list.notes);
    assert_eq!(list.results, "bottom@1.0.3\nmiddle@1.2.0\ntop@1.0.0\n");
    assert!(origin.fetched().is_empty());
    let file = data.path().join("list");
    fs::write(&file, list.results).unwrap();
    let arguments = ["--no-deps", "--crates", file.to_str().unwrap()];
    assert_eq!(
        prefetch(&origin, data.path(), &arguments, &[]).code,
        Some(0)
    );
    assert_eq!(held(&data).checksums.len(), 3);
}

#[test]
fn prefetch_works_in_redirect_mode() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    let redirect = [("DOWNLOAD_MODE", "redirect")];
    let run = prefetch(&origin, data.path(), &["--all"], &redirect);
    assert_eq!(run.code, Some(0), "{}", run.notes);
    assert_eq!(held(&data).checksums.len(), 4);
}

#[test]
fn a_lock_file_gets_its_packages_and_a_wrong_checksum_is_a_problem() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    let package = |file: &CrateFile, checksum: &str| {
        format!(
            "[[package]]\nname = \"{}\"\nversion = \"{}\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"{checksum}\"\n",
            file.name, file.version
        )
    };
    let [top, middle] = [&origin.files[0], &origin.files[1]];
    let good = package(top, &top.checksum());
    let path = data.path().join("Cargo.lock");
    fs::write(&path, &good).unwrap();
    let run = prefetch(&origin, data.path(), &[path.to_str().unwrap()], &[]);
    assert_eq!(run.code, Some(0), "{}", run.notes);
    assert_eq!(held(&data).checksums.len(), 1);
    let private = package(middle, &top.checksum()).replace("github.com", "private.example");
    fs::write(&path, good.clone() + &private).unwrap();
    let run = prefetch(&origin, data.path(), &[path.to_str().unwrap()], &[]);
    assert_eq!(
        (run.code, run.notes.as_str()),
        (
            Some(0),
            "warning: passed over 1 packages of lock files that are of other registries\n"
        )
    );
    fs::write(&path, good + &package(middle, &top.checksum())).unwrap();
    let run = prefetch(&origin, data.path(), &[path.to_str().unwrap()], &[]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.notes
            .starts_with("problem: middle@1.2.0: the lock file has the checksum"),
        "{}",
        run.notes
    );
    assert_eq!(held(&data).checksums.len(), 1);
}

#[test]
fn prefetch_works_beside_a_running_mirror_on_the_same_data() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    let settings = settings(&origin, &data);
    let mirror = Mirror::start(&borrowed(&settings));
    mirror.wait_until_ready();
    let run = prefetch(&origin, data.path(), &["top"], &[]);
    assert_eq!((run.code, run.notes.as_str()), (Some(0), ""));
    assert_eq!(mirror.get(&origin.files[2].download_path()).status, 200);
    assert_eq!(origin.fetched().len(), 3);
}

#[test]
fn a_mirror_that_starts_during_a_prefetch_has_the_index() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    let middle = origin.files[1].path();
    origin
        .upstream
        .fail_path(&middle, UpstreamFault::HangsMidBody);
    let settings = settings(&origin, &data);
    let output = Program::stop_verb_when(&["prefetch", "top"], &borrowed(&settings), || {
        let is_under_way = held(&data).checksums.len() == 2;
        if is_under_way {
            let mirror = Mirror::start(&borrowed(&settings));
            mirror.wait_until_ready();
            assert_eq!(mirror.get(&origin.files[0].download_path()).status, 200);
        }
        is_under_way
    });
    assert_eq!(output.status.code(), Some(1));
    // The prefetch was still running, so the mirror did not wait for its end.
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("run the same again"), "{said}");
}

#[test]
fn sigterm_stops_a_prefetch_that_waits_for_a_list_from_a_pipe() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    let settings = settings(&origin, &data);
    let pipe = data.path().join("list");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let writer = RefCell::new(None);
    let arguments = ["prefetch", "--crates", pipe.to_str().unwrap()];
    let output = Program::stop_verb_when(&arguments, &borrowed(&settings), || {
        // Opening the pipe fails until a process reads it.
        let opened = File::options()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&pipe);
        *writer.borrow_mut() = opened.ok();
        writer.borrow().is_some()
    });
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "stopped\n");
}

#[test]
fn a_missing_file_is_reported_and_all_others_are_fetched() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    origin.upstream.remove(&origin.files[1].path());
    let run = prefetch(&origin, data.path(), &["top"], &[]);
    assert_eq!(run.code, Some(1));
    assert_eq!(run.notes, "problem: middle 1.2.0: no upstream has it\n");
    assert!(run.results.contains("2 fetched") && run.results.contains("1 missing upstream"));
}

#[test]
fn without_an_index_prefetch_reports_the_reason_and_offline_it_does_not_try() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    let nowhere = [("GIT_REPO_URL", "/nowhere/at/all")];
    let run = prefetch(&origin, data.path(), &["top"], &nowhere);
    assert_eq!((run.code, run.results.as_str()), (Some(1), ""));
    assert!(
        run.notes.contains("there is no index in DATA_DIR"),
        "{}",
        run.notes
    );
    let offline = [("DOWNLOAD_MODE", "offline")];
    let run = prefetch(&origin, data.path(), &["top"], &offline);
    assert_eq!(run.code, Some(2));
    assert!(run.notes.contains("`offline`"), "{}", run.notes);
}

#[test]
fn sigterm_stops_a_prefetch_and_stored_files_stay() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    origin
        .upstream
        .fail_path(&origin.files[1].path(), UpstreamFault::HangsMidBody);
    let settings = settings(&origin, &data);
    let output = Program::stop_verb_when(&["prefetch", "top"], &borrowed(&settings), || {
        held(&data).checksums.len() == 2
    });
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("run the same again"), "{said}");
    assert_eq!(held(&data).checksums.len(), 2);
    origin.upstream.heal();
    let run = prefetch(&origin, data.path(), &["top"], &[]);
    assert_eq!(run.code, Some(0), "{}", run.notes);
    assert!(run.results.contains("1 fetched") && run.results.contains("2 stored already"));
}

#[test]
fn after_a_kill_a_prefetch_fetches_only_missing_files() {
    let (origin, data) = (origin(), TempDir::new().unwrap());
    let [top, middle, bottom] = [0, 1, 2].map(|number| origin.files[number].path());
    let middle_hangs = UpstreamFault::HangsMidBody;
    origin.upstream.fail_path(&middle, middle_hangs);
    let settings = settings(&origin, &data);
    let output = Program::kill_verb_when(&["prefetch", "top"], &borrowed(&settings), || {
        held(&data).checksums.len() == 2
    });
    assert_eq!(output.status.code(), None);
    origin.upstream.heal();
    let run = prefetch(&origin, data.path(), &["top"], &[]);
    assert_eq!(run.code, Some(0), "{}", run.notes);
    // `look` fails if a file is not what its name says.
    assert_eq!(held(&data).checksums.len(), 3);
    let requests = [&top, &middle, &bottom].map(|path| origin.upstream.requests(path));
    assert_eq!(requests, [1, 2, 1]);
}

#[test]
fn after_a_prefetch_of_a_lock_file_cargo_needs_no_upstream() {
    let mut origin = Origin::with(vec![
        CrateFile::pack("under_score", "1.0.1", &["MixedCase", "plus-build"]),
        CrateFile::pack("MixedCase", "1.2.3", &["leaf"]),
        CrateFile::pack("plus-build", "1.0.0+b", &[]),
        CrateFile::pack("leaf", "1.0.0", &[]),
        CrateFile::pack("other", "1.0.0", &[]),
    ]);
    let data = TempDir::new().unwrap();
    let settings = settings(&origin, &data);
    let mirror = Mirror::start(&borrowed(&settings));
    mirror.wait_until_ready();
    let project = Project::new(&format!("sparse+http://{}/index/", mirror.address), &[]);
    succeeds(&project.cargo(&["generate-lockfile"]));
    assert!(origin.fetched().is_empty());
    let lock = project.lock_path();
    let run = prefetch(&origin, data.path(), &[lock.to_str().unwrap()], &[]);
    assert_eq!((run.code, run.notes.as_str()), (Some(0), ""));
    assert_eq!(origin.fetched().len(), 4);
    origin.upstream.stop();
    succeeds(&project.cargo(&["build", "--locked"]));
    assert_eq!(project.program_says(), "4\n");
}
