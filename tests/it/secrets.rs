//! What the upstream index sees of the mirror. No credentials of its URL are shown.

use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;

use crate::support::{Fault, GitIndex, GitServer, Program, eventually, index_line};

const USER: &str = "us3rname";
/// A password with characters that are percent-encoded in a URL.
const PASSWORD: &str = "s3cr3t/p@ss";
const PASSWORD_IN_URL: &str = "s3cr3t%2Fp%40ss";

/// All forms in which the credentials could appear.
fn forms(user: &str, password: &str) -> [String; 4] {
    [
        user.to_owned(),
        password.to_owned(),
        password.replace('/', "%2F").replace('@', "%40"),
        STANDARD.encode(format!("{user}:{password}")),
    ]
}

#[track_caller]
fn assert_hidden(place: &str, content: &[u8], forms: &[String]) {
    for form in forms {
        let shown = content
            .windows(form.len())
            .any(|window| window == form.as_bytes());
        assert!(
            !shown,
            "`{form}` in {place}: {}",
            String::from_utf8_lossy(content)
        );
    }
}

#[track_caller]
fn assert_hidden_below(path: &Path, forms: &[String]) {
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        assert_hidden("a file name", path.to_str().unwrap().as_bytes(), forms);
        if path.is_dir() {
            assert_hidden_below(&path, forms);
        } else {
            assert_hidden(path.to_str().unwrap(), &fs::read(&path).unwrap(), forms);
        }
    }
}

#[track_caller]
fn assert_hidden_everywhere(program: &Program, data: &TempDir, forms: &[String]) {
    for path in [
        "/readyz",
        "/status",
        "/",
        "/config.toml",
        "/api/v1/crates/itoa",
        "/livez",
    ] {
        let answer = program.get(path);
        assert_hidden(path, format!("{answer:?}").as_bytes(), forms);
        assert_hidden(path, &answer.body, forms);
    }
    assert_hidden("the log", program.output().as_bytes(), forms);
    assert_hidden_below(data.path(), forms);
}

#[test]
fn credentials_in_the_url_work_and_show_up_nowhere() {
    let index = GitIndex::with_fixtures();
    // The same repository is also the advisory database.
    let path = "crates/itoa/RUSTSEC-2026-0001.md";
    index.commit().file(path, b"no advisory").send();
    let server = GitServer::start(&index);
    server.require(USER, PASSWORD);
    let data = TempDir::new().unwrap();
    let url = server.url_with(&format!("{USER}:{PASSWORD_IN_URL}"));
    let program = Program::start(&[
        ("GIT_REPO_URL", &url),
        ("ADVISORY_DB_URL", &url),
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("RUST_LOG", "trace"),
    ]);
    program.wait_until_ready();
    let line = index_line("fresh", "1.0.0", false);
    program.wait_for_commit(&index.commit().crate_file("fresh", &line).send());
    let forms = forms(USER, PASSWORD);
    eventually("the advisory database is fetched", || {
        program.get("/readyz").json()["advisories"]["state"] == "ready"
    });
    assert_hidden_everywhere(&program, &data, &forms);

    // Failures of every kind have a reason that does not contain the credentials.
    for fault in [
        Fault::Disconnect,
        Fault::Status(500),
        Fault::GarbageAdvertisement,
    ] {
        server.set(fault);
        program.wait_for_failure();
        assert_hidden_everywhere(&program, &data, &forms);
        server.set(Fault::None);
        eventually("the failure is over", || {
            program.get("/readyz").json()["index"]["failures"] == 0
        });
    }
    program.terminate();
    let mut program = program;
    assert_eq!(program.wait_for_exit(), Some(0));
    assert_hidden("the log", program.output().as_bytes(), &forms);
    assert_hidden_below(data.path(), &forms);
}

