//! Checks that the files of `src` use each other only in the ways that `ARCHITECTURE.md` allows.
//!
//! It needs nothing but the compiler:
//! `rustc --edition 2024 --test .ci/architecture/main.rs -o /tmp/architecture && /tmp/architecture`.
//! `cargo test` runs it, too.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "a check that meets something unexpected fails, and says what it saw"
)]

mod modules;
mod planted;
mod rules;
mod tokens;

use std::fs;
use std::path::Path;

#[test]
fn the_files_of_src_use_each_other_only_in_the_ways_that_the_document_allows() {
    // Cargo runs tests in the directory of the package, and `.ci/run` runs this there.
    let document = fs::read_to_string("ARCHITECTURE.md").unwrap();
    let uses = modules::uses(Path::new("."));
    assert!(uses.files.len() > 100, "few files: {}", uses.files.len());
    let complaints = rules::complaints(&uses, &rules::allowed(&document));
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}
