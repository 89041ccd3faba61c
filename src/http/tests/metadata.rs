//! `/api/v1/crates/{name}`, one version, its dependencies, and the site's metadata.

use std::time::Duration;

use axum::http::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::TestMirror;
use crate::index::testing::line;
use crate::server::Exchange;

#[tokio::test]
async fn a_crate_is_found_by_any_spelling_and_shown_by_its_published_name() {
    let mirror = TestMirror::ready();
    let commit = mirror
        .index
        .as_ref()
        .unwrap()
        .handle
        .view()
        .unwrap()
        .commit()
        .to_string();
    for name in ["Mixed_Case-Name", "mixed-case-name", "MIXED_CASE_NAME"] {
        let answer = mirror.get(&format!("/api/v1/crates/{name}")).await;
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.header("x-index-commit"), commit);
        assert_eq!(answer.header("vary"), "accept-encoding");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        let json = answer.json();
        assert_eq!(json["crate"]["name"], "Mixed_Case-Name");
        assert_eq!(json["versions"][0]["crate"], "Mixed_Case-Name");
        assert!(json.get("errors").is_none());
    }
    let head = mirror
        .request(Method::HEAD, "/api/v1/crates/built", &[])
        .await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
}

#[tokio::test]
async fn a_crate_has_all_fields_in_the_types_and_order_of_crates_io() {
    let mirror = TestMirror::ready();
    let answer = mirror.get("/api/v1/crates/mixed_case_name").await;
    let json = answer.json();
    let ids: Vec<i64> = json["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["id"].as_i64().unwrap())
        .collect();
    assert!(
        ids.is_sorted_by(|left, right| left > right),
        "newest publish first: {ids:?}"
    );
    assert_eq!(
        json["crate"],
        json!({
            "id": "Mixed_Case-Name", "name": "Mixed_Case-Name",
            "updated_at": "2020-04-01T00:00:00Z", "versions": ids, "keywords": [], "categories": [],
            "badges": [], "created_at": "2020-01-01T00:00:00Z", "downloads": 0, "recent_downloads": 0,
            "default_version": "0.5.1", "num_versions": 5, "yanked": false,
            "max_version": "2.0.0-rc.1", "newest_version": "2.0.0-rc.1", "max_stable_version": "0.5.1",
            "description": null, "homepage": null, "documentation": null, "repository": null,
            "links": {
                "version_downloads": "/api/v1/crates/Mixed_Case-Name/downloads", "versions": null,
                "owners": "/api/v1/crates/Mixed_Case-Name/owners",
                "owner_team": "/api/v1/crates/Mixed_Case-Name/owner_team",
                "owner_user": "/api/v1/crates/Mixed_Case-Name/owner_user",
                "reverse_dependencies": "/api/v1/crates/Mixed_Case-Name/reverse_dependencies",
            },
            "exact_match": false, "trustpub_only": false,
        })
    );
    assert_eq!(
        (json["keywords"].clone(), json["categories"].clone()),
        (json!([]), json!([]))
    );
    let text = std::str::from_utf8(&answer.body).unwrap();
    let places: Vec<usize> = [
        "\"id\"",
        "\"name\"",
        "\"updated_at\"",
        "\"versions\"",
        "\"badges\"",
        "\"created_at\"",
    ]
    .iter()
    .map(|field| text.find(field).unwrap())
    .collect();
    assert!(places.is_sorted());
}

#[tokio::test]
async fn include_chooses_the_parts_of_a_crate() {
    let mirror = TestMirror::ready();
    let get = async |include: &str| {
        mirror
            .get(&format!("/api/v1/crates/mixed-case-name?include={include}"))
            .await
            .json()
    };
    let nothing = get("").await;
    for (path, expected) in [
        ("/versions", Value::Null),
        ("/keywords", Value::Null),
        ("/categories", Value::Null),
        ("/crate/versions", Value::Null),
        ("/crate/keywords", Value::Null),
        ("/crate/recent_downloads", Value::Null),
        (
            "/crate/links/versions",
            json!("/api/v1/crates/Mixed_Case-Name/versions"),
        ),
        ("/crate/max_version", json!("0.0.0")),
        ("/crate/newest_version", json!("0.0.0")),
        ("/crate/max_stable_version", Value::Null),
        ("/crate/default_version", json!("0.5.1")),
        ("/crate/num_versions", json!(5)),
    ] {
        assert_eq!(nothing.pointer(path), Some(&expected), "{path}");
    }
    assert_eq!(
        get("full").await,
        mirror.get("/api/v1/crates/mixed-case-name").await.json()
    );
    assert_eq!(get("versions").await["crate"]["max_version"], "2.0.0-rc.1");
    assert_eq!(
        get("downloads,badges").await["crate"]["recent_downloads"],
        0
    );
    assert_eq!(get("keywords").await["keywords"], json!([]));
    let default = get("default_version").await;
    assert_eq!(default["versions"].as_array().unwrap().len(), 1);
    assert_eq!(
        (
            &default["versions"][0]["num"],
            &default["crate"]["versions"]
        ),
        (&json!("0.5.1"), &Value::Null)
    );

    let bad = mirror
        .get("/api/v1/crates/built?include=versions,nonsense")
        .await;
    assert_eq!(bad.status, 400);
    assert_eq!(
        bad.detail(),
        "invalid component for ?include= (expected 'versions', 'keywords', 'categories', 'badges', 'downloads', \
         'default_version', or 'full')"
    );
}

#[tokio::test]
async fn yanked_and_built_versions_follow_their_rules() {
    let mirror = TestMirror::ready();
    let yanked = mirror.get("/api/v1/crates/yanked").await.json();
    for (field, expected) in [
        ("yanked", json!(true)),
        ("default_version", json!("1.1.0")),
        ("max_version", json!("0.0.0")),
        ("newest_version", json!("0.0.0")),
        ("max_stable_version", Value::Null),
        ("num_versions", json!(2)),
        ("created_at", json!("1970-01-01T00:00:00Z")),
    ] {
        assert_eq!(yanked["crate"][field], expected, "{field}");
    }
    let built = mirror.get("/api/v1/crates/built").await.json();
    assert_eq!(built["crate"]["max_version"], "1.0.0+b");
    for num in ["1.0.0+a", "1.0.0%2Bb"] {
        assert_eq!(
            mirror
                .get(&format!("/api/v1/crates/built/{num}"))
                .await
                .status,
            200
        );
    }
    assert_eq!(mirror.get("/api/v1/crates/built/1.0.0").await.status, 404);
}

#[tokio::test]
async fn a_version_has_all_fields_in_the_types_of_crates_io() {
    let mirror = TestMirror::ready();
    let json = mirror
        .get("/api/v1/crates/mixed-case-name/0.5.0")
        .await
        .json();
    let mut version = json["version"].clone();
    assert!(version["id"].is_i64());
    version["id"] = json!(0);
    assert_eq!(
        version,
        json!({
            "id": 0, "crate": "Mixed_Case-Name", "num": "0.5.0",
            "dl_path": "/api/v1/crates/Mixed_Case-Name/0.5.0/download",
            "readme_path": "/api/v1/crates/Mixed_Case-Name/0.5.0/readme",
            "updated_at": "2020-02-01T00:00:00Z", "created_at": "2020-02-01T00:00:00Z", "downloads": 0,
            "features": { "f": ["g", "dep:zz"] }, "yanked": false, "yank_message": null, "lib_links": "native",
            "license": null,
            "links": {
                "dependencies": "/api/v1/crates/Mixed_Case-Name/0.5.0/dependencies",
                "version_downloads": "/api/v1/crates/Mixed_Case-Name/0.5.0/downloads",
                "authors": "/api/v1/crates/Mixed_Case-Name/0.5.0/authors",
            },
            "crate_size": 0, "published_by": null, "audit_actions": [], "checksum": "a1", "rust_version": "1.60",
            "has_lib": null, "bin_names": null, "edition": null, "description": null, "homepage": null,
            "documentation": null, "repository": null, "trustpub_data": null, "linecounts": null,
        })
    );
    let future = mirror
        .get("/api/v1/crates/mixed-case-name/0.5.1")
        .await
        .json();
    assert_eq!(
        (&future["version"]["checksum"], &future["version"]["yanked"]),
        (&json!("a4"), &json!(false))
    );
}

#[tokio::test]
async fn dependencies_have_real_names_in_published_spelling_and_required_ones_come_first() {
    let mirror = TestMirror::ready();
    let answer = mirror
        .get("/api/v1/crates/mixed-case-name/0.5.0/dependencies")
        .await;
    assert_eq!(answer.header("x-index-commit").len(), 40);
    let json = answer.json();
    let rows = json["dependencies"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["crate_id"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["Inflector", "aa", "zz", "PLAIN"]);
    let kinds: Vec<&str> = rows
        .iter()
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["normal", "normal", "build", "dev"]);
    let version = mirror
        .get("/api/v1/crates/mixed-case-name/0.5.0")
        .await
        .json();
    assert!(
        rows.iter()
            .all(|row| row["version_id"] == version["version"]["id"])
    );
    let mut last = rows[3].clone();
    last["id"] = json!(0);
    last["version_id"] = json!(0);
    assert_eq!(
        last,
        json!({
            "id": 0, "version_id": 0, "crate_id": "PLAIN", "req": "^1", "optional": true, "default_features": false,
            "features": ["x", ""], "target": "cfg(windows)", "kind": "dev", "downloads": 0,
        })
    );
}

#[tokio::test]
async fn unknown_crates_and_versions_give_404_with_the_texts_of_crates_io() {
    let mirror = TestMirror::ready();
    for (path, detail) in [
        ("Nothing", "crate `Nothing` does not exist"),
        ("nothing/versions", "crate `nothing` does not exist"),
        ("nothing/1.0.0", "crate `nothing` does not exist"),
        (
            "nothing/1.0.0/dependencies",
            "crate `nothing` does not exist",
        ),
        ("empty", "crate `empty` does not exist"),
        ("junk", "crate `junk` does not exist"),
        ("std", "crate `std` does not exist"),
        ("new", "crate `new` does not exist"),
        ("a%2Fb", "crate `a/b` does not exist"),
        ("..%2f..", "crate `../..` does not exist"),
        (
            "BUILT/9.9.9",
            "crate `BUILT` does not have a version `9.9.9`",
        ),
        (
            "built/1.0.0/dependencies",
            "crate `built` does not have a version `1.0.0`",
        ),
    ] {
        let answer = mirror.get(&format!("/api/v1/crates/{path}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.detail().as_str()),
            (404, detail),
            "{path}"
        );
    }
    assert_eq!(
        mirror
            .get("/api/v1/crates/nothing")
            .await
            .header("x-index-commit")
            .len(),
        40
    );
    let bad = mirror.get("/api/v1/crates/nothing/1.0").await;
    assert_eq!(bad.status, 400, "a bad version before an unknown crate");
}

#[tokio::test]
async fn metadata_is_compressed_for_clients_that_accept_gzip() {
    let mirror = TestMirror::ready();
    let plain = mirror.get("/api/v1/crates/mixed-case-name").await;
    let packed = mirror
        .request(
            Method::GET,
            "/api/v1/crates/mixed-case-name",
            &[("accept-encoding", "gzip")],
        )
        .await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert_eq!(packed.header("vary"), "accept-encoding");
    let mut unpacked = Vec::new();
    let mut decoder = flate2::read::GzDecoder::new(&packed.body[..]);
    std::io::Read::read_to_end(&mut decoder, &mut unpacked).unwrap();
    assert_eq!(unpacked, plain.body);
}

#[tokio::test]
async fn site_metadata_has_read_only_and_the_place_of_crate_files() {
    let answer = TestMirror::ready().get("/api/v1/site_metadata").await;
    assert_eq!(answer.header("cache-control"), "public, max-age=15");
    let json = answer.json();
    assert_eq!(
        (&json["read_only"], &json["cdn_base"]),
        (&json!(true), &json!("https://files.example"))
    );
    assert_eq!(json["deployed_sha"], json["commit"]);
    assert!(json["banner_message"].is_string());
}

#[tokio::test]
async fn an_answer_is_sent_again_without_a_look_at_the_index_until_there_is_another_view() {
    let mut mirror = TestMirror::ready();
    let (asked, other) = ("/api/v1/crates/built", "/api/v1/crates/yanked");
    let first = mirror.get(asked).await;
    // A request without a body in its answer leaves nothing to send again.
    mirror.request(Method::HEAD, other, &[]).await;
    let nobody = Exchange::with_nobody();
    let permits = mirror.state.look_up_permits.take(&nobody, 2).await.unwrap();
    for _ in 0..2 {
        let again = mirror.get(asked).await;
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert_eq!(again.headers, first.headers);
    }
    let waits = Duration::from_millis(50);
    for path in [other, "/api/v1/crates/built?include=versions"] {
        assert!(timeout(waits, mirror.get(path)).await.is_err(), "{path}");
    }
    drop(permits);
    let index = mirror.index.as_mut().unwrap();
    index.commit(&[("bu/il/built", &line("built", 7))]);
    index.refresh();
    let later = mirror.get(asked).await;
    assert_eq!(later.json()["versions"].as_array().unwrap().len(), 1);
    assert_ne!(
        later.header("x-index-commit"),
        first.header("x-index-commit")
    );
}
