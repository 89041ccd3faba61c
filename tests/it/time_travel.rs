//! Time travel: the sparse index as of a time, over HTTP and with real cargo.

use std::time::{Duration, SystemTime};

use crates_io_mirror::Clock;
use git2::{ObjectType, Oid};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    Answer, CrateFile, CrateFiles, FIXTURES, GitIndex, Mirror, Project, fixture, index_path,
    succeeds,
};

/// The last fetch of every mirror in this file: 2026-06-01T12:00:30Z.
const FETCHED: u64 = 1_780_315_230;

/// Lines of every kind: with and without a publish time, of a later format, junk, with both kinds of line breaks and
/// with none.
const KINDS: &str = concat!(
    r#"{"name":"kinds","vers":"1.0.0","deps":[],"cksum":"00","features":{},"yanked":false,"pubtime":"2020-01-01T00:00:00Z"}"#,
    "\r\n",
    "junk\n\n",
    r#"{"name":"kinds","vers":"1.1.0","deps":[],"cksum":"01","features":{},"yanked":true}"#,
    "\n",
    r#"{"name":"kinds","vers":"2.0.0","deps":{"new":"shape"},"cksum":"02","yanked":false,"pubtime":"2022-01-01T00:00:00Z","v":9}"#,
    "\r\n",
    r#"{ "name": "kinds", "vers": "3.0.0", "deps": [], "cksum": "03", "pubtime": "2024-01-01T00:00:00Z" }"#,
);

/// One version of 2024, between lines that cargo cannot read.
const LATE: &str = concat!(
    "junk\n",
    r#"{"name":"late","vers":"1.0.0","deps":[],"cksum":"00","features":{},"yanked":false,"pubtime":"2024-01-01T00:00:00Z"}"#,
    "\n{}\n",
);

/// A mirror of an index on the disk, whose last fetch was at [`FETCHED`].
struct Scene {
    mirror: Mirror,
    _index: GitIndex,
    data: TempDir,
}

impl Scene {
    fn start(index: GitIndex, settings: &[(&str, &str)]) -> Self {
        let data = TempDir::new().unwrap();
        let (path, data_dir) = (index.path(), data.path().to_str().unwrap().to_owned());
        let own = [
            ("GIT_REPO_URL", path.to_str().unwrap()),
            ("DATA_DIR", &data_dir),
        ];
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(FETCHED);
        let mirror = Mirror::start_at(&[&own, settings].concat(), Clock::custom(move || now));
        mirror.wait_until_ready();
        Self {
            mirror,
            _index: index,
            data,
        }
    }

    fn at(&self, time: &str, name: &str) -> Answer {
        self.mirror.get(&path_at(time, name))
    }
}

fn path_at(time: &str, name: &str) -> String {
    format!("/at/{time}/index/{}", index_path(name))
}

/// The lines of an index file up to a time, from the JSON fields and the order of texts.
fn left(file: &str, time: &str) -> String {
    let is_left = |line: &&str| {
        let json: Value = serde_json::from_str(line).unwrap_or_default();
        json["pubtime"]
            .as_str()
            .is_none_or(|published| published <= time)
    };
    file.split_inclusive('\n').filter(is_left).collect()
}

fn blob_tag(content: &[u8]) -> String {
    format!(
        "\"{}\"",
        Oid::hash_object(ObjectType::Blob, content).unwrap()
    )
}

/// Every answer of the index has these headers.
#[track_caller]
fn assert_is_of_the_index(answer: &Answer) {
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("*"),
        "{answer:?}"
    );
    assert_eq!(
        answer.header("x-index-commit").map(str::len),
        Some(40),
        "{answer:?}"
    );
}

#[track_caller]
fn assert_is_kept_for_ten_minutes_at_most(answer: &Answer) {
    let keep = answer.header("cache-control").unwrap();
    let seconds = keep.strip_prefix("public, max-age=").unwrap();
    assert!(seconds.parse::<u32>().unwrap() <= 600, "{keep}");
}

