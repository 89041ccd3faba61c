//! `/api/v1/crates/{name}/versions`: orders, filters, pages.

use serde_json::{Value, json};

use super::TestMirror;

const PATH: &str = "/api/v1/crates/mixed_case_NAME/versions";

fn nums(json: &Value) -> Vec<&str> {
    json["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["num"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn versions_come_by_semver_or_by_date_and_echo_the_name_as_typed() {
    let mirror = TestMirror::ready();
    let semver = ["2.0.0-rc.1", "1.0.0", "0.5.1", "0.5.0", "0.1.0-alpha"];
    // 0.5.1 has no publish time, so the earliest time of the crate counts.
    let date = ["2.0.0-rc.1", "1.0.0", "0.5.0", "0.5.1", "0.1.0-alpha"];
    for (query, expected) in [
        ("", semver),
        ("?sort=semver", semver),
        ("?sort=nonsense", semver),
        ("?sort=DATE", date),
        ("?sort=date&seek=ignored-without-per_page", date),
    ] {
        let json = mirror.get(&format!("{PATH}{query}")).await.json();
        assert_eq!(nums(&json), expected, "{query}");
        assert_eq!(
            json["meta"],
            json!({ "total": 5, "next_page": null }),
            "{query}"
        );
        assert_eq!(json["versions"][0]["crate"], "mixed_case_NAME");
        assert_eq!(
            json["versions"][0]["dl_path"],
            "/api/v1/crates/mixed_case_NAME/2.0.0-rc.1/download"
        );
    }
    let built = mirror.get("/api/v1/crates/built/versions").await.json();
    assert_eq!(
        nums(&built),
        ["1.0.0+b", "1.0.0+a"],
        "build metadata does not order, ids do"
    );
}

#[tokio::test]
async fn a_walk_by_seek_meets_every_version_once_and_ends_on_an_empty_page() {
    let mirror = TestMirror::ready();
    for (sort, per_page) in [
        ("semver", 1),
        ("semver", 2),
        ("date", 1),
        ("date", 5),
        ("semver", 5),
    ] {
        let all = mirror.get(&format!("{PATH}?sort={sort}")).await.json();
        let mut query = format!("?sort={sort}&per_page={per_page}");
        let mut seen: Vec<String> = Vec::new();
        loop {
            let json = mirror.get(&format!("{PATH}{query}")).await.json();
            let page = nums(&json);
            seen.extend(page.iter().map(|num| (*num).to_owned()));
            assert_eq!(json["meta"]["total"], if page.is_empty() { 0 } else { 5 });
            assert!(json["meta"].get("prev_page").is_none());
            let Some(next) = json["meta"]["next_page"].as_str() else {
                assert!(page.len() < per_page);
                break;
            };
            assert!(
                next.starts_with(&format!("?sort={sort}&per_page={per_page}&seek=")),
                "{next}"
            );
            query = next.to_owned();
        }
        assert_eq!(seen, nums(&all), "{sort} by {per_page}");
    }
}

#[tokio::test]
async fn nums_filters_and_release_tracks_summarise() {
    let mirror = TestMirror::ready();
    let filtered = mirror
        .get(&format!(
            "{PATH}?nums[]=0.5.0&nums%5B%5D=2.0.0-rc.1&nums[]=7.7.7"
        ))
        .await
        .json();
    assert_eq!(nums(&filtered), ["2.0.0-rc.1", "0.5.0"]);
    assert_eq!(filtered["meta"]["total"], 2);
    let tracks = mirror.get(&format!("{PATH}?include=release_tracks")).await;
    assert_eq!(
        tracks.json()["meta"]["release_tracks"],
        json!({ "0.5": { "highest": "0.5.1" } })
    );
    let built = mirror
        .get("/api/v1/crates/built/versions?include=release_tracks")
        .await
        .json();
    assert_eq!(
        built["meta"]["release_tracks"],
        json!({ "1": { "highest": "1.0.0+b" } })
    );
}

#[tokio::test]
async fn bad_parameters_give_400_with_the_texts_of_crates_io() {
    let mirror = TestMirror::ready();
    for (query, detail) in [
        (
            "per_page=0",
            "Failed to deserialize query string: per_page: invalid value: integer `0`, expected a nonzero u32",
        ),
        (
            "page=0",
            "Failed to deserialize query string: page: invalid value: integer `0`, expected a nonzero u32",
        ),
        (
            "per_page=x",
            "Failed to deserialize query string: per_page: invalid digit found in string",
        ),
        ("per_page=101", "cannot request more than 100 items"),
        (
            "per_page=10&page=2&seek=MQ",
            "providing both ?page= and ?seek= is unsupported",
        ),
        (
            "per_page=10&page=2",
            "?page= is not supported for this request",
        ),
        ("per_page=10&seek=%21", "invalid seek parameter"),
        ("per_page=10&sort=date&seek=Mg", "invalid seek parameter"),
        (
            "include=versions",
            "invalid component for ?include= (expected 'release_tracks')",
        ),
    ] {
        let answer = mirror.get(&format!("{PATH}?{query}")).await;
        assert_eq!(
            (answer.status.as_u16(), answer.detail().as_str()),
            (400, detail),
            "{query}"
        );
    }
}
