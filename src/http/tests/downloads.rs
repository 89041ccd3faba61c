//! `…/download`: redirects, as crates.io sends them.

use std::sync::Arc;

use axum::http::Method;

use super::{Answer, TestMirror, asked};

#[tokio::test]
async fn a_redirect_is_a_pure_function_of_name_and_version_even_before_the_first_clone() {
    for mirror in [
        TestMirror::ready(),
        TestMirror::starting("https://files.example/crates/{crate}/{crate}-{version}.crate"),
    ] {
        for (path, location) in [
            ("built/1.0.0", "built/built-1.0.0.crate"),
            (
                "Unknown_Crate/9.9.9-rc.1",
                "Unknown_Crate/Unknown_Crate-9.9.9-rc.1.crate",
            ),
            (
                "mixed-case_NAME/0.5.0",
                "mixed-case_NAME/mixed-case_NAME-0.5.0.crate",
            ),
            ("built/1.0.0+a", "built/built-1.0.0%2Ba.crate"),
            ("built/1.0.0%2Ba", "built/built-1.0.0%2Ba.crate"),
            ("built/1.0.0%2ba", "built/built-1.0.0%2Ba.crate"),
            ("%62uilt/1.0.0", "built/built-1.0.0.crate"),
            ("versions/1.0.0", "versions/versions-1.0.0.crate"),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let answer = mirror
                    .request(method, &format!("/api/v1/crates/{path}/download"), &[])
                    .await;
                assert_eq!(answer.status, 302, "{path}");
                assert_eq!(
                    answer.header("location"),
                    format!("https://files.example/crates/{location}")
                );
                assert_eq!(answer.header("vary"), "accept");
                assert_eq!(answer.header("access-control-allow-origin"), "*");
                assert_eq!(
                    answer.header("x-content-type-options"),
                    "",
                    "not on a redirect"
                );
                assert!(answer.body.is_empty() && !answer.headers.contains_key("cache-control"));
            }
        }
    }
}

#[tokio::test]
async fn the_paths_of_the_cdn_answer_like_the_download_route() {
    let templates = [
        "https://files.example/crates/{crate}/{crate}-{version}.crate",
        // This template needs the index.
        "https://files.example/{sha256-checksum}",
    ];
    for mirror in templates.map(TestMirror::with_template) {
        for (name, version, file) in [
            ("built", "1.0.0", "built-1.0.0.crate"),
            ("Built", "1.0.0", "bUILT-1.0.0.crate"),
            ("built", "1.0.0+a", "built-1.0.0+a.crate"),
            ("built", "1.0.0%2Ba", "built-1.0.0%2Ba.crate"),
            ("a-b_c", "1.0.0-rc.1", "a_b-c-1.0.0-rc.1.crate"),
            ("unknown", "9.9.9", "unknown-9.9.9.crate"),
            ("built", "9.9.9", "built-9.9.9.crate"),
            ("%62uilt", "1.0.0", "buil%74-1.0.0.crate"),
            ("built", "nonsense", "built-nonsense.crate"),
            ("0built", "1.0.0", "0built-1.0.0.crate"),
        ] {
            let accepts = [[].as_slice(), &[("accept", "application/json")]];
            for (method, headers) in [Method::GET, Method::HEAD, Method::POST]
                .iter()
                .flat_map(|method| accepts.map(|headers| (method, headers)))
            {
                let ask = async |path: &str| {
                    let mut answer = mirror.request(method.clone(), path, headers).await;
                    // The server adds the length if the router has not.
                    answer.headers.remove("content-length");
                    // Outside of the API, a browser gets a page instead of this 404.
                    if answer.status == 404 {
                        answer.headers.remove("vary");
                    }
                    (answer.status, answer.headers, answer.body)
                };
                let expected = format!("/api/v1/crates/{name}/{version}/download");
                let expected = ask(&expected).await;
                if method == Method::POST {
                    // The first is refused as an unknown page, the second as a write to the API.
                    assert_eq!(ask(&format!("/crates/{name}/{file}")).await.0, 405);
                    continue;
                }
                for path in [
                    format!("/crates/{name}/{file}"),
                    format!("/crates/{name}/{version}/download"),
                    format!("//crates/./{name}//{file}"),
                    format!("//crates/x/../{name}/{version}/download"),
                ] {
                    assert_eq!(ask(&path).await, expected, "{method} {path}");
                }
            }
        }
        for path in [
            "/crates",
            "/crates/",
            "/crates/built",
            "/crates/built/1.0.0",
            "/crates/built/other-1.0.0.crate",
            "/crates/built/built1.0.0.crate",
            "/crates/built/built-1.0.0.tar",
            "/crates/built/built",
            "/crates/built/1.0.0/readme",
            "/crates/b/%C3%A9-1.0.0.crate",
        ] {
            assert_eq!(mirror.get(path).await.status, 404, "{path}");
        }
    }
}

