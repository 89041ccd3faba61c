//! Subcommands that ask the server on this machine or its upstreams, and subcommands whose output is for packages.

use std::net::TcpListener;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Authority, CrateFiles, GitIndex, GitServer, Program};

/// Exit code, standard output, standard error.
fn said(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    (code, text(output.stdout), text(output.stderr))
}

/// A port that nobody listens on.
fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port().to_string()
}

#[test]
fn healthcheck_asks_the_server_with_the_same_settings_with_and_without_tls() {
    let (authority, data) = (Authority::new(), TempDir::new().unwrap());
    let tls = authority.settings();
    let [(certificate, certificate_file), (key, key_file)] = &tls;
    let fixed = [("GIT_REPO_URL", "http://127.0.0.1:1/index.git")];
    for settings in [
        &[][..],
        &[
            (*certificate, certificate_file.as_str()),
            (*key, key_file.as_str()),
        ],
        // Neither a proxy nor a path prefix matters.
        &[
            ("PUBLIC_URL", "https://mirror.example/mirror"),
            ("http_proxy", "http://127.0.0.1:1"),
        ],
    ] {
        let own = [("DATA_DIR", data.path().to_str().unwrap())];
        let program = Program::start(&[&fixed, &own, settings].concat());
        let port = program.address.port().to_string();
        for address in ["127.0.0.1", "0.0.0.0"] {
            let asked = [("PORT", port.as_str()), ("BIND_ADDRESS", address)];
            let settings = [settings, &asked].concat();
            let (code, out, err) = said(Program::run_verb(&["healthcheck"], &settings));
            assert_eq!(
                (code, out.as_str(), err.as_str()),
                (0, "", ""),
                "{settings:?}"
            );
        }
        // The mirror is alive, but has no index.
        let asked = [settings, &[("PORT", port.as_str())]].concat();
        let (code, _, err) = said(Program::run_verb(&["wait", "--timeout", "0"], &asked));
        assert_eq!(code, 1);
        assert!(err.starts_with("not ready after 0 s: "), "{err}");
    }
}

#[test]
fn healthcheck_fails_with_one_line_within_five_seconds() {
    // A server that accepts connections and never answers.
    let unresponsive = TcpListener::bind("127.0.0.1:0").unwrap();
    let unresponsive = unresponsive
        .local_addr()
        .map(|address| (unresponsive, address.port().to_string()));
    let (_listener, unresponsive) = unresponsive.unwrap();
    for port in [free_port().as_str(), "0", "http", &unresponsive] {
        let began = Instant::now();
        let (code, out, err) = said(Program::run_verb(&["healthcheck"], &[("PORT", port)]));
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(
            (code, out.as_str(), err.lines().count()),
            (1, "", 1),
            "{port}: {err}"
        );
    }
}

#[test]
fn wait_ends_when_the_server_is_ready_or_the_time_is_up() {
    let (index, data) = (GitIndex::with_fixtures(), TempDir::new().unwrap());
    let server = GitServer::start(&index);
    let port = free_port();
    let waiting = thread::spawn({
        let port = port.clone();
        move || {
            said(Program::run_verb(
                &["wait", "--timeout", "60"],
                &[("PORT", &port)],
            ))
        }
    });
    let (code, _, err) = said(Program::run_verb(
        &["wait", "--timeout", "1"],
        &[("PORT", &port)],
    ));
    assert_eq!((code, err.lines().count()), (1, 2), "{err}");
    assert!(
        err.lines()
            .last()
            .unwrap()
            .starts_with("not ready after 1 s: "),
        "{err}"
    );
    let settings = [
        ("GIT_REPO_URL", server.url()),
        ("DATA_DIR", data.path().to_str().unwrap().to_owned()),
        ("PORT", port),
    ];
    let _program = Program::start(
        &settings
            .each_ref()
            .map(|(name, value)| (*name, value.as_str())),
    );
    let (code, out, err) = waiting.join().unwrap();
    assert_eq!((code, out.as_str()), (0, ""), "{err}");
    assert!(
        err.lines().last().unwrap().starts_with("ready after "),
        "{err}"
    );
    let (code, _, err) = said(Program::run_verb(&["wait"], &[("PORT", "http")]));
    assert_eq!((code, err.lines().count()), (2, 1), "{err}");
}

