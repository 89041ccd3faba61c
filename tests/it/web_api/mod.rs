//! crates.io's web API, as its clients see it: every line of section 5 of the protocol, real `cargo`, and the description.

mod catalog_on_disk;
mod description;
mod lines;
mod scene;

use serde_json::{Value, json};

use self::description::{Description, assert_valid_and_complete};
use self::lines::{Expected, LINES};
use self::scene::{STORED_BYTES, Scene};
use crate::support::{Project, succeeds};

#[test]
fn every_line_of_the_protocol_about_reading_holds() {
    let scene = Scene::start();
    let (mirror, description) = (&scene.mirror, Description::of(&scene.mirror));
    let mut failures = Vec::new();
    for (line, path, expected) in LINES {
        let answer = mirror.get(path);
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some("*"),
            "{path}"
        );
        if let Some(commit) = answer.header("x-index-commit") {
            assert_eq!(commit, scene.commit, "{path}");
        }
        assert_eq!(
            answer.header("content-type"),
            Some("application/json"),
            "{path}"
        );
        // cargo prints the bodies of errors as they come.
        assert!(!answer.text().contains('\u{202e}'), "{path}");
        let json = answer.json();
        let mut complain = |what: String| failures.push(format!("{line}\n    {path}\n    {what}"));
        // Other paths are not endpoints, or are normalised first.
        if path.starts_with("/api/") && !line.contains("route") && !line.contains("slash") {
            for what in description.complaints(path, &answer) {
                complain(what);
            }
        }
        match expected {
            Expected::Error(status, detail) => {
                let envelope = json!({ "errors": [{ "detail": detail }] });
                if (answer.status, &json) != (*status, &envelope) {
                    complain(format!("{} {json}", answer.status));
                }
            }
            Expected::Has(fields) => {
                if answer.status != 200 || json.get("errors").is_some() {
                    complain(format!("{}: {json}", answer.status));
                }
                for (pointer, expected) in *fields {
                    let expected: Value = serde_json::from_str(expected).unwrap();
                    let found = lines::at(&json, pointer);
                    if found != expected {
                        complain(format!("{pointer}: {found}"));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));

    objects_have_their_fields_in_order(&scene);
    ids_and_links_are_complete(&scene);
    long_queries_are_answered(&scene);
    pages_meet_every_crate_once(&scene);
    methods_and_encodings(&scene);
    assert_valid_and_complete(&description.json);
}

/// Sections 5.2, 5.3 and 5.4: the fields, in the order of crates.io.
fn objects_have_their_fields_in_order(scene: &Scene) {
    let text = |path: &str| scene.mirror.get(path).text();
    for (path, object, fields) in [
        ("/api/v1/crates/inflector", "{\"crate\":", lines::CRATE),
        ("/api/v1/crates?q=inflector", "{\"crates\":[", lines::CRATE),
        ("/api/v1/summary", "\"new_crates\":[", lines::CRATE),
        (
            "/api/v1/crates/inflector/0.1.0",
            "{\"version\":",
            lines::VERSION,
        ),
        (
            "/api/v1/crates/inflector/versions",
            "{\"versions\":[",
            lines::VERSION,
        ),
        (
            "/api/v1/crates/inflector/reverse_dependencies",
            "\"versions\":[",
            lines::VERSION,
        ),
        (
            "/api/v1/crates/inflector/reverse_dependencies",
            "{\"dependencies\":[",
            lines::DEPENDENCY,
        ),
        (
            "/api/v1/crates/mixed-case-name/0.5.0/dependencies",
            "{\"dependencies\":[",
            lines::DEPENDENCY,
        ),
    ] {
        let text = text(path);
        let (_, rest) = text.split_once(object).unwrap();
        // serde_json sorts the map, so the order comes from the text.
        let object: Value = serde_json::Deserializer::from_str(rest)
            .into_iter()
            .next()
            .unwrap()
            .unwrap();
        let end = object.to_string().len();
        let names: Vec<&str> = fields.split_whitespace().collect();
        assert_eq!(object.as_object().unwrap().len(), names.len(), "{path}");
        let place = |name: &&str| rest.find(&format!("\"{name}\":")).unwrap_or(usize::MAX);
        let places: Vec<usize> = names.iter().map(place).collect();
        assert!(
            places.iter().all(|place| *place < end),
            "{path}: {places:?}"
        );
        // A field of an inner object can have the same name. It comes after the first one.
        assert!(places.is_sorted(), "{path}: {places:?}");
    }
    let tracks = text("/api/v1/crates/tracks/versions?include=release_tracks");
    let descending =
        r#"{"10":{"highest":"10.0.0"},"2":{"highest":"2.0.0"},"1":{"highest":"1.0.0"},"0.5":"#;
    assert!(tracks.contains(descending), "{tracks}");
    let version = scene.mirror.get("/api/v1/crates/INFLECTOR/0.1.0").json();
    assert_eq!(version["version"]["crate_size"], STORED_BYTES);
    // `version_id` connects the answers.
    let rows = scene
        .mirror
        .get("/api/v1/crates/inflector/reverse_dependencies")
        .json();
    let ids = |rows: &Value, field: &str| -> Vec<i64> {
        let rows = rows.as_array().unwrap().iter();
        let mut ids: Vec<i64> = rows.map(|row| row[field].as_i64().unwrap()).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(
        ids(&rows["dependencies"], "version_id"),
        ids(&rows["versions"], "id")
    );
    let single = scene.mirror.get("/api/v1/crates/renames/1.0.0").json();
    let joined = lines::at(&rows, "/dependencies/0/version_id");
    assert_eq!(single["version"]["id"], joined);
}

/// Section 5.2: ids in descending order, and all links in theirs. Section 5.5: what is known of the site.
fn ids_and_links_are_complete(scene: &Scene) {
    let tracks = scene.mirror.get("/api/v1/crates/tracks");
    let json = tracks.json();
    let ids: Vec<i64> = serde_json::from_value(json["crate"]["versions"].clone()).unwrap();
    assert!(ids.is_sorted_by(|left, right| left > right), "{ids:?}");
    assert_eq!(
        json["crate"]["versions"],
        lines::at(&json, "/versions/*/id")
    );
    let links = r#""links":{"version_downloads":"/api/v1/crates/tracks/downloads","versions":null,"owners":"/api/v1/crates/tracks/owners","owner_team":"/api/v1/crates/tracks/owner_team","owner_user":"/api/v1/crates/tracks/owner_user","reverse_dependencies":"/api/v1/crates/tracks/reverse_dependencies"}"#;
    assert!(tracks.text().contains(links), "{}", tracks.text());
    let site = scene.mirror.get("/api/v1/site_metadata").json();
    assert_eq!(site["deployed_sha"], site["commit"]);
    let base = site["cdn_base"].as_str().unwrap();
    assert!(
        base.starts_with("https://") && !base.ends_with('/'),
        "{base}"
    );
    let unknown = scene.mirror.request("HEAD", "/api/v1/no-such-route", &[]);
    assert_eq!((unknown.status, unknown.body.len()), (404, 0));
}

/// Section 5.5: a query of 10 kB, and a thousand ids.
fn long_queries_are_answered(scene: &Scene) {
    let get = |query: &str| scene.mirror.get(&format!("/api/v1/crates?{query}"));
    for long in [
        "a".repeat(10_000),
        "%E4%BA%AC".repeat(1_100),
        "-".repeat(10_000),
    ] {
        let answer = get(&format!("q={long}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["crates"], json!([]));
    }
    let ids: String = (0..1_000)
        .map(|number| format!("ids[]=no-{number}&"))
        .collect();
    let answer = get(&format!("{ids}ids[]=syn"));
    assert_eq!(lines::at(&answer.json(), "/crates/*/name"), json!(["syn"]));
}

/// Section 5.5: every order, by numbers and by seek.
fn pages_meet_every_crate_once(scene: &Scene) {
    let get = |query: &str| scene.mirror.get(&format!("/api/v1/crates{query}")).json();
    let names = |json: &Value| -> Vec<String> {
        let crates = json["crates"].as_array().unwrap().iter();
        crates
            .map(|found| found["name"].as_str().unwrap().to_owned())
            .collect()
    };
    for sort in [
        "relevance",
        "alphabetical",
        "downloads",
        "recent-downloads",
        "recent-updates",
        "new",
    ] {
        for q in ["", "i"] {
            let whole = get(&format!("?q={q}&sort={sort}&per_page=100"));
            let all = names(&whole);
            assert_eq!(whole["meta"]["total"], all.len());
            for (first, key) in [("", "seek"), ("&page=1", "page")] {
                let mut query = format!("?q={q}&sort={sort}&per_page=2{first}");
                let (mut seen, mut page) = (Vec::new(), 1);
                loop {
                    let json = get(&query);
                    seen.extend(names(&json));
                    let prev = json["meta"]["prev_page"].as_str().map(str::to_owned);
                    let expected = format!("?q={q}&sort={sort}&per_page=2&page={}", page - 1);
                    assert_eq!(prev, (key == "page" && page > 1).then_some(expected));
                    let Some(next) = json["meta"]["next_page"].as_str() else {
                        break;
                    };
                    assert!(
                        next.starts_with(&format!("?q={q}&sort={sort}&per_page=2&{key}=")),
                        "{next}"
                    );
                    query = next.to_owned();
                    page += 1;
                }
                assert_eq!(seen, all, "{sort} {q} {key}");
            }
        }
    }
}

/// Section 5.1: the rules for all endpoints.
fn methods_and_encodings(scene: &Scene) {
    let mirror = &scene.mirror;
    for path in [
        "/api/v1/crates?q=io",
        "/api/v1/summary",
        "/api/v1/site_metadata",
        "/api/v1/crates/inflector/reverse_dependencies",
        "/api/v1/crates/inflector/owners",
        "/api/v1/crates/no/owners",
        "/api/v1/keywords",
        "/api/v1/me",
        "/api/openapi.json",
    ] {
        let (get, head) = (mirror.get(path), mirror.request("HEAD", path, &[]));
        assert_eq!((head.status, head.body.len()), (get.status, 0), "{path}");
        assert_eq!(
            head.header("x-index-commit"),
            get.header("x-index-commit"),
            "{path}"
        );
        // A shorter answer is never compressed.
        let vary = (get.body.len() >= 32).then_some("accept-encoding");
        assert_eq!(get.header("vary"), vary, "{path}");
        assert_eq!(get.header("etag"), None, "{path}");
        let is_of_the_site = path.ends_with("/summary") || path.ends_with("/site_metadata");
        let cached = is_of_the_site.then_some("public, max-age=15");
        assert_eq!(get.header("cache-control"), cached, "{path}");
        let packed = mirror.request("GET", path, &[("Accept-Encoding", "gzip")]);
        assert_eq!(packed.body, get.body, "{path}");
        for (method, status) in [("PUT", 403), ("OPTIONS", 405), ("PROPFIND", 405)] {
            // Every write below `/api/v1/` is refused.
            let status = if path.starts_with("/api/v1/") {
                status
            } else {
                405
            };
            let answer = mirror.request(method, path, &[]);
            assert_eq!(answer.status, status, "{method} {path}");
            answer.detail();
            if status == 405 {
                assert_eq!(answer.header("allow"), Some("GET,HEAD"), "{path}");
            }
        }
    }
    let packed = mirror.request("GET", "/api/v1/crates", &[("Accept-Encoding", "gzip")]);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert_eq!(packed.header("x-content-type-options"), Some("nosniff"));
    let described = mirror.request(
        "GET",
        "/api/openapi.json",
        &[("X-Forwarded-Proto", "https")],
    );
    let url = format!("https://{}", mirror.address);
    assert_eq!(described.json()["servers"], json!([{ "url": url }]));
}

#[test]
fn cargo_searches_and_lists_owners() {
    let scene = Scene::start();
    let index = format!("sparse+http://{}/index/", scene.mirror.address);
    let project = Project::new(&index, &[]);
    let cargo = |arguments: &[&str]| {
        let output = project.cargo(&[arguments, &["--registry", "mirror"]].concat());
        succeeds(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    // cargo pads the names, and omits a missing description.
    assert_eq!(cargo(&["search", "inflector"]), "Inflector = \"0.1.0\"\n");
    assert_eq!(
        cargo(&["search", "io"]),
        "io = \"1.0.0\"\nIo_x = \"1.0.0\"\nmy-io = \"1.0.0\"\n"
    );
    assert_eq!(
        cargo(&["search", "--limit", "1", "io"]),
        "io = \"1.0.0\"\n... and 2 crates more (use --limit N to see more)\n"
    );
    assert_eq!(cargo(&["search", "no-such-crate"]), "");
    assert_eq!(cargo(&["owner", "--list", "--token", "x", "inflector"]), "");
}