#[tokio::test]
async fn a_client_that_accepts_json_gets_the_url_in_json() {
    let mirror = TestMirror::ready();
    for accept in [
        "application/json",
        "text/html, application/vnd.x+json;q=0.1",
    ] {
        let path = "/api/v1/crates/built/1.0.0+a/download";
        let answer = mirror
            .request(Method::GET, path, &[("accept", accept)])
            .await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("vary"), "accept, accept-encoding");
        let url = "https://files.example/crates/built/built-1.0.0%2Ba.crate";
        assert_eq!(answer.json(), serde_json::json!({ "url": url }));
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    let two_lines = [("accept", "text/html"), ("accept", "application/json")];
    let answer = mirror
        .request(Method::GET, "/api/v1/crates/a/1.0.0/download", &two_lines)
        .await;
    assert_eq!(answer.status, 200, "any Accept line counts");
    let answer = mirror
        .request(
            Method::GET,
            "/api/v1/crates/a/1.0.0/download",
            &[("accept", "*/*")],
        )
        .await;
    assert_eq!(answer.status, 302);
}

#[tokio::test]
async fn a_bad_version_gives_400_before_a_bad_name_gives_404() {
    let mirror = TestMirror::ready();
    for (path, status, detail) in [
        (
            "a/not-semver",
            400,
            "Invalid URL: unexpected character 'n' while parsing major version number",
        ),
        (
            "a/1.0",
            400,
            "Invalid URL: unexpected end of input while parsing minor version number",
        ),
        (
            "a/01.0.0",
            400,
            "Invalid URL: invalid leading zero in major version number",
        ),
        (
            "1abc/v1.0.0",
            400,
            "Invalid URL: unexpected character 'v' while parsing major version number",
        ),
        ("%ff/1.0.0", 400, "Invalid URL: Invalid UTF-8 in `name`"),
        ("a/%ff", 400, "Invalid URL: Invalid UTF-8 in `version`"),
        ("1abc/1.0.0", 404, "crate `1abc` does not exist"),
        ("%E4%BA%AC/1.0.0", 404, "crate `京` does not exist"),
        ("a%2Fb/1.0.0", 404, "crate `a/b` does not exist"),
        ("foo%00bar/1.0.0", 404, "crate `foo\0bar` does not exist"),
    ] {
        let answer = mirror.get(&format!("/api/v1/crates/{path}/download")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.detail().as_str()),
            (status, detail),
            "{path}"
        );
    }
    let long = "x".repeat(65);
    let answer = mirror
        .get(&format!("/api/v1/crates/{long}/1.0.0/download"))
        .await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.detail(), format!("crate `{long}` does not exist"));
}

