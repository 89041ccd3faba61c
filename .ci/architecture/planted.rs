//! The check, run on small trees with one thing planted in each.

use std::fs;
use std::path::PathBuf;

use crate::{modules, rules};

const DOCUMENT: &str = "\
| module | what it contains | uses |
| --- | --- | --- |
| `main` | the program | `high` |
| `high` | x | `low` |
| `low` | x | nothing |
| `leaf` | x | nothing; every module may use it |
| `pure` | x | nothing at all |

| `another` | table | `high` |
";

/// A tree without a fault. Each test adds files or replaces them.
const SOUND: [(&str, &str); 8] = [
    (
        "main.rs",
        "use crates_io_mirror::start;\nfn main() { start(); }",
    ),
    (
        "lib.rs",
        "mod high;\nmod leaf;\nmod low;\nmod pure;\npub use high::start;",
    ),
    (
        "high/mod.rs",
        "//! See [`crate::main`].\nmod one;\nmod two;\npub use one::start;\npub(crate) use two::Two;",
    ),
    (
        "high/one.rs",
        "use super::Two;\nuse crate::low::{self, words::{First, Second as Other}};\n\
         pub fn start() { let _two = Two; low::words::say(\"crate::high::two\"); }\n\
         #[cfg(test)]\nmod tests { use super::*; use crate::nowhere::X; use git2::Repository; }",
    ),
    ("high/two.rs", "pub(crate) struct Two;"),
    ("leaf.rs", "pub(crate) struct Leaf;"),
    (
        "low/mod.rs",
        "pub(crate) mod words;\nuse crate::leaf::Leaf;",
    ),
    ("pure.rs", ""),
];

const WORDS: &str =
    "pub(crate) struct First;\npub(crate) struct Second;\npub(crate) fn say(_: &'static str) {}";

#[test]
fn a_tree_without_a_fault_has_no_complaint() {
    assert_eq!(complaints("sound", &[]), Vec::<String>::new());
}

#[test]
fn a_planted_edge_is_found_however_it_is_written() {
    for (number, source) in [
        "use crate::high::Two;",
        "use crate::{high::{Two as Other}};",
        "use super::super::high::*;",
        "fn f() { let _two = crate::high::Two; }",
        "fn f() { super::super::high::start(); }",
        "mod inner { fn f(_: &crate::high::Two) {} }",
        "mod inner { use super::super::super::high::Two; }",
        "use crate::high;\nfn f() -> high::Two { 'x'; b'\\''; r#\"\"\"#; high::Two }",
        "#[derive(Debug)]\nstruct S<'a>(&'a str, crate::high::Two);",
    ]
    .into_iter()
    .enumerate()
    {
        let words = format!("{WORDS}\n{source}");
        let found = complaints(&format!("edge-{number}"), &[("low/words.rs", &words)]);
        let edge = "`low` may not use `high`: src/low/words.rs uses ";
        assert!(
            found.iter().any(|complaint| complaint.starts_with(edge)),
            "{source}: {found:#?}"
        );
    }
}

#[test]
fn a_module_that_uses_nothing_at_all_does_not_use_what_every_module_may_use() {
    let found = complaints("pure", &[("pure.rs", "use crate::leaf::Leaf;")]);
    let edge = "`pure` may not use `leaf`: src/pure.rs uses crate::leaf::Leaf, from src/leaf.rs";
    assert_eq!(found, [edge]);
}

#[test]
fn a_planted_circle_is_found_with_what_ties_it() {
    for (number, source) in [
        "use super::one::start;",
        "use crate::high::start;",
        "fn f() { super::start(); }",
        "fn f() { crate::start(); }",
    ]
    .into_iter()
    .enumerate()
    {
        let two = format!("pub(crate) struct Two;\n{source}");
        let found = complaints(&format!("circle-{number}"), &[("high/two.rs", &two)]);
        let [circle] = &found[..] else {
            panic!("{source}: {found:#?}");
        };
        assert!(
            circle.starts_with("these files need each other: src/high/one.rs, src/high/two.rs\n")
                && circle.contains("src/high/one.rs uses super::Two, from src/high/two.rs")
                && circle.contains("src/high/two.rs uses "),
            "{circle}"
        );
    }
}

#[test]
fn a_facade_that_also_uses_what_it_re_exports_is_part_of_a_circle() {
    let found = complaints(
        "facade",
        &[
            (
                "high/mod.rs",
                "mod one;\nmod two;\npub use one::start;\npub(crate) use two::Two;\n\
                 pub(crate) struct Three(Two);",
            ),
            (
                "high/two.rs",
                "pub(crate) struct Two;\nfn f(_: super::Three) {}",
            ),
        ],
    );
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].starts_with("these files need each other: src/high/mod.rs, src/high/two.rs"),
        "{found:#?}"
    );
}

#[test]
fn a_module_that_the_table_lacks_and_a_circle_of_the_table_are_complaints() {
    let found = complaints(
        "lacking",
        &[
            (
                "lib.rs",
                "mod high;\nmod leaf;\nmod low;\nmod pure;\nmod new;\npub use high::start;",
            ),
            ("new.rs", ""),
        ],
    );
    assert_eq!(found, ["the table of modules lacks `new`"]);
    let document = DOCUMENT.replace("`low` | x | nothing", "`low` | x | `high`");
    let found = complaints_with("table", &[], &document);
    assert_eq!(found, ["the table of modules has a circle: high, low"]);
}

#[test]
fn what_only_some_modules_may_name_is_found_elsewhere() {
    for (number, (source, rule)) in [
        (
            "fn f() { std::env::var(\"X\"); }",
            "only `config` reads the environment",
        ),
        (
            "use std::env;\nfn f() { env::vars_os(); }",
            "only `config` reads the environment",
        ),
        (
            "use std::{env::var_os as read, fs};",
            "only `config` reads the environment",
        ),
        (
            "use axum::http::StatusCode;",
            "only `http` names a status code",
        ),
        (
            "fn f() { reqwest::StatusCode::OK; }",
            "only `http` names a status code",
        ),
        ("use git2::{Repository};", "only `index` touches git2"),
        (
            "fn f() { tokio::process::Command::new(\"git\"); }",
            "only `index` starts `git`",
        ),
        (
            "fn f(_: &dyn object_store::ObjectStore) {}",
            "only `store` touches object_store",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let words = format!("{WORDS}\n{source}");
        let found = complaints(&format!("reserved-{number}"), &[("low/words.rs", &words)]);
        assert_eq!(found.len(), 1, "{source}: {found:#?}");
        assert!(found[0].starts_with(rule), "{found:#?}");
    }
    let allowed = format!("{WORDS}\nuse std::env;\nfn f() {{ env::args_os(); }}");
    assert!(complaints("arguments", &[("low/words.rs", &allowed)]).is_empty());
}

fn complaints(name: &str, planted: &[(&str, &str)]) -> Vec<String> {
    complaints_with(name, planted, DOCUMENT)
}

/// What the check says of the sound tree with these files in it.
fn complaints_with(name: &str, planted: &[(&str, &str)], document: &str) -> Vec<String> {
    let directory = format!("architecture-{name}-{}", std::process::id());
    let root: PathBuf = std::env::temp_dir().join(directory);
    let words = [("low/words.rs", WORDS)];
    for (file, source) in SOUND.iter().chain(&words).chain(planted) {
        let path = root.join("src").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, source).unwrap();
    }
    let uses = modules::uses(&root);
    fs::remove_dir_all(&root).unwrap();
    rules::complaints(&uses, &rules::allowed(document))
}