#[test]
fn check_config_asks_the_upstreams_and_reports_in_json() {
    let (index, files) = (GitIndex::with_fixtures(), CrateFiles::start(&[]));
    let (server, data) = (GitServer::start(&index), TempDir::new().unwrap());
    let (good_index, good_files) = (
        server.url(),
        format!("http://b0b:s3cret@{}", files.address()),
    );
    let fixed = [
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("DOWNLOAD_MODE", "cache"),
    ];
    let check = |index: &str, files: &str, arguments: &[&str]| {
        let own = [("GIT_REPO_URL", index), ("DOWNLOAD_URL", files)];
        let arguments = [&["check-config", "--upstream"], arguments].concat();
        said(Program::run_verb(&arguments, &[&fixed[..], &own].concat()))
    };
    let (code, out, err) = check(&good_index, &good_files, &[]);
    assert_eq!(
        (code, err.as_str()),
        (0, "the settings are good\n"),
        "{out}"
    );
    for begin in ["GIT_REPO_URL: ", "DOWNLOAD_URL: ", "STORAGE_URL: "] {
        let line = out.lines().find(|line| line.starts_with(begin)).unwrap();
        assert!(line.contains(": ok, ") && line.ends_with(" ms"), "{line}");
    }
    assert!(!out.contains("s3cret"));
    let dead = "http://b0b:s3cret@127.0.0.1:1/index.git";
    let (code, out, err) = check(
        dead,
        &format!("{good_files} http://127.0.0.1:1"),
        &["--json"],
    );
    assert_eq!(
        (code, err.as_str(), out.lines().count()),
        (1, "", 1),
        "{out}"
    );
    assert!(!out.contains("s3cret"), "{out}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let ok: Vec<&Value> = report["upstreams"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["ok"])
        .collect();
    assert_eq!(ok, [false, true, false, true], "{report}");
    assert_eq!(
        (&report["ok"], report["errors"].as_array().unwrap().len()),
        (&Value::Bool(false), 2)
    );
    assert_eq!(report["settings"]["BIND_ADDRESS"]["default"], "0.0.0.0");
    assert_eq!(
        report["settings"]["CONTACT"],
        serde_json::json!({"value": null, "default": null, "source": "unset"})
    );
    assert!(
        data.path().read_dir().unwrap().next().is_none(),
        "a file is left"
    );

    let (code, out, _) = said(Program::run_verb(
        &["check-config", "--json"],
        &[("PORT", "http")],
    ));
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &report["ok"]), (2, &Value::Bool(false)));
    assert!(
        report["errors"][0]
            .as_str()
            .unwrap()
            .starts_with("PORT: `http`"),
        "{report}"
    );
}

#[test]
fn completions_and_the_manual_page_do_not_read_the_settings() {
    let bad = [("PORT", "http")];
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, out, err) = said(Program::run_verb(&["completions", shell], &bad));
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(
            out.contains("healthcheck") && out.contains("dry-run"),
            "{shell}"
        );
    }
    let (_, bash, _) = said(Program::run_verb(&["completions", "bash"], &bad));
    let chosen = bash
        .lines()
        .filter_map(|line| line.trim().strip_prefix("cmd=\""));
    let chosen: Vec<&str> = chosen.filter(|rest| *rest != "\"").collect();
    assert!(chosen.len() > 5, "{bash}");
    for command in chosen {
        let case = format!(" {})", command.trim_end_matches('"'));
        assert!(bash.contains(&case), "bash completes nothing after{case}");
    }
    let (code, out, err) = said(Program::run_verb(&["man"], &bad));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains(".TH ") && out.contains("INDEX_PUSH_URL"));
}