#[test]
fn every_index_file_has_exactly_the_lines_of_the_time() {
    let index = GitIndex::with_fixtures();
    let commit = index.commit().crate_file("kinds", KINDS.as_bytes());
    commit.crate_file("late", LATE.as_bytes()).send();
    let scene = Scene::start(index, &[]);
    let mut files: Vec<(&str, String)> =
        vec![("kinds", KINDS.to_owned()), ("late", LATE.to_owned())];
    files.extend(FIXTURES.map(|name| (name, String::from_utf8(fixture(name)).unwrap())));
    let (mut whole, mut cut, mut absent) = (0, 0, 0);
    for (asked, time) in [
        ("2013-12-31", "2013-12-31T00:00:00Z"),
        ("2018-06-01T00:00:00Z", "2018-06-01T00:00:00Z"),
        ("2021-01-01", "2021-01-01T00:00:00Z"),
        ("2023-12-31T23%3A59%3A59Z", "2023-12-31T23:59:59Z"),
        ("2026-06-01T12:00:00Z", "2026-06-01T12:00:00Z"),
    ] {
        for (name, file) in &files {
            let answer = scene.at(asked, name);
            assert_is_of_the_index(&answer);
            assert_is_kept_for_ten_minutes_at_most(&answer);
            let expected = left(file, time);
            if !expected.contains("\"vers\"") {
                assert_eq!(answer.status, 404, "{name} at {asked}");
                answer.detail();
                absent += 1;
                continue;
            }
            assert_eq!(
                (answer.status, answer.text()),
                (200, expected.clone()),
                "{name} at {asked}"
            );
            assert_eq!(answer.header("content-type"), Some("text/plain"));
            assert_eq!(answer.header("vary"), Some("accept-encoding"));
            assert_eq!(answer.header("etag"), Some(&*blob_tag(expected.as_bytes())));
            cut += usize::from(expected != *file);
            whole += usize::from(expected == *file);
        }
    }
    assert!(
        whole > 20 && cut > 20 && absent > 20,
        "{whole} {cut} {absent}"
    );

    // Of 2013 only the lines without a time are left.
    let kinds = scene.at("2013-12-31", "kinds");
    assert_eq!(kinds.text().lines().count(), 3, "{kinds:?}");
    // The current index refuses these paths, methods and spellings, too.
    for path in [
        "",
        "ki/nd/",
        "ki/nd/Kinds",
        "xx/yy/kinds",
        "ki%2Fnd/kinds",
        "ki/nd/%ff",
        "../config.json",
    ] {
        let answer = scene.mirror.get(&format!("/at/2026-01-01/index/{path}"));
        assert_eq!(answer.status, 404, "{path}");
    }
    let encoded = scene.mirror.get("/at/2026%2D01%2D01/index/ki/nd/%6Binds");
    assert_eq!(encoded.text(), KINDS);
    let normalised = scene
        .mirror
        .get("//at/./2026-01-01//index/ki/x/../nd/kinds?query");
    assert_eq!(normalised.text(), KINDS);
    assert_eq!(scene.mirror.get("/at/2026-01-01/index/late").status, 302);
    let written = scene
        .mirror
        .request("PUT", &path_at("2026-01-01", "kinds"), &[]);
    assert_eq!(
        (written.status, written.header("allow")),
        (405, Some("GET,HEAD"))
    );
    let browser = [("accept", "text/html")];
    let page = scene
        .mirror
        .request("GET", &path_at("2013-12-31", "late"), &browser);
    assert_eq!(
        (page.status, page.header("content-type")),
        (404, Some("text/html; charset=utf-8"))
    );
    let metrics = scene.mirror.get("/metrics").text();
    for route in ["/at/{time}/index/{path}", "/at/{time}/index/config.json"] {
        let counted = format!("http_requests_total{{route=\"{route}\",method=\"GET\"");
        let is_counted = metrics.contains(&counted);
        assert_eq!(is_counted, route.contains("{path}"), "{metrics}");
    }
}