#[tokio::test]
async fn a_template_with_the_checksum_needs_the_index() {
    let template = "https://files.example/{sha256-checksum}/{crate}";
    let starting = TestMirror::starting(template)
        .get("/api/v1/crates/built/1.0.0+a/download")
        .await;
    assert_eq!(starting.status, 503);
    assert_eq!(starting.header("retry-after"), "5");
    starting.detail();

    let mirror = TestMirror::with_template(template);
    let answer = mirror.get("/api/v1/crates/Built/1.0.0+a/download").await;
    assert_eq!(answer.status, 302);
    let sum = format!("{:0>64}", "abc");
    assert_eq!(
        answer.header("location"),
        format!("https://files.example/{sum}/Built")
    );
    assert_eq!(answer.header("x-index-commit").len(), 40);
    for (path, detail) in [
        (
            "built/9.9.9",
            "crate `built` does not have a version `9.9.9`",
        ),
        (
            "built/1.0.0+b",
            "crate `built` does not have a version `1.0.0+b`",
        ),
        ("nothing/1.0.0", "crate `nothing` does not exist"),
    ] {
        let answer = mirror.get(&format!("/api/v1/crates/{path}/download")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.detail().as_str()),
            (404, detail)
        );
    }
}

#[tokio::test]
async fn paths_are_normalised_before_routing() {
    let mirror = TestMirror::ready();
    for path in [
        "//api/v1/crates/a/1.0.0/download",
        "/api//v1/crates/a/1.0.0/download",
        "/api/v1/x/../crates/a/1.0.0/download",
        "/../api/v1/crates/a/./1.0.0/download/",
    ] {
        assert_eq!(mirror.get(path).await.status, 302, "{path}");
    }
    assert_eq!(
        mirror.get("/api/v1/crates/a/1.0.0/download/").await.status,
        404,
        "a slash alone stays"
    );
    assert_eq!(
        mirror
            .get("/api/v1/%2e%2e/crates/a/1.0.0/download")
            .await
            .status,
        404
    );
}

#[test]
fn a_plain_request_gets_the_same_answer_without_the_router() {
    use axum::body::Body;
    use axum::extract::Request;
    use proptest::prelude::*;
    use tower::ServiceExt;

    let mirror = TestMirror::ready();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let odd = "[a-zA-Z0-9_+.-]{0,12}|%2[bBfFeE]|%ff|\\.\\.|1abc|download|/";
    let start = prop_oneof![6 => Just("/api/v1/crates/"), 1 => Just("/api/v1/crates"), 3 => Just("/crates/")];
    let name = prop_oneof![3 => "[a-zA-Z][a-zA-Z0-9_-]{0,66}", 1 => odd];
    let version = prop_oneof![3 => "[0-9]\\.[0-9]{1,2}\\.[0-9](-a)?(\\+b)?", 1 => odd];
    let end = prop_oneof![6 => Just("/download"), 1 => Just("/download/"), 1 => Just("/downloads"), 1 => Just("")];
    let path = (start, name, version, end)
        .prop_map(|(start, name, version, end)| format!("{start}{name}/{version}{end}"))
        // Paths are normalised before the router sees them.
        .prop_filter("normalised", |path| {
            !path.contains("//") && !path.contains("/.")
        });
    let accept = prop_oneof![3 => Just("*/*"), 1 => Just("application/json")];
    proptest!(ProptestConfig::with_cases(4_000), |(path in path, accept in accept)| {
        let request = || Request::get(&path).header("accept", accept).body(Body::empty()).unwrap();
        let answer = runtime.block_on(mirror.send(request()));
        let router = crate::http::router::router(Arc::clone(&mirror.state));
        let routed = router.oneshot(asked(request()).into_request());
        let routed = runtime.block_on(Answer::read(runtime.block_on(routed).unwrap()));
        prop_assert_eq!(answer.status, routed.status, "{}", path);
        // A browser gets a page instead of the router's 404.
        let headers: &[_] = if answer.status == 404 { &["location", "content-type"] } else { &["location", "content-type", "vary"] };
        for header in headers {
            prop_assert_eq!(answer.header(header), routed.header(header), "{}", path);
        }
        prop_assert_eq!(answer.body, routed.body, "{}", path);
    });
}
