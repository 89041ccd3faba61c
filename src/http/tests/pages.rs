//! The pages about the mirror, and their forms for programs.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::http::Method;

use super::{Answer, FILES, TestMirror, journal, settings};
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::http::{AppState, Settings};
use crate::index::testing::TestIndex;

/// What a browser accepts.
const BROWSER: [(&str, &str); 1] = [(
    "accept",
    "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
)];

/// A raw error in the words of libgit2. It names a path of the server.
const RAW_ERROR: &str = "failed to open '/srv/secret/index.git'";

/// The time of the commits of test indexes, in seconds since 1970.
const COMMITTED: u64 = 1_700_000_000;

impl Answer {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// The page needs a host for its set-up.
async fn page_of(mirror: &TestMirror) -> Answer {
    let answer = mirror
        .request(Method::GET, "/", &[("host", "mirror.example")])
        .await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("cache-control"), "no-store");
    answer
}

/// A mirror with an index whose last fetch was this long ago.
fn fetched(ago: Duration) -> TestMirror {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(COMMITTED + 4 * 3_600);
    let mut index = TestIndex::new(FILES);
    index.refresh();
    index.handle.succeeded(now - ago);
    let settings = Settings {
        clock: Clock::custom(move || now),
        upstream: "/srv/secret/index.git".to_owned(),
        ..settings("https://files.example/{crate}")
    };
    TestMirror {
        state: AppState::new(
            settings,
            index.handle.clone(),
            None,
            Catalog::new(),
            journal(),
            None,
            Arc::default(),
        ),
        index: Some(index),
    }
}

#[tokio::test]
async fn page_and_status_name_the_same_state() {
    let with_index_after_failure = fetched(Duration::from_secs(120));
    with_index_after_failure
        .state
        .index
        .failed(&RAW_ERROR, false);
    let failing = TestMirror::starting("https://files.example/{crate}");
    failing.state.index.failed(&RAW_ERROR, true);
    for (mirror, state, text, refresh) in [
        (
            TestMirror::starting("https://f.example/{crate}"),
            "cloning",
            "first copy",
            "5",
        ),
        (
            failing,
            "failing",
            "the last attempt to clone it failed",
            "",
        ),
        (
            fetched(Duration::from_secs(120)),
            "ready",
            "2 minutes ago",
            "",
        ),
        (with_index_after_failure, "ready", "2 minutes ago", ""),
        (
            fetched(Duration::from_secs(7_200)),
            "stale",
            "2 hours ago; downloads still work",
            "",
        ),
    ] {
        let page = page_of(&mirror).await;
        assert!(
            page.text().contains(&format!("<strong>{state}</strong>")),
            "{state}"
        );
        assert!(page.text().contains(text), "{state}: {}", page.text());
        assert_eq!(page.header("refresh"), refresh, "{state}");
        assert!(!page.text().contains("/srv/secret"), "{state}");
        assert!(!page.text().contains("http-equiv"), "{state}");

        let status = mirror.get("/status").await;
        assert_eq!(
            (status.status.as_u16(), status.header("cache-control")),
            (200, "no-store")
        );
        assert_eq!(status.json()["state"], state);
        assert_eq!(
            mirror.request(Method::HEAD, "/status", &[]).await.status,
            200
        );
    }
}