#[test]
fn wrong_credentials_are_reported_without_showing_them() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    server.require("somebody", "else");
    for (credentials, forms) in [
        (
            format!("{USER}:{PASSWORD_IN_URL}"),
            &forms(USER, PASSWORD)[..],
        ),
        // A user name alone can be a token.
        (USER.to_owned(), &[USER.to_owned()][..]),
        (
            format!(":{PASSWORD_IN_URL}"),
            &[PASSWORD.to_owned(), PASSWORD_IN_URL.to_owned()],
        ),
    ] {
        let data = TempDir::new().unwrap();
        let program = Program::start(&[
            ("GIT_REPO_URL", &server.url_with(&credentials)),
            ("DATA_DIR", data.path().to_str().unwrap()),
            ("RUST_LOG", "trace"),
        ]);
        let error = program.wait_for_failure();
        assert!(error.contains("credentials"), "{error}");
        assert_hidden_everywhere(&program, &data, forms);
    }
}

#[test]
fn missing_credentials_are_reported() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    server.require(USER, PASSWORD);
    let data = TempDir::new().unwrap();
    let program = Program::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    let error = program.wait_for_failure();
    assert!(error.contains("asks for credentials"), "{error}");
}

#[test]
fn the_upstream_sees_the_user_agent() {
    for (contact, expected) in [
        (None, "crates-io-mirror/0.1.0"),
        (
            Some(("CONTACT", "ops@example.com")),
            "crates-io-mirror/0.1.0 (ops@example.com)",
        ),
    ] {
        let index = GitIndex::with_fixtures();
        let server = GitServer::start(&index);
        let data = TempDir::new().unwrap();
        let url = server.url();
        let mut settings = vec![
            ("GIT_REPO_URL", url.as_str()),
            ("DATA_DIR", data.path().to_str().unwrap()),
        ];
        settings.extend(contact);
        let program = Program::start(&settings);
        program.wait_until_ready();
        let seen = server.seen();
        assert!(seen.len() >= 2, "{seen:?}");
        for request in seen {
            assert_eq!(request.user_agent, expected, "{request:?}");
        }
    }
}

#[test]
fn credentials_that_every_client_would_see_are_refused_without_showing_them() {
    for credentials in [
        format!("{USER}:{PASSWORD_IN_URL}"),
        // A user name alone can be a token.
        USER.to_owned(),
        format!(":{PASSWORD_IN_URL}"),
        format!("{USER}:{PASSWORD_IN_URL}{{crate}}"),
    ] {
        let url = format!("https://{credentials}@h.example/{{crate}}/{{version}}");
        for verb in [[].as_slice(), &["check-config"]] {
            let several = format!("https://h.example/{{crate}} {url}");
            for url in [&url, &several] {
                let data = TempDir::new().unwrap();
                let data = ("DATA_DIR", data.path().to_str().unwrap());
                let output = Program::run_verb(verb, &[("DOWNLOAD_URL", url), data]);
                assert_eq!(output.status.code(), Some(2), "{output:?}");
                let said = String::from_utf8(output.stderr).unwrap();
                assert_eq!(said.lines().count(), 1, "{said}");
                assert!(said.starts_with("DOWNLOAD_URL: "), "{said}");
                assert_hidden("the complaint", said.as_bytes(), &forms(USER, PASSWORD));
                assert_hidden("the output", &output.stdout, &forms(USER, PASSWORD));
            }
        }
    }
}

#[test]
fn a_query_that_every_client_sees_gives_a_warning_at_the_start() {
    let data = TempDir::new().unwrap();
    let program = Program::start(&[
        ("GIT_REPO_URL", "http://127.0.0.1:1/index.git"),
        ("DATA_DIR", data.path().to_str().unwrap()),
        (
            "DOWNLOAD_URL",
            "https://h.example/{crate}/{version}?sig=s3cr3t",
        ),
    ]);
    eventually("the warning is logged", || {
        program.output().contains("DOWNLOAD_URL has a query string")
    });
    assert!(!program.output().contains("s3cr3t"));
}
