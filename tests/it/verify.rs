//! `verify` as a process, with a store on a disk that the test damages.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::{CrateFile, Origin, Program, StoredFiles};

/// Exit code, standard output, standard error.
fn run(origin: &Origin, data: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let own = origin.settings();
    let mut settings: Vec<(&str, &str)> = vec![("DATA_DIR", data.to_str().unwrap())];
    settings.extend(own.iter().map(|(name, value)| (*name, value.as_str())));
    let output = Program::run_verb(arguments, &settings);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The path of a stored file.
fn place(data: &TempDir, file: &CrateFile) -> PathBuf {
    let checksum = file.checksum();
    let (first, rest) = checksum.split_at(2);
    let (second, _) = rest.split_at(2);
    let directory = data.path().join("crates").join(first).join(second);
    directory.join(format!("{checksum}.crate"))
}

#[test]
fn damage_is_found_and_repaired_from_the_upstream() {
    let (origin, data) = (Origin::of(3), TempDir::new().unwrap());
    let (code, _, said) = run(&origin, data.path(), &["prefetch", "--all"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, results, said) = run(&origin, data.path(), &["verify"]);
    assert_eq!((code, results.as_str()), (Some(0), ""), "{said}");
    assert!(said.starts_with("3 files: 0 damaged"), "{said}");

    let damaged = &origin.files[1];
    let path = place(&data, damaged);
    fs::remove_file(&path).unwrap();
    fs::write(&path, "something else").unwrap();
    let (code, results, _) = run(&origin, data.path(), &["verify"]);
    assert_eq!((code, results), (Some(1), damaged.checksum() + "\n"));
    assert!(path.exists(), "without --repair nothing changes");

    let (code, results, said) = run(&origin, data.path(), &["verify", "--repair"]);
    assert_eq!((code, results), (Some(0), damaged.checksum() + "\n"));
    assert!(said.contains("was fetched again: kept-001 1.0.0"), "{said}");
    // `look` fails if a file is not what its name says.
    let held = StoredFiles::look(&data.path().join("crates"));
    assert_eq!(held.checksums.len(), 3);
}

#[test]
fn an_empty_store_has_no_damage() {
    let (origin, data) = (Origin::of(1), TempDir::new().unwrap());
    let (code, results, said) = run(&origin, data.path(), &["verify"]);
    assert_eq!((code, results.as_str()), (Some(0), ""), "{said}");
}
