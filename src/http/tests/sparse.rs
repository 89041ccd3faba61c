//! `/index/`: the sparse index, as cargo's book describes the protocol.

use std::sync::Arc;

use axum::http::Method;
use serde_json::json;

use super::{Answer, FILES, TestMirror, asked};
use crate::index::testing::TestIndex;

const BUILT: &str = "/index/bu/il/built";

async fn get(mirror: &TestMirror, path: &str, headers: &[(&str, &str)]) -> Answer {
    mirror.request(Method::GET, path, headers).await
}

#[tokio::test]
async fn every_index_file_is_relayed_byte_for_byte() {
    let mirror = TestMirror::ready();
    for (path, content) in FILES {
        let answer = mirror.get(&format!("/index/{path}")).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body[..]),
            (200, content.as_bytes()),
            "{path}"
        );
        assert_eq!(answer.header("content-type"), "text/plain");
        assert_eq!(answer.header("cache-control"), "public, max-age=60");
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("x-index-commit").len(), 40);
        let tag = answer.header("etag");
        assert!(
            tag.len() == 42 && tag.starts_with('"') && tag.ends_with('"'),
            "{tag}"
        );
        assert_eq!(
            mirror.get(&format!("/index/{path}?x=1")).await.body,
            answer.body,
            "a query is ignored"
        );
        let head = mirror
            .request(Method::HEAD, &format!("/index/{path}"), &[])
            .await;
        assert_eq!((head.status.as_u16(), head.header("etag")), (200, tag));
        assert_eq!(head.header("content-length"), content.len().to_string());
        assert!(head.body.is_empty());
    }
}

