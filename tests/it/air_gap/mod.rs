//! From a mirror with a network to one without: crate files and index are exported, imported and served.

mod archives;
mod pruned;
mod real_crates;

use std::path::Path;
use std::process::Output;

use crate::support::{CrateFile, Mirror, Origin, Program, borrowed, succeeds};

/// Runs a subcommand on this data directory.
fn run_verb(arguments: &[&str], data: &Path, settings: &[(&'static str, String)]) -> Output {
    let mut all = borrowed(settings);
    all.push(("DATA_DIR", data.to_str().unwrap()));
    Program::run_verb(arguments, &all)
}

/// Runs a subcommand that must succeed, and returns its output.
#[track_caller]
fn done(arguments: &[&str], data: &Path, settings: &[(&'static str, String)]) -> String {
    let output = run_verb(arguments, data, settings);
    succeeds(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// Nothing listens at this port. It is not a path, because an offline mirror fetches from a local path.
const NOWHERE: &str = "http://127.0.0.1:1/index.git";

/// An offline mirror.
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
