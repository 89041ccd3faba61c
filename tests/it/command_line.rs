//! The command line as scripts see it: output streams and exit codes.

use std::fs;
use std::process::Output;

use tempfile::TempDir;

use crate::support::{Program, S3Fault, S3Server, SECRET_KEY, borrowed};

/// Exit code, standard output, standard error.
fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

#[test]
fn help_and_version_go_to_standard_output_and_succeed() {
    for arguments in [
        &["--help"][..],
        &["-h"],
        &["prefetch", "--help"],
        &["verify", "--help"],
        &["export", "--help"],
        &["import", "--help"],
        &["check-config", "--help"],
        &["healthcheck", "--help"],
        &["wait", "--help"],
        &["completions", "--help"],
        &["man", "--help"],
    ] {
        let (code, out, err) = said(Program::run_verb(arguments, &[]));
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
        assert!(out.contains("Usage: crates-io-mirror"), "{out}");
    }
    let (code, out, _) = said(Program::run_verb(&["--version"], &[]));
    assert_eq!(code, 0);
    let begin = format!("crates-io-mirror {} (", env!("CARGO_PKG_VERSION"));
    let commit = out
        .strip_prefix(begin.as_str())
        .and_then(|rest| rest.strip_suffix(")\n"));
    let is_commit =
        |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(
        commit.is_some_and(|text| is_commit(text) || text == "unknown"),
        "{out}"
    );
}

#[test]
fn bad_usage_gives_exit_code_2_and_a_hint_on_standard_error() {
    for (arguments, hint) in [
        (&["prefetsch"][..], "prefetch"),
        (&["--port", "80"], "--port"),
        (&["prefetch"], "CRATE"),
        (&["prefetch", "se/rde"], "`se/rde` is not a crate"),
        (&["prefetch", "--jobs", "33", "serde"], "33"),
        (&["prefetch", "absent/Cargo.lock"], "absent/Cargo.lock"),
        (&["prefetch", "--crates", "absent.txt"], "absent.txt"),
        (&["export"], "ARCHIVE"),
    ] {
        let (code, out, err) = said(Program::run_verb(arguments, &[]));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.contains(hint), "{arguments:?}: {err}");
    }
}

#[test]
fn every_subcommand_reports_a_bad_setting_like_the_server() {
    let bad = [
        ("PORT", "http"),
        ("GIT_REPO_URL", "http://127.0.0.1:1/index.git"),
    ];
    let (code, _, of_server) = said(Program::run(&bad));
    assert_eq!((code, of_server.lines().count()), (2, 1));
    for arguments in [
        &["serve"][..],
        &["check-config"],
        &["prefetch", "serde"],
        &["verify"],
        &["export", "a"],
        &["import", "a"],
    ] {
        let (code, out, err) = said(Program::run_verb(arguments, &bad));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert_eq!(err, of_server, "{arguments:?}");
    }
}

#[test]
fn check_config_prints_the_settings_without_secrets() {
    let data = TempDir::new().unwrap();
    let settings = [
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("GIT_REPO_URL", "https://b0b:s3cret@git.example/index"),
        ("PORT", "8081"),
    ];
    let (code, out, err) = said(Program::run_verb(&["check-config"], &settings));
    assert_eq!(
        (code, err.as_str()),
        (0, "the settings are good\n"),
        "{out}"
    );
    assert!(
        out.contains("GIT_REPO_URL = https://***@git.example/index\n"),
        "{out}"
    );
    assert!(out.contains("PORT = 8081\n"), "{out}");
    assert!(out.contains("DATA_DIR = "), "{out}");
    assert!(!(out + &err).contains("s3cret"));
    assert_eq!(fs::read_dir(data.path()).unwrap().count(), 0);
}

#[test]
fn check_config_tries_the_store_and_shows_its_cloud_variables_without_secrets() {
    let (data, bucket) = (TempDir::new().unwrap(), S3Server::start());
    let own = bucket.settings();
    let mut settings = borrowed(&own);
    settings.extend([
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("DOWNLOAD_MODE", "cache"),
    ]);
    let (code, out, err) = said(Program::run_verb(&["check-config"], &settings));
    assert_eq!((code, err.as_str()), (0, "the settings are good\n"));
    assert!(out.contains("AWS_REGION = us-east-1\n"), "{out}");
    assert!(out.contains("AWS_SECRET_ACCESS_KEY = ***\n"), "{out}");
    assert!(!out.contains(SECRET_KEY));
    assert_eq!(fs::read_dir(bucket.bucket()).unwrap().count(), 0);

    bucket.set(S3Fault::StatusOfWrites(403));
    let (code, _, err) = said(Program::run_verb(&["check-config"], &settings));
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(
        err.starts_with("problem: STORAGE_URL: `s3://crate-files`: it cannot be written to: "),
        "{err}"
    );
    settings.push(("DOWNLOAD_MODE", "offline"));
    assert_eq!(said(Program::run_verb(&["check-config"], &settings)).0, 0);
    bucket.set(S3Fault::Status(403));
    let (code, _, err) = said(Program::run_verb(&["check-config"], &settings));
    assert_eq!(code, 1);
    assert!(err.contains("it cannot be listed: "), "{err}");
    settings.push(("DOWNLOAD_MODE", "redirect"));
    let (code, out, _) = said(Program::run_verb(&["check-config"], &settings));
    assert!(code == 0 && !out.contains("AWS_"), "{out}");
}

#[test]
fn check_config_fails_if_something_needed_is_missing() {
    let data = TempDir::new().unwrap();
    let file = data.path().join("file");
    fs::write(&file, "").unwrap();
    let settings = [("DATA_DIR", file.to_str().unwrap())];
    let (code, _, err) = said(Program::run_verb(&["check-config"], &settings));
    assert_eq!(code, 1);
    assert!(err.starts_with("problem: DATA_DIR"), "{err}");
}
