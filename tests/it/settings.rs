//! Settings that could be wrong without notice: each is refused, gives a warning, or works.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::support::{
    Fault, GitIndex, GitServer, Program, S3Fault, S3Server, borrowed, eventually,
};

#[test]
fn an_unknown_placeholder_is_refused_with_a_list_of_the_five() {
    for url in [
        "https://files.example/{name}/{version}",
        "https://files.example/{name}",
        "https://files.example/{crate}-{Version}",
        "https://files.example/{crate",
        "https://files.example/{crate} https://files.example/{{crate}}",
    ] {
        for arguments in [[].as_slice(), &["check-config"]] {
            let output = Program::run_verb(arguments, &[("DOWNLOAD_URL", url)]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{url}: {said}");
            assert_eq!(said.lines().count(), 1, "{url}: {said}");
            for placeholder in [
                "{crate}",
                "{version}",
                "{prefix}",
                "{lowerprefix}",
                "{sha256-checksum}",
            ] {
                assert!(said.contains(placeholder), "{url}: {said}");
            }
        }
    }
}

#[test]
fn a_misspelt_variable_gives_a_warning_with_the_nearest_name() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let data = TempDir::new().unwrap();
    let settings = [
        ("GIT_REPO_URL", server.url()),
        ("DATA_DIR", data.path().to_str().unwrap().to_owned()),
        ("PUBLC_URL", "s3cret".to_owned()),
        ("DATA_DIRS", "s3cret".to_owned()),
        ("PORT_SERVICE_PORT", "1".to_owned()),
        ("PORT_PORT", "1".to_owned()),
        ("HOST", "h".to_owned()),
    ];
    let settings = borrowed(&settings);
    let checked = Program::run_verb(&["check-config"], &settings);
    let said = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(0), "{said}");
    let mut program = Program::start(&settings);
    eventually("the log warns", || program.output().contains("DATA_DIRS"));
    let log = program.output();
    program.terminate();
    assert_eq!(program.wait_for_exit(), Some(0));
    for text in [said, log] {
        let warnings: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("perhaps"))
            .collect();
        assert_eq!(warnings.len(), 2, "{text}");
        assert!(warnings[0].contains("DATA_DIRS") && warnings[0].contains("DATA_DIR is meant"));
        assert!(warnings[1].contains("PUBLC_URL") && warnings[1].contains("PUBLIC_URL is meant"));
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn the_bound_of_the_store_can_have_a_unit() {
    for (bound, code) in [("10GiB", 0), ("512MiB", 0), ("10GB", 2), ("10 GiB", 2)] {
        let output = Program::run_verb(&["check-config"], &[("STORAGE_MAX_BYTES", bound)]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{bound}: {said}");
        assert!(code == 0 || said.contains("10GiB"), "{said}");
    }
}

#[test]
fn a_key_on_p521_is_refused_and_the_curve_is_named() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/p521");
    let certificate = fixtures.join("certificate.pem");
    for key in ["key.pem", "key-sec1.pem"] {
        let output = Program::run(&[
            ("TLS_CERT", certificate.to_str().unwrap()),
            ("TLS_KEY", fixtures.join(key).to_str().unwrap()),
        ]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(
            said.starts_with("TLS_KEY") && said.contains("P-521"),
            "{said}"
        );
    }
}

#[test]
fn a_bad_policy_stops_every_subcommand_with_one_line_that_names_its_place() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("policy.toml");
    let path = file.to_str().unwrap();
    let policy = |text: &str| fs::write(&file, text).unwrap();
    let missing = directory.path().join("missing.toml");
    for (variable, value, content, words) in [
        ("MIN_PUBLISH_AGE", "7d", "", "7 days"),
        ("MIN_PUBLISH_AGE_UNKNOWN", "maybe", "", "hold"),
        ("HELD_DOWNLOADS", "hold", "", "deny"),
        ("POLICY_MODE", "off", "", "audit"),
        ("YANK_GUARD", "3", "", "7 days"),
        ("POLICY_FILE", missing.to_str().unwrap(), "", "missing.toml"),
        (
            "POLICY_FILE",
            path,
            "[bans]\ndeny = ['a b']",
            "line 2: `a b`",
        ),
        (
            "POLICY_FILE",
            path,
            "[mirror]\nexempted = []",
            "line 2: `exempted`",
        ),
        ("POLICY_FILE", path, "[bans", "line 1: "),
    ] {
        policy(content);
        for arguments in [[].as_slice(), &["check-config"], &["verify"]] {
            let output = Program::run_verb(arguments, &[(variable, value)]);
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{value}: {said}");
            assert_eq!(said.lines().count(), 1, "{value}: {said}");
            let begin = format!("{variable}: `{value}` is not usable; ");
            assert!(said.starts_with(&begin) && said.contains(words), "{said}");
        }
    }
    policy("[bans]\ndeny = [{ crate = 'a', wrappers = ['b'] }]");
    let data = directory.path().to_str().unwrap();
    let settings = [("POLICY_FILE", path), ("DATA_DIR", data)];
    let good = Program::run_verb(&["check-config"], &settings);
    let said = String::from_utf8(good.stderr).unwrap();
    assert_eq!(good.status.code(), Some(0), "{said}");
    assert!(said.contains("warning: POLICY_FILE: line 2: `a`"), "{said}");
}

#[test]
fn for_a_bucket_without_bulk_delete_the_error_names_the_variable_that_helps() {
    let (bucket, data) = (S3Server::start(), TempDir::new().unwrap());
    bucket.set(S3Fault::StatusOfBulkDeletes(501));
    let its = bucket.settings();
    let mut settings = borrowed(&its);
    settings.push(("DOWNLOAD_MODE", "cache"));
    settings.push(("DATA_DIR", data.path().to_str().unwrap()));
    let refused = Program::run_verb(&["check-config"], &settings);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("set AWS_DISABLE_BULK_DELETE=true"), "{said}");
    settings.push(("AWS_DISABLE_BULK_DELETE", "true"));
    let good = Program::run_verb(&["check-config"], &settings);
    let said = String::from_utf8(good.stderr).unwrap();
    assert_eq!(good.status.code(), Some(0), "{said}");
}

#[test]
fn the_mirror_honours_retry_after_of_a_git_host() {
    let index = GitIndex::with_fixtures();
    for (fault, at_least, at_most) in [
        (Fault::Busy(429, "600"), 600, 600),
        (Fault::Busy(503, "600"), 600, 600),
        // No host can stop the mirror for a day.
        (Fault::Busy(429, "86400"), 3_600, 3_600),
        (
            Fault::Busy(503, "Tue, 31 Dec 2199 23:59:59 GMT"),
            3_600,
            3_600,
        ),
        (Fault::Busy(429, "in a while"), 0, 2),
        (Fault::Busy(500, "600"), 0, 2),
    ] {
        let server = GitServer::start_with(&index, fault);
        let data = TempDir::new().unwrap();
        let program = Program::start(&[
            ("GIT_REPO_URL", &server.url()),
            ("DATA_DIR", data.path().to_str().unwrap()),
        ]);
        eventually("the first try has failed", || {
            program.output().contains("retry_in_ms")
        });
        let log = program.output();
        let mut events = log.lines().filter_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(event.get("retry_in_ms")?.as_u64()? / 1_000)
        });
        let pause = events.next().unwrap();
        assert!((at_least..=at_most).contains(&pause), "{fault:?}: {log}");
    }
}