#[tokio::test]
async fn a_path_that_no_index_file_has_gives_404_even_with_a_validator() {
    let mirror = TestMirror::ready();
    for path in [
        "/index/",
        "/index/bu/il",
        "/index/bu/il/",
        "/index/bu/il/nothing",
        "/index/Bu/il/built",
        "/index/bu/il/Built",
        "/index/xx/yy/built",
        "/index/mi/xe/mixed-case-name",
        "/index/mi/xe/mixed_case_name",
        "/index/.git/HEAD",
        "/index/.github/x",
        "/index/README.md",
        "/index/config.json/x",
        "/index/%2e%2e/config.json",
        "/index/bu%2Fil%2Fnothing",
        "/index/bu%2Fil%2Fbuilt",
        "/index/bu/il%2fbuilt",
        "/index/bu/il/built%00",
        "/index/bu/il/built%0a",
        "/index/bu/il/%ff",
        "/index/bu/il/%E4%BA%AC",
        "/index/3/%C4%B0/%C4%B0a",
    ] {
        let answer = get(&mirror, path, &[("if-none-match", "*")]).await;
        assert_eq!(answer.status, 404, "{path}");
        answer.detail();
    }
    let long = format!("/index/xx/xx/{}", "x".repeat(10_000));
    assert_eq!(mirror.get(&long).await.status, 404);
    for path in [
        "//index//bu/il/built",
        "/index/bu/./il/built",
        "/index/x/../bu/il/built",
    ] {
        assert_eq!(mirror.get(path).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_client_that_has_the_file_gets_304_and_no_other_does() {
    let mirror = TestMirror::ready();
    let first = mirror.get(BUILT).await;
    let tag = first.header("etag").to_owned();
    for condition in [
        tag.clone(),
        format!("W/{tag}"),
        format!("\"x\", {tag}"),
        "*".to_owned(),
    ] {
        for method in [Method::GET, Method::HEAD] {
            let answer = mirror
                .request(method, BUILT, &[("if-none-match", condition.as_str())])
                .await;
            assert_eq!(
                (answer.status.as_u16(), answer.body.len()),
                (304, 0),
                "{condition}"
            );
            assert!(
                !answer.headers.contains_key("content-length"),
                "it would be that of the file"
            );
            for header in ["etag", "cache-control", "vary", "x-index-commit"] {
                assert_eq!(answer.header(header), first.header(header), "{header}");
            }
        }
    }
    for condition in ["\"x\"", "x", "", "\"", &tag.to_uppercase().replace('"', "")] {
        let answer = get(&mirror, BUILT, &[("if-none-match", condition)]).await;
        assert_eq!(
            (answer.status.as_u16(), &answer.body),
            (200, &first.body),
            "{condition}"
        );
    }
    let dated = [
        ("if-none-match", "\"x\""),
        ("if-modified-since", "Fri, 01 Jan 2100 00:00:00 GMT"),
    ];
    assert_eq!(get(&mirror, BUILT, &dated).await.status, 200);
    assert_eq!(
        get(&mirror, BUILT, &[("if-modified-since", "yesterday")])
            .await
            .status,
        200
    );
    assert_eq!(
        get(&mirror, BUILT, &[("range", "bytes=0-3")]).await.body,
        first.body,
        "never a cut 200"
    );
}

#[tokio::test]
async fn the_compressed_file_is_the_same_file_with_its_own_tag() {
    let mirror = TestMirror::ready();
    let path = "/index/mi/xe/mixed_case-name";
    let plain = mirror.get(path).await;
    let packed = get(&mirror, path, &[("accept-encoding", "deflate, gzip")]).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert_eq!(packed.header("vary"), "accept-encoding");
    assert_ne!(packed.header("etag"), plain.header("etag"));
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(
        &mut flate2::read::GzDecoder::new(&packed.body[..]),
        &mut unpacked,
    )
    .unwrap();
    assert_eq!(unpacked, plain.body);
    // A client that accepts gzip may have either form, and gets 304 for the one that it has. Other clients get 304 for
    // the plain form only.
    let (plain_tag, gzip_tag) = (plain.header("etag"), packed.header("etag"));
    for (tag, encoding, status) in [
        (plain_tag, "gzip", 304),
        (gzip_tag, "gzip", 304),
        (plain_tag, "identity", 304),
        (gzip_tag, "identity", 200),
    ] {
        let answer = get(
            &mirror,
            path,
            &[("if-none-match", tag), ("accept-encoding", encoding)],
        )
        .await;
        assert_eq!(answer.status, status, "{tag} {encoding}");
        assert_eq!(
            answer.header("etag"),
            if status == 304 { tag } else { plain_tag }
        );
    }
    let any = [("if-none-match", "*"), ("accept-encoding", "gzip")];
    assert_eq!(get(&mirror, path, &any).await.header("etag"), gzip_tag);
    // A file that is too short to compress has only one tag.
    let short = "/index/in/fl/inflector";
    let tag = get(&mirror, short, &[("accept-encoding", "gzip")])
        .await
        .header("etag")
        .to_owned();
    for condition in [tag.as_str(), "*"] {
        let answer = get(
            &mirror,
            short,
            &[("accept-encoding", "gzip"), ("if-none-match", condition)],
        )
        .await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("etag")),
            (304, tag.as_str())
        );
    }
    assert_eq!(
        get(&mirror, path, &[("accept-encoding", "gzip;q=0")])
            .await
            .body,
        plain.body
    );
}

#[tokio::test]
async fn config_json_is_the_mirrors_own() {
    let mirror = TestMirror::ready();
    let forwarded = [
        ("host", "mirror.example:8443"),
        ("x-forwarded-proto", "https,http"),
    ];
    let answer = get(&mirror, "/index/config.json", &forwarded).await;
    assert_eq!(answer.status, 200);
    let base = "https://mirror.example:8443";
    assert_eq!(
        answer.json(),
        json!({ "dl": format!("{base}/api/v1/crates"), "api": base })
    );
    assert_eq!(
        answer.header("cache-control"),
        "private, no-cache",
        "made from what this client sent"
    );
    assert_eq!(answer.header("vary"), "host, x-forwarded-proto");
    let tag = answer.header("etag").to_owned();
    let again = [forwarded[0], forwarded[1], ("if-none-match", tag.as_str())];
    assert_eq!(get(&mirror, "/index/config.json", &again).await.status, 304);
    let other = get(
        &mirror,
        "/index/config.json",
        &[("host", "h"), ("if-none-match", tag.as_str())],
    )
    .await;
    assert_eq!(
        other.json(),
        json!({ "dl": "http://h/api/v1/crates", "api": "http://h" })
    );
    for bad in ["a b", "user@h", "h/x", "<h>"] {
        assert_eq!(
            get(&mirror, "/index/config.json", &[("host", bad)])
                .await
                .status,
            400,
            "{bad}"
        );
    }

    let public = TestMirror::with_public_url("https://mirror.example/crates");
    let answer = get(&public, "/index/config.json", &[("host", "poison.example")]).await;
    let base = "https://mirror.example/crates";
    assert_eq!(
        answer.json(),
        json!({ "dl": format!("{base}/api/v1/crates"), "api": base })
    );
    assert_eq!(answer.header("cache-control"), "public, max-age=60");
}

#[tokio::test]
async fn before_the_first_view_the_index_gives_503_with_retry_after() {
    let mirror = TestMirror::starting("https://files.example/{crate}");
    for path in [BUILT, "/index/config.json", "/index/nothing"] {
        let answer = get(&mirror, path, &[("host", "h")]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, "5"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_wrong_method_for_the_index_gives_405() {
    let mirror = TestMirror::ready();
    for method in [Method::PUT, Method::POST, Method::DELETE, Method::OPTIONS] {
        let answer = mirror.request(method, BUILT, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("allow")),
            (405, "GET,HEAD")
        );
        answer.detail();
    }
}

#[tokio::test]
async fn after_a_refresh_the_old_tag_gets_the_new_bytes_and_deleted_crates_are_gone() {
    let mut mirror = TestMirror::ready();
    let old = mirror.get(BUILT).await;
    let mut index: TestIndex = mirror.index.take().unwrap();
    index.commit(&[("bu/il/built", "new bytes\n")]);
    index.refresh();
    let new = get(&mirror, BUILT, &[("if-none-match", old.header("etag"))]).await;
    assert_eq!(
        (new.status.as_u16(), &new.body[..]),
        (200, &b"new bytes\n"[..])
    );
    assert_ne!(new.header("x-index-commit"), old.header("x-index-commit"));
    assert_eq!(mirror.get("/index/ya/nk/yanked").await.status, 404);
}

#[tokio::test]
async fn a_plain_request_gets_the_same_file_without_the_router() {
    use axum::body::Body;
    use axum::extract::Request;
    use tower::ServiceExt;

    let mirror = TestMirror::ready();
    let tag = mirror.get(BUILT).await.header("etag").to_owned();
    // Two files in memory, one that is not in memory, one that does not exist, and two paths that only the router
    // answers.
    for path in [
        BUILT,
        "/index/mi/xe/mixed_case-name",
        "/index/ya/nk/yanked",
        "/index/no/th/nothing",
        "/index/bu/il/",
        "/index/config.json",
        "/index/bu/il/%62uilt",
    ] {
        for condition in [tag.as_str(), "*", "\"x\"", ""] {
            for encoding in ["gzip", "identity"] {
                let request = || {
                    Request::get(path)
                        .header("if-none-match", condition)
                        .header("host", "h")
                        .header("accept-encoding", encoding)
                        .body(Body::empty())
                        .unwrap()
                };
                let mut answer = mirror.send(request()).await;
                let router = crate::http::router::router(Arc::clone(&mirror.state));
                let routed = router.oneshot(asked(request()).into_request());
                let mut routed = Answer::read(routed.await.unwrap()).await;
                // hyper adds the length to answers that the router did not make.
                routed.headers.remove("content-length");
                answer.headers.remove("content-length");
                // Every answer of the index has this header.
                answer.headers.remove("access-control-allow-origin");
                // A browser gets a page instead of 404.
                if answer.status == 404 {
                    assert_eq!(answer.headers.remove("vary").unwrap(), "accept");
                }
                assert_eq!(
                    (answer.status, answer.headers, answer.body),
                    (routed.status, routed.headers, routed.body),
                    "{path}"
                );
            }
        }
    }
}
