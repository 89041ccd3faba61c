//! Real files of the crates.io index.

use std::path::Path;

use super::index_path;

/// The crates with index files in `tests/fixtures/index`.
pub(crate) const FIXTURES: [&str; 19] = [
    "a",
    "adler2",
    "anyhow",
    "cfg-if",
    "either",
    "fnv",
    "foreign-types-shared",
    "hex",
    "inflector",
    "itoa",
    "lazy_static",
    "matches",
    "openssl-src",
    "rand_core",
    "ryu",
    "serde_core",
    "shlex",
    "tinyvec_macros",
    "void",
];

/// The index file of a crate in [`FIXTURES`].
pub(crate) fn fixture(name: &str) -> Vec<u8> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/index");
    std::fs::read(root.join(index_path(name))).unwrap()
}
