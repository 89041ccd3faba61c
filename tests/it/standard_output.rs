//! A standard output that cannot be written: closed, on a full disk, or a pipe without a reader.

use std::process::Stdio;

use tempfile::TempDir;

use crate::support::{GitIndex, GitServer, Program, eventually};

/// A way in which standard output cannot be written: a shell script, and the standard output of the shell.
struct Unwritable {
    name: &'static str,
    redirection: &'static str,
    stdout: fn() -> Stdio,
}

const WAYS: [Unwritable; 3] = [
    Unwritable {
        name: "closed",
        redirection: ">&-",
        stdout: Stdio::null,
    },
    Unwritable {
        name: "full",
        redirection: ">/dev/full",
        stdout: Stdio::null,
    },
    Unwritable {
        name: "unread",
        redirection: "",
        stdout: || {
            let (_reader, writer) = std::io::pipe().unwrap();
            writer.into()
        },
    },
];

struct Scene {
    server: GitServer,
    _index: GitIndex,
    data: TempDir,
}

impl Scene {
    fn new() -> Self {
        let index = GitIndex::with_fixtures();
        Self {
            server: GitServer::start(&index),
            _index: index,
            data: TempDir::new().unwrap(),
        }
    }

    fn settings(&self) -> [(&'static str, String); 3] {
        [
            ("GIT_REPO_URL", self.server.url()),
            ("DATA_DIR", self.data.path().to_str().unwrap().to_owned()),
            ("DOWNLOAD_MODE", "cache".to_owned()),
        ]
    }
}

fn borrowed<'a>(settings: &'a [(&'static str, String)]) -> Vec<(&'a str, &'a str)> {
    settings
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

#[test]
fn a_subcommand_that_cannot_write_ends_with_one_line_and_exit_code_1() {
    let scene = Scene::new();
    let settings = scene.settings();
    let settings = borrowed(&settings);
    let archive = scene.data.path().join("archive.tar");
    let archive = archive.to_str().unwrap();
    let exported = Program::run_verb(&["export", archive], &settings);
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    let export = format!("export {archive}.2");
    let import = format!("import {archive}");
    for way in WAYS {
        for arguments in [
            "check-config",
            "prefetch --dry-run --no-deps itoa",
            "export -",
            &export,
            &import,
            "--help",
            "--version",
            "verify --help",
        ] {
            let script = format!("exec \"$0\" {arguments} {}", way.redirection);
            let output = Program::run_by(&script, (way.stdout)(), &settings);
            let said = String::from_utf8(output.stderr).unwrap();
            let what = format!("{arguments}, {}: {said}", way.name);
            assert_eq!(output.status.code(), Some(1), "{what}");
            assert_eq!(said.lines().count(), 1, "{what}");
            assert!(said.contains("cannot be written"), "{what}");
        }
    }
}

#[test]
fn a_server_that_cannot_write_its_log_says_so_once_and_continues() {
    let scene = Scene::new();
    let settings = scene.settings();
    for way in WAYS {
        let script = format!("exec \"$0\" {}", way.redirection);
        let mut program = Program::start_unread(&script, (way.stdout)(), &borrowed(&settings));
        program.wait_until_ready();
        // Each request causes an event, which is lost.
        for _ in 0..3 {
            assert_eq!(program.get("/").status, 200, "{}", way.name);
        }
        eventually("the line is written", || !program.output().is_empty());
        program.terminate();
        assert_eq!(program.wait_for_exit(), Some(0), "{}", way.name);
        let said = program.output();
        assert_eq!(said.lines().count(), 1, "{}: {said}", way.name);
        assert!(
            said.starts_with("standard output cannot be written"),
            "{said}"
        );
    }
}

#[test]
fn a_standard_error_that_cannot_be_written_does_not_change_the_exit_code() {
    let script = "exec \"$0\" 2>/dev/full";
    let output = Program::run_by(script, Stdio::piped(), &[("PORT", "http")]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
