//! Headers for browsers: which pages may read an answer, and `Strict-Transport-Security`.

use tempfile::TempDir;

use crate::support::{Answer, Authority, GitIndex, Mirror, Program, borrowed, get_by_http1, tls};

/// Answers about this mirror itself.
const OWN_PAGES: [&str; 9] = [
    "/",
    "/livez",
    "/readyz",
    "/metrics",
    "/status",
    "/config.toml",
    "/me",
    "/policy",
    "/nowhere",
];

/// Answers that crates.io gives to everybody, too.
const PUBLIC: [&str; 10] = [
    "/changes",
    "/api/v1/crates/itoa",
    "/api/v1/crates/itoa/1.0.0/download",
    "//api//v1/crates/itoa",
    "/api/v1/no-such-endpoint",
    "/index/config.json",
    "/index/it/oa/itoa",
    "/index/../index/config.json",
    "/at/2026-01-01/index/config.json",
    "/at/2026-01-01/index/it/oa/itoa",
];

fn mirror() -> (Mirror, GitIndex, TempDir) {
    let (index, data) = (GitIndex::with_fixtures(), TempDir::new().unwrap());
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", index.path().to_str().unwrap()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    mirror.wait_until_ready();
    (mirror, index, data)
}

fn allowed_origin(answer: &Answer) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[test]
fn any_web_page_may_read_public_answers_and_none_about_this_mirror() {
    let (mirror, _index, _data) = mirror();
    for path in PUBLIC {
        assert_eq!(allowed_origin(&mirror.get(path)), Some("*"), "{path}");
    }
    // Another spelling of a path must not get the headers of a public one.
    let disguised = [
        "//readyz",
        "/api/../metrics",
        "/index/../",
        "/index/.././readyz",
        "/at/../readyz",
    ];
    for path in OWN_PAGES.into_iter().chain(disguised) {
        assert_eq!(allowed_origin(&mirror.get(path)), None, "{path}");
    }
    let git = mirror.get("/git/index/info/refs?service=git-upload-pack");
    assert_eq!(allowed_origin(&git), None);
}

#[test]
fn the_page_may_load_nothing_from_elsewhere_and_cannot_be_framed() {
    let (mirror, _index, _data) = mirror();
    let page = mirror.get("/");
    let policy = page.header("content-security-policy").unwrap();
    for rule in [
        "default-src 'none'",
        "style-src 'sha256-",
        "script-src 'sha256-",
        "img-src data:;",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ] {
        assert!(policy.contains(rule), "{policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    for path in [
        "/",
        "/readyz",
        "/metrics",
        "/livez",
        "/status",
        "/config.toml",
        "/me",
    ] {
        let answer = mirror.get(path);
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
}

#[test]
fn plain_http_answers_have_no_strict_transport_security() {
    let (mirror, _index, _data) = mirror();
    for path in PUBLIC.into_iter().chain(OWN_PAGES) {
        let answer = mirror.get(path);
        assert_eq!(answer.header("strict-transport-security"), None, "{path}");
    }
}

#[test]
fn with_tls_the_setting_gives_strict_transport_security() {
    let authority = Authority::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for (value, expected) in [
        ("", None),
        ("0", Some("max-age=0")),
        ("600", Some("max-age=600")),
    ] {
        let data = TempDir::new().unwrap();
        let mut settings = authority.settings().to_vec();
        settings.push(("HSTS_MAX_AGE_SECS", value.to_owned()));
        settings.push(("DATA_DIR", data.path().to_str().unwrap().to_owned()));
        settings.push(("GIT_REPO_URL", "http://127.0.0.1:1/index.git".to_owned()));
        let mirror = Mirror::start(&borrowed(&settings));
        for path in ["/livez", "/nowhere", "/index/config.json", "/api/v1/crates"] {
            let answer = runtime.block_on(async {
                let stream = tls(mirror.address, &authority, &[]).await.unwrap();
                get_by_http1(stream, path).await
            });
            let told = answer.headers.get("strict-transport-security");
            let told = told.map(|value| value.to_str().unwrap());
            assert_eq!(told, expected, "{path}");
        }
    }
}

#[test]
fn without_tls_the_setting_is_refused() {
    for value in ["0", "31536000"] {
        let output = Program::run(&[("HSTS_MAX_AGE_SECS", value)]);
        assert_eq!(output.status.code(), Some(2));
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        let is_clear = said.starts_with("HSTS_MAX_AGE_SECS") && said.contains("TLS_CERT");
        assert!(is_clear, "{said}");
    }
}
