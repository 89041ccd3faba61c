//! Writes, wrong methods, unknown routes, and the answers before the first view.

use axum::http::Method;

use super::TestMirror;

#[tokio::test]
async fn every_write_under_the_api_is_refused_with_a_text_that_helps() {
    let mirror = TestMirror::ready();
    for (method, path) in [
        (Method::PUT, "/api/v1/crates/new"),
        (Method::DELETE, "/api/v1/crates/a/1.0.0/yank"),
        (Method::PUT, "/api/v1/crates/a/1.0.0/unyank"),
        (Method::PUT, "/api/v1/crates/a/owners"),
        (Method::DELETE, "/api/v1/crates/a/owners"),
        (Method::PUT, "/api/v1/crates/a/follow"),
        (Method::PATCH, "/api/v1/crates/a/1.0.0"),
        (Method::DELETE, "/api/v1/crates/a"),
        (Method::POST, "/api/v1/trusted_publishing/tokens"),
        (Method::PUT, "/api/v1/me/tokens"),
        (Method::POST, "//api/v1/crates/a/1.0.0/rebuild_docs"),
        (Method::POST, "/api/v1/no/such/route"),
        (Method::POST, "/api/v1/crates/a/1.0.0/download"),
    ] {
        let answer = mirror
            .request(method, path, &[("authorization", "not a token")])
            .await;
        assert_eq!(answer.status, 403, "{path}");
        let detail = answer.detail();
        assert!(
            detail.contains("read-only mirror")
                && detail.contains("cargo publish --registry crates-io")
        );
    }
}

#[tokio::test]
async fn a_wrong_method_gives_405_with_the_allowed_ones_and_the_envelope() {
    let mirror = TestMirror::ready();
    for (method, path) in [
        (Method::OPTIONS, "/api/v1/crates/a/1.0.0/download"),
        (Method::from_bytes(b"PROPFIND").unwrap(), "/api/v1/crates/a"),
        (Method::TRACE, "/api/v1/site_metadata"),
        (Method::POST, "/"),
        (Method::DELETE, "/livez"),
        (Method::PUT, "/readyz"),
    ] {
        let answer = mirror.request(method, path, &[]).await;
        assert_eq!(answer.status, 405, "{path}");
        assert_eq!(answer.header("allow"), "GET,HEAD", "{path}");
        answer.detail();
    }
}

#[tokio::test]
async fn an_error_has_only_printable_characters_and_says_the_same_in_json() {
    let mirror = TestMirror::ready();
    // A mark of direction, a control character of eight bits, and a variation selector. cargo prints the body as it comes.
    let answer = mirror.get("/api/v1/crates/%E2%80%AE%C2%9B%EF%B8%8Fx").await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.detail(),
        "crate `\u{202e}\u{9b}\u{fe0f}x` does not exist"
    );
    let body = std::str::from_utf8(&answer.body).unwrap();
    assert!(body.contains(r"`\u202e\u009b\ufe0fx`"), "{body}");
}

#[tokio::test]
async fn an_unknown_route_is_404_in_the_envelope() {
    let mirror = TestMirror::ready();
    for path in [
        "/api/v1/crates/",
        "/api/v1/crates/built/",
        "/api/v1/nothing",
        "/api/v2/crates/built",
        "/crates",
        "/api/v1/crates/built/follow",
        "/api/v1/keywords/cli",
        "/api/v1/crates/built/1.0.0+a/readme",
        "/.git/HEAD",
    ] {
        let answer = mirror.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.detail().as_str()),
            (404, "Not Found"),
            "{path}"
        );
        assert_eq!(mirror.request(Method::HEAD, path, &[]).await.status, 404);
    }
}

#[tokio::test]
async fn before_the_first_view_look_ups_give_503_with_retry_after() {
    let mirror = TestMirror::starting("https://files.example/{crate}");
    for path in [
        "/api/v1/crates/a",
        "/api/v1/crates/a/versions",
        "/api/v1/crates/a/1.0.0/dependencies",
        "/api/v1/crates/a/owners",
        "/api/v1/crates/a/reverse_dependencies",
        "/api/v1/crates?q=a",
        "/api/v1/summary",
    ] {
        let answer = mirror.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, "5"),
            "{path}"
        );
        assert!(answer.detail().contains("no copy of the index yet"));
    }
    let ready = mirror.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["ready"], false);
    assert_eq!(ready.json()["reason"], "there is no copy of the index yet");
    assert_eq!(mirror.get("/livez").await.status, 200);
}

#[tokio::test]
async fn only_what_needs_the_catalog_waits_for_it() {
    let mirror = TestMirror::ready();
    for path in [
        "/api/v1/crates?q=a",
        "/api/v1/crates",
        "/api/v1/crates/built/reverse_dependencies",
        "/api/v1/summary",
    ] {
        let answer = mirror.get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, "5"),
            "{path}"
        );
        assert!(answer.detail().contains("catalog"), "{path}");
    }
    for path in [
        "/api/v1/crates/built/owners",
        "/api/v1/crates/built/owner_user",
        "/api/v1/crates/built/owner_team",
        "/api/v1/crates/built/downloads",
        "/api/v1/crates/built/1.0.0+a/downloads",
        "/api/v1/crates/built/1.0.0+a/authors",
        "/api/v1/crates?category=cli",
        "/api/v1/keywords",
        "/api/v1/categories",
        "/api/v1/category_slugs",
        "/api/v1/site_metadata",
        "/api/openapi.json",
    ] {
        // The description names the mirror's own address.
        let host = [("host", "mirror.example")];
        let answer = mirror.request(Method::GET, path, &host).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    let unknown = mirror.get("/api/v1/crates/no/reverse_dependencies").await;
    assert_eq!(unknown.detail(), "crate `no` does not exist");
}
