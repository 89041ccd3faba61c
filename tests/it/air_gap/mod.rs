//! From a mirror with a network to one without: what is kept, carried over in an archive, and served there.

mod archives;
mod pruned;
mod real_crates;

use std::path::Path;
use std::process::Output;

use crate::support::{CrateFile, Mirror, Origin, Program, borrowed, succeeds};

/// Runs a verb of the program on this data directory.
fn run_verb(arguments: &[&str], data: &Path, settings: &[(&'static str, String)]) -> Output {
    let mut all = borrowed(settings);
    all.push(("DATA_DIR", data.to_str().unwrap()));
    Program::run_verb(arguments, &all)
}

/// Runs a verb that must do all it was asked for, and returns what it says.
#[track_caller]
fn done(arguments: &[&str], data: &Path, settings: &[(&'static str, String)]) -> String {
    let output = run_verb(arguments, data, settings);
    succeeds(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// Where nobody answers. An index at a path would be followed: no network is needed for that.
const NOWHERE: &str = "http://127.0.0.1:1/index.git";

/// A mirror that may ask nobody.
fn offline(origin: &Origin, data: &Path, more: &[(&str, &str)]) -> Mirror {
    let own = origin.settings();
    let mut settings = borrowed(&own);
    settings.retain(|(name, _)| *name == "DOWNLOAD_URL");
    settings.extend([
        ("GIT_REPO_URL", NOWHERE),
        ("DATA_DIR", data.to_str().unwrap()),
        ("DOWNLOAD_MODE", "offline"),
    ]);
    settings.extend(more);
    let mirror = Mirror::start_public(&settings);
    mirror.wait_until_ready();
    mirror
}

/// Whether the mirror sends the bytes of a file.
fn serves(mirror: &Mirror, file: &CrateFile) -> bool {
    let answer = mirror.get(&file.download_path());
    match answer.status {
        200 => {
            assert!(answer.body == file.bytes(), "other bytes of {}", file.name);
            true
        }
        404 => false,
        _ => panic!("{answer:?}"),
    }
}