#[test]
fn a_client_with_the_same_file_gets_304_and_each_encoding_has_its_own_tag() {
    let index = GitIndex::with_fixtures();
    let scene = Scene::start(index, &[]);
    let path = path_at("2021-01-01", "anyhow");
    let ask = |method: &str, headers: &[(&str, &str)]| scene.mirror.request(method, &path, headers);
    let plain = ask("GET", &[]);
    let packed = ask("GET", &[("accept-encoding", "gzip")]);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    // The client has decompressed the file.
    assert_eq!(packed.body, plain.body);
    let (plain_tag, gzip_tag) = (
        plain.header("etag").unwrap(),
        packed.header("etag").unwrap(),
    );
    assert_eq!(
        gzip_tag,
        format!("{}-gzip\"", plain_tag.trim_end_matches('"'))
    );
    for method in ["GET", "HEAD"] {
        for (tag, encoding, status) in [
            (plain_tag, "identity", 304),
            (plain_tag, "gzip", 304),
            (gzip_tag, "gzip", 304),
            (gzip_tag, "identity", 200),
            ("*", "identity", 304),
            ("\"x\"", "gzip", 200),
        ] {
            let answer = ask(
                method,
                &[("if-none-match", tag), ("accept-encoding", encoding)],
            );
            assert_eq!(answer.status, status, "{method} {tag} {encoding}");
            assert_is_of_the_index(&answer);
            assert_is_kept_for_ten_minutes_at_most(&answer);
            assert_eq!(answer.header("vary"), Some("accept-encoding"));
        }
    }
    let head = ask("HEAD", &[]);
    assert_eq!(
        head.header("content-length"),
        Some(&*plain.body.len().to_string())
    );

    // A later time without a publish in between gives the same file. The current index has another file.
    let versions = scene.at("2021-01-02", "anyhow");
    assert_eq!(versions.header("etag"), Some(plain_tag));
    let now = scene
        .mirror
        .get(&format!("/index/{}", index_path("anyhow")));
    let now_tag = now.header("etag").unwrap();
    assert_ne!(now_tag, plain_tag);
    assert_eq!(ask("GET", &[("if-none-match", now_tag)]).status, 200);
    // If all versions are included, the file is the current one.
    let fnv = scene.mirror.get(&format!("/index/{}", index_path("fnv")));
    let fnv_then = scene.at("2026-06-01T12:00:00Z", "fnv");
    assert_eq!(fnv_then.header("etag"), fnv.header("etag"));

    let config = scene.mirror.get("/at/2021-01-01/index/config.json");
    assert_is_of_the_index(&config);
    let usual = scene.mirror.get("/index/config.json");
    for header in ["etag", "cache-control", "vary", "content-type"] {
        assert_eq!(config.header(header), usual.header(header), "{header}");
    }
    assert_eq!(config.body, usual.body);
    let tag = [("if-none-match", config.header("etag").unwrap())];
    let again = scene
        .mirror
        .request("GET", "/at/2021-01-01/index/config.json", &tag);
    assert_eq!(again.status, 304);
}