#[tokio::test]
async fn status_has_the_fields_of_readyz_and_more() {
    let mirror = fetched(Duration::from_secs(120));
    mirror.state.index.failed(&RAW_ERROR, false);
    let (status, ready) = (
        mirror.get("/status").await.json(),
        mirror.get("/readyz").await.json(),
    );
    for (field, value) in ready.as_object().unwrap() {
        assert_eq!(&status[field], value, "{field}");
    }
    let commit = &ready["index"]["commit"];
    assert!(commit.is_string() && ready["index"]["last_error"] == RAW_ERROR);
    for (field, expected) in [
        ("commit", commit.clone()),
        ("index_time", "2023-11-14T22:13:20Z".into()),
        ("last_check", "2023-11-15T02:11:20Z".into()),
        ("mode", "redirect".into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("uptime_seconds", 0.into()),
        ("git_index", false.into()),
    ] {
        assert_eq!(status[field], expected, "{field}");
    }
    assert_eq!(
        TestMirror::starting("https://f.example/{crate}")
            .get("/status")
            .await
            .json()["commit"],
        serde_json::Value::Null
    );
    let page = page_of(&mirror).await;
    for shown in [
        "2023-11-14 22:13:20 UTC",
        "4 hours ago",
        commit.as_str().unwrap(),
    ] {
        assert!(page.text().contains(shown), "{shown}");
    }
}

#[tokio::test]
async fn the_set_up_is_for_the_host_that_was_asked() {
    let mirror = TestMirror::ready();
    for (forwarded, base) in [
        (
            [
                ("host", "mirror.example"),
                ("x-forwarded-proto", "https, http"),
            ],
            "https://mirror.example",
        ),
        (
            [("host", "h:81"), ("x-forwarded-proto", "gopher")],
            "http://h:81",
        ),
    ] {
        let page = mirror.request(Method::GET, "/", &forwarded).await;
        let text = mirror
            .request(Method::GET, "/config.toml", &forwarded)
            .await;
        let index = format!("sparse+{base}/index/");
        for answer in [&page, &text] {
            assert!(answer.text().contains(&index), "{}", answer.text());
            assert_eq!(answer.header("vary"), "host, x-forwarded-proto");
            assert_eq!(answer.header("x-content-type-options"), "nosniff");
        }
        assert!(page.text().contains(&format!("{base}/api/v1/crates")));
        assert!(
            !page.text().contains("Mixed_Case-Name"),
            "no page lists crates"
        );
        assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
        let toml: toml::Table = text.text().parse().unwrap();
        assert_eq!(
            toml["source"]["mirror"]["registry"].as_str(),
            Some(index.as_str())
        );
    }
    for bad in ["<script>", "a b", "user@host", "h/x"] {
        for path in ["/", "/config.toml"] {
            let answer = mirror.request(Method::GET, path, &[("host", bad)]).await;
            assert_eq!(answer.status, 400, "{bad}");
            answer.detail();
        }
    }
}

#[tokio::test]
async fn links_and_set_up_have_the_path_of_the_public_url() {
    let mirror = TestMirror::with_public_url("https://tools.example/mirror/at");
    for path in ["/", "/me", "/nowhere"] {
        let page = mirror.request(Method::GET, path, &BROWSER).await;
        let links: Vec<&str> = page.text().split("href=\"/").skip(1).collect();
        assert!(!links.is_empty(), "{path}");
        for link in links {
            assert!(link.starts_with("mirror/at/"), "{path}: {link}");
        }
    }
    let text = mirror.get("/config.toml").await;
    let git = "# registry = \"https://tools.example/mirror/at/git/index\"";
    assert!(text.text().contains(git), "{}", text.text());
}

#[tokio::test]
async fn the_page_about_accounts_needs_neither_host_nor_index() {
    let mirror = TestMirror::starting("https://files.example/{crate}");
    let page = mirror.get("/me").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    let text = page.text();
    assert!(text.contains("no accounts and no tokens") && text.contains("https://crates.io/me"));
    let api = mirror.request(Method::GET, "/api/v1/me", &BROWSER).await;
    assert_eq!(
        (api.status.as_u16(), api.detail().as_str()),
        (403, "this action requires authentication")
    );
}

#[tokio::test]
async fn browsers_get_a_page_instead_of_404_and_programs_do_not() {
    let mirror = TestMirror::ready();
    for path in [
        "/nowhere",
        "/crates/serde",
        "/crates/_/1.0.0/download",
        "/crates/serde/other-1.0.0.crate",
        "/index/bu/il/nothing",
        "/index/bu/il/nothin%67",
        "/git/nothing",
    ] {
        let page = mirror.request(Method::GET, path, &BROWSER).await;
        assert_eq!(page.status, 404, "{path}");
        assert_eq!(
            page.header("content-type"),
            "text/html; charset=utf-8",
            "{path}"
        );
        assert_eq!(page.header("vary"), "accept", "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        assert!(
            page.header("content-security-policy")
                .contains("default-src 'none'")
        );
        assert!(page.text().contains("<main>"), "{path}");
        let head = mirror.request(Method::HEAD, path, &BROWSER).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (404, 0), "{path}");
        assert_eq!(
            head.header("content-length"),
            page.body.len().to_string(),
            "{path}"
        );
        let program = mirror
            .request(Method::GET, path, &[("accept", "*/*")])
            .await;
        program.detail();
        assert_eq!(program.header("vary"), "accept", "{path}");
        let commit = |answer: &Answer| answer.header("x-index-commit").to_owned();
        assert_eq!(commit(&page), commit(&program), "{path}");
    }
    for path in [
        "/api/v1/nothing",
        "/api/v1/crates/nothing",
        "//api/v1/crates/_/1.0.0/download",
    ] {
        let answer = mirror.request(Method::GET, path, &BROWSER).await;
        assert_eq!(answer.status, 404, "{path}");
        answer.detail();
    }
}

#[tokio::test]
async fn a_crates_name_below_index_leads_to_its_page_on_crates_io() {
    let mirror = TestMirror::ready();
    for (path, page) in [
        ("/index/serde", "serde"),
        ("/index/Mixed_Case-Name", "Mixed_Case-Name"),
        ("/index/bu", "bu"),
        ("/index/serd%65?x=1", "serde"),
        ("//index/./serde", "serde"),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = mirror.request(method, path, &[]).await;
            assert_eq!(answer.status, 302, "{path}");
            assert_eq!(
                answer.header("location"),
                format!("https://crates.io/crates/{page}")
            );
            assert_eq!(answer.header("x-index-commit").len(), 40);
        }
    }
    let long = format!("/index/{}", "x".repeat(65));
    for path in [
        "/index/",
        "/index/serde/",
        "/index/_x",
        "/index/1",
        "/index/a.b",
        "/index/a%2fb",
        "/index/a%0d",
        &long,
    ] {
        assert_eq!(mirror.get(path).await.status, 404, "{path}");
    }
    assert_eq!(
        mirror
            .request(Method::GET, "/index/config.json", &[("host", "h")])
            .await
            .status,
        200
    );
    let starting = TestMirror::starting("https://files.example/{crate}");
    let answer = starting.get("/index/serde").await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, "5")
    );
}
