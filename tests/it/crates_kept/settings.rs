//! Settings of the store: an error is one line, and shows no secret.

use super::*;
use crate::support::{Program, S3Fault, S3Server, SECRET_KEY};

#[test]
fn a_bad_setting_gives_one_line_and_exit_code_2() {
    let data = TempDir::new().unwrap();
    let data_dir = data.path().join("data");
    for (variable, value) in [
        ("DOWNLOAD_MODE", "foo"),
        ("DOWNLOAD_MODE", "Cache"),
        ("STORAGE_URL", "ftp://x"),
        ("STORAGE_URL", "http://x/y"),
        ("STORAGE_URL", "s3://"),
        ("STORAGE_MAX_BYTES", "abc"),
        ("STORAGE_MAX_BYTES", "-1"),
        ("STORAGE_MAX_BYTES", "1.5"),
        ("INDEX_PRUNED", "maybe"),
        ("DOWNLOAD_URL", "http://good.example/ ftp://bad.example/"),
    ] {
        let mut settings = vec![("DATA_DIR", data_dir.to_str().unwrap())];
        if variable != "DOWNLOAD_MODE" {
            settings.push(("DOWNLOAD_MODE", "cache"));
        }
        settings.push((variable, value));
        let output = Program::run(&settings);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{variable}={value}: {said}");
        assert_eq!(said.lines().count(), 1, "{variable}={value}: {said}");
        assert!(said.starts_with(variable), "{variable}={value}: {said}");
        assert!(!data_dir.exists(), "{variable}={value}");
    }
}

#[test]
fn credentials_in_a_bad_storage_url_are_not_repeated() {
    let output = Program::run(&[
        ("DOWNLOAD_MODE", "cache"),
        ("STORAGE_URL", "s3://us3rname:s3cret@bucket/prefix"),
    ]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.starts_with("STORAGE_URL"), "{said}");
    assert!(
        !said.contains("s3cret") && !said.contains("us3rname"),
        "{said}"
    );
}

#[test]
fn credentials_in_the_download_url_work_and_show_up_nowhere() {
    let mut origin = Origin::of(1);
    let template = origin.upstream.template();
    let template = template.replace("http://", "http://us3rname:s3cret@");
    let data = TempDir::new().unwrap();
    let own = origin.settings();
    let program = Program::start(&[
        (own[0].0, &own[0].1),
        ("DOWNLOAD_URL", &template),
        ("DOWNLOAD_MODE", "cache"),
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("RUST_LOG", "trace"),
    ]);
    program.wait_until_ready();
    let path = origin.files[0].download_path();
    let mut answers = Vec::new();
    // The target of a redirect can contain a secret, too.
    let signed = "/elsewhere?X-Amz-Signature=s1gned".to_owned();
    let content = origin.files[0].content.clone();
    origin.upstream.hold(&signed, content);
    for fault in [
        UpstreamFault::WrongBytes,
        UpstreamFault::Status(500),
        UpstreamFault::RedirectsTo(signed),
        UpstreamFault::RedirectsTo("http://us3rname:s3cret@127.0.0.1:1/".to_owned()),
    ] {
        origin.upstream.fail(fault);
        answers.push(program.get(&path));
        origin.upstream.heal();
    }
    origin.upstream.stop();
    answers.push(program.get(&path));
    origin.upstream.restart();
    assert_serves(&program, &origin.files[0]);
    answers.extend(["/", "/readyz"].map(|path| program.get(path)));
    for seen in origin.upstream.seen() {
        if seen.path.contains("s1gned") {
            continue;
        }
        let expected = "Basic dXMzcm5hbWU6czNjcmV0";
        assert_eq!(seen.authorization.as_deref(), Some(expected));
    }
    let shown = format!("{}{answers:?}", program.output());
    let bodies: Vec<String> = answers.iter().map(Answer::text).collect();
    for secret in ["us3rname", "s3cret", "dXMzcm5hbWU6czNjcmV0", "s1gned"] {
        assert!(!shown.contains(secret), "{secret}: {shown}");
        assert!(!bodies.concat().contains(secret), "{bodies:?}");
    }
}

#[test]
fn the_keys_of_a_bucket_show_up_nowhere() {
    let origin = Origin::of(2);
    let bucket = S3Server::start();
    let data = TempDir::new().unwrap();
    let (own, its) = (origin.settings(), bucket.settings());
    let mut settings: Vec<(&str, &str)> = own
        .iter()
        .chain(&its)
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    settings.push(("DATA_DIR", data.path().to_str().unwrap()));
    settings.push(("RUST_LOG", "trace"));
    let program = Program::start(&settings);
    program.wait_until_ready();
    assert_serves(&program, &origin.files[0]);
    bucket.set(S3Fault::Status(403));
    let refused = program.get(&origin.files[1].download_path());
    let shown = format!("{}{refused:?}", program.output());
    assert!(!shown.contains(SECRET_KEY), "{shown}");
    for path in ["/", "/readyz"] {
        assert!(!program.get(path).text().contains(SECRET_KEY));
    }
}
