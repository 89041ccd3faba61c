//! The catalog after a kill. `benches/compare/catalog_kill.py` kills at many moments.

use tempfile::TempDir;

use crate::support::{GitIndex, Program, eventually, eventually_some, index_line};

/// Starts the program on this index and directory.
fn start(index: &GitIndex, data: &TempDir) -> Program {
    Program::start(&[
        ("GIT_REPO_URL", index.path().to_str().unwrap()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ])
}

/// The answers of the catalog, when it belongs to the newest commit.
fn answers(program: &Program, index: &GitIndex) -> Vec<String> {
    let head = index.head();
    let of_head = |path: &&str| {
        eventually_some("the catalog belongs to the newest commit", || {
            let answer = program.get(path);
            let is_of_head = answer.header("x-index-commit") == Some(&head);
            (answer.status == 200 && is_of_head).then(|| answer.text())
        })
    };
    let paths = [
        "/api/v1/crates?per_page=100",
        "/api/v1/crates?per_page=100&sort=new",
        "/api/v1/summary",
        "/api/v1/crates/killed/reverse_dependencies",
    ];
    paths.iter().map(of_head).collect()
}

#[test]
fn after_a_kill_the_catalog_answers_like_one_that_was_built_from_nothing() {
    let index = GitIndex::with_fixtures();
    let (killed, fresh) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let program = start(&index, &killed);
    let directory = killed.path().join("catalog");
    eventually("a build has begun", || directory.exists());
    drop(program);
    let line = index_line("killed", "1.0.0", false);
    let on_it = String::from_utf8(index_line("on-it", "1.0.0", false)).unwrap();
    let on_it = on_it.replace(r#""deps":[]"#, r#""deps":[{"name":"killed","req":"^1"}]"#);
    let commit = index.commit().crate_file("killed", &line);
    commit.crate_file("on-it", on_it.as_bytes()).send();
    let found = answers(&start(&index, &killed), &index);
    assert_eq!(found, answers(&start(&index, &fresh), &index));
    let dependents = found.last().unwrap();
    assert!(dependents.contains("on-it"), "{dependents}");
}