#[test]
fn a_time_after_the_last_fetch_and_an_invalid_time_are_refused() {
    const USAGE: &str = "use /at/2026-01-01/index/ or /at/2026-01-01T00:00:00Z/index/";
    let scene = Scene::start(GitIndex::with_fixtures(), &[]);
    let starting = Mirror::start(&[
        ("GIT_REPO_URL", "http://127.0.0.1:1/index.git"),
        ("DATA_DIR", scene.data.path().join("none").to_str().unwrap()),
    ]);
    for file in ["config.json", "it/oa/itoa"] {
        for (time, status, detail) in [
            ("2026-06-01T12:00:00Z", 200, ""),
            // The minute of the last fetch is not over.
            (
                "2026-06-01T12:00:01Z",
                400,
                "2026-06-01T12:00:01Z is in the future",
            ),
            ("2026-06-02", 400, "2026-06-02T00:00:00Z is in the future"),
            (
                "9999-12-31T23:59:59Z",
                400,
                "9999-12-31T23:59:59Z is in the future",
            ),
            ("yesterday", 400, USAGE),
            ("2026-02-30", 400, USAGE),
            ("2026-01-01T00:00:00", 400, USAGE),
            ("2026-01-01T00:00:00%2B00:00", 400, USAGE),
            ("2026%2F01%2F01", 400, USAGE),
            ("%ff", 400, USAGE),
        ] {
            let path = format!("/at/{time}/index/{file}");
            let answer = scene.mirror.get(&path);
            assert_eq!(answer.status, status, "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
            if status != 200 {
                assert_eq!(answer.detail(), detail, "{path}");
            }
            let early = starting.get(&path);
            let expected = if detail == USAGE { 400 } else { 503 };
            assert_eq!(early.status, expected, "{path}");
            assert_eq!(early.header("retry-after").is_some(), expected == 503);
        }
    }
}

#[test]
fn rules_apply_to_the_lines_of_the_time() {
    let index = GitIndex::empty();
    let line = |number: u8| {
        // The rule reads the first four digits of the checksum.
        let checksum = format!("{number:04x}{}", "0".repeat(60));
        let time = format!("202{number}-01-01T00:00:00Z");
        format!(
            r#"{{"name":"ruled","vers":"{number}.0.0","deps":[],"cksum":"{checksum}","features":{{}},"yanked":false,"pubtime":"{time}"}}"#
        ) + "\n"
    };
    let lines = [1, 2, 3, 4].map(line);
    index
        .commit()
        .crate_file("ruled", lines.concat().as_bytes())
        .send();
    let data = TempDir::new().unwrap();
    let path = index.path();
    let settings = [
        ("GIT_REPO_URL", path.to_str().unwrap()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ];
    let mirror = Mirror::start_with(&settings, |config| config.every_third_yanked = true);
    mirror.wait_until_ready();
    let shown = lines[..3].concat().replace(
        &lines[2],
        &lines[2].replace("\"yanked\":false", "\"yanked\":true"),
    );
    let answer = mirror.get(&path_at("2023-06-01", "ruled"));
    assert_eq!(answer.text(), shown);
    assert_eq!(answer.header("etag"), Some(&*blob_tag(shown.as_bytes())));
}

#[test]
fn cargo_resolves_as_of_a_time_and_the_lock_file_names_crates_io() {
    let published = [
        ("1.0.0", "2020-06-01"),
        ("1.1.0", "2023-06-01"),
        ("1.2.0", "2026-05-01"),
    ];
    let packed = published.map(|(version, _)| CrateFile::pack("leaf", version, &[]));
    let lines = packed.iter().zip(published).map(|(file, (_, day))| {
        let line = String::from_utf8(file.index_line()).unwrap();
        line.replacen('{', &format!("{{\"pubtime\":\"{day}T00:00:00Z\","), 1)
    });
    let lines: String = lines.collect();
    let index = GitIndex::with_fixtures();
    index.commit().crate_file("leaf", lines.as_bytes()).send();
    let files = CrateFiles::start(&packed);
    let template = format!(
        "http://{}/crates/{{crate}}/{{crate}}-{{version}}.crate",
        files.address()
    );
    let scene = Scene::start(index, &[("DOWNLOAD_URL", &template)]);
    let project = |dependencies: &str| {
        let project = Project::with("unused", &[], dependencies, "");
        project.set_up("");
        project
    };
    let (small, large) = (
        project("leaf = \"1\"\n"),
        project("leaf = \"1\"\nitoa = \"*\"\n"),
    );
    let cargo = |project: &Project, time: &str, command: &str| {
        let address = scene.mirror.address;
        let index = format!("registries.m.index=\"sparse+http://{address}/at/{time}/index/\"");
        let replace = "source.crates-io.replace-with=\"m\"";
        project.cargo(&["--config", replace, "--config", &index, command])
    };
    for (time, leaf, itoa) in [
        ("2026-06-01T12:00:00Z", "1.2.0", "1.0.18"),
        ("2026-01-01T00:00:00Z", "1.1.0", "1.0.17"),
        ("2021-01-01", "1.0.0", "0.4.7"),
    ] {
        succeeds(&cargo(&large, time, "generate-lockfile"));
        let lock = large.lock_file();
        for (name, version) in [("leaf", leaf), ("itoa", itoa)] {
            let package = format!(
                "name = \"{name}\"\nversion = \"{version}\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\n"
            );
            assert!(lock.contains(&package), "{time}: {lock}");
        }
        assert!(!lock.contains("127.0.0.1"), "{lock}");
    }
    succeeds(&cargo(&small, "2021-01-01", "fetch"));
    assert_eq!(files.seen(), ["/crates/leaf/leaf-1.0.0.crate"]);
    for (time, expected) in [
        ("2020-01-01", "no matching package named `leaf` found"),
        ("2026-06-02", "2026-06-02T00:00:00Z is in the future"),
        ("2026-6-1", "use /at/2026-01-01/index/"),
    ] {
        let output = cargo(&large, time, "generate-lockfile");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains(expected),
            "{time}: {said}"
        );
    }
}
