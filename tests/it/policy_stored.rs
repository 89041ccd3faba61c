//! The policy of a mirror that sends crate files itself: in cache mode, and offline with `INDEX_PRUNED`.

use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::git_served::GitClone;
use crate::git_served::wants::ask_for;
use crate::support::{
    Answer, CrateFile, CrateUpstream, GitIndex, Mirror, eventually, index_path, stored_path,
};

const OLD: &str = "2020-01-01T00:00:00Z";
/// Too new for any minimum age.
const YOUNG: &str = "2099-01-01T00:00:00Z";

/// Name, version, publish time, whether the file is stored at the end.
const VERSIONS: [(&str, &str, &str, bool); 8] = [
    ("foo", "1.0.0", OLD, true),
    ("foo", "1.1.0", YOUNG, true),
    ("foo", "1.2.0", OLD, true),
    ("foo", "2.0.0", OLD, false),
    ("bar", "1.0.0", OLD, true),
    ("missing", "1.0.0", OLD, false),
    ("young-missing", "1.0.0", YOUNG, false),
    ("denied-missing", "1.0.0", OLD, false),
];

const POLICY: &str = "bans.deny = [\"foo@1.2.0\", \"bar\", \"denied-missing\"]";

/// Each version with its flag, as lines say it.
fn flags(file: &str) -> BTreeMap<String, bool> {
    let lines = file
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let flag = |line: Value| {
        let version = line["vers"].as_str().unwrap().to_owned();
        (version, line["yanked"].as_bool().unwrap())
    };
    lines.map(flag).collect()
}

#[track_caller]
fn assert_kept(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    let kept = answer.header("cache-control");
    assert_eq!(kept, Some("public, max-age=600"), "{answer:?}");
}

#[test]
fn stored_files_follow_the_policy_in_cache_mode_and_in_a_pruned_index() {
    let files = VERSIONS.map(|(name, version, ..)| CrateFile::pack(name, version, &[]));
    let upstream = CrateUpstream::start(&files);
    let index = GitIndex::empty();
    let mut contents: BTreeMap<&str, String> = BTreeMap::new();
    for (file, (name, _, published, _)) in files.iter().zip(VERSIONS) {
        let line = String::from_utf8(file.index_line()).unwrap();
        let line = line.replacen('{', &format!("{{\"pubtime\":\"{published}\","), 1);
        contents.entry(name).or_default().push_str(&line);
    }
    let mut commit = index.commit().file("config.json", b"{}");
    for (name, content) in &contents {
        commit = commit.crate_file(name, content.as_bytes());
    }
    let commit = commit.send();
    let data = TempDir::new().unwrap();
    let policy = data.path().join("policy.toml");
    fs::write(&policy, POLICY).unwrap();
    let (url, template) = (index.path(), upstream.template());
    let own = [
        ("GIT_REPO_URL", url.to_str().unwrap()),
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("DOWNLOAD_URL", &template),
        ("MIN_PUBLISH_AGE", "7 days"),
        ("POLICY_FILE", policy.to_str().unwrap()),
    ];
    let mirror = Mirror::start(&[&own[..], &[("DOWNLOAD_MODE", "cache")]].concat());
    mirror.wait_until_ready();
    in_cache_mode(&mirror, &files[0]);
    mirror.stop();

    let store = data.path().join("crates");
    for (file, (.., is_stored)) in files.iter().zip(VERSIONS) {
        let path = stored_path(&store, &file.checksum());
        if is_stored {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file.bytes()).unwrap();
        } else {
            assert!(!path.exists(), "{path:?}");
        }
    }
    let offline = [
        ("DOWNLOAD_MODE", "offline"),
        ("INDEX_PRUNED", "true"),
        ("HELD_DOWNLOADS", "deny"),
    ];
    let mirror = Mirror::start_public(&[&own[..], &offline].concat());
    mirror.wait_until_ready();
    mirror.wait_for_git_commit(&commit);
    in_a_pruned_index(&mirror, &contents, &files[0]);
    for answer in ask_for(&mirror, &commit) {
        assert_eq!(answer.status, 403, "{answer:?}");
    }
}

/// Answers of one commit and one policy are equal, whatever is stored, and files are not kept for long.
fn in_cache_mode(mirror: &Mirror, allowed: &CrateFile) {
    let ask = || {
        let answer = mirror.get("/api/v1/crates/foo");
        let policy = answer.header("x-policy").unwrap().to_owned();
        (answer.text(), policy)
    };
    let before = ask();
    let path = allowed.download_path();
    let whole = mirror.get(&path);
    assert_kept(&whole, 200);
    let tag = [("if-none-match", whole.header("etag").unwrap())];
    assert_kept(&mirror.request("GET", &path, &tag), 304);
    assert_kept(
        &mirror.request("GET", &path, &[("range", "bytes=0-3")]),
        206,
    );
    assert_kept(&mirror.request("HEAD", &path, &[]), 200);
    assert_kept(&mirror.get("/crates/foo/foo-1.1.0.crate"), 200);
    let refused = mirror.get("/api/v1/crates/foo/1.2.0/download");
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    assert_eq!(ask(), before, "two files are stored now");
}

fn in_a_pruned_index(mirror: &Mirror, contents: &BTreeMap<&str, String>, allowed: &CrateFile) {
    let expected = [
        (
            "foo",
            &[("1.0.0", false), ("1.1.0", true), ("1.2.0", true)][..],
        ),
        ("bar", &[("1.0.0", true)]),
        ("missing", &[]),
        ("young-missing", &[]),
        ("denied-missing", &[]),
    ];
    let clone = GitClone::of(&format!("http://{}/git/index", mirror.address), &["--bare"]);
    let by_git = clone.git(&["ls-tree", "-r", "--name-only", "HEAD"]);
    let by_git: Vec<&str> = by_git.lines().collect();
    let x_policy = mirror
        .get("/index/config.json")
        .header("x-policy")
        .map(str::to_owned);
    assert!(x_policy.is_some());
    for (name, versions) in expected {
        let versions: BTreeMap<String, bool> = versions
            .iter()
            .map(|(version, yanked)| ((*version).to_owned(), *yanked))
            .collect();
        let path = index_path(name);
        let sparse = mirror.get(&format!("/index/{path}"));
        let api = mirror.get(&format!("/api/v1/crates/{name}"));
        assert_eq!(sparse.header("x-policy"), x_policy.as_deref());
        assert_eq!(
            by_git.contains(&path.as_str()),
            !versions.is_empty(),
            "{name}"
        );
        if versions.is_empty() {
            assert_eq!((sparse.status, api.status), (404, 404), "{name}");
        } else {
            assert_eq!(flags(&sparse.text()), versions);
            assert_eq!(clone.git(&["show", &format!("HEAD:{path}")]), sparse.text());
            let listed = api.json();
            let listed = listed["versions"].as_array().unwrap().iter();
            let flag = |version: &Value| {
                let number = version["num"].as_str().unwrap().to_owned();
                (number, version["yanked"].as_bool().unwrap())
            };
            assert_eq!(listed.map(flag).collect::<BTreeMap<_, _>>(), versions);
        }
        // The policy tells of all versions of the upstream.
        let told = mirror.get(&format!("/policy/{name}")).json();
        let told = told["versions"].as_array().unwrap();
        assert_eq!(told.len(), contents[name].lines().count());
        for version in told {
            let number = version["version"].as_str().unwrap();
            let served = versions.get(number).copied();
            assert_eq!(version["served_yanked"], Value::from(served), "{version}");
            let (state, rule) = (version["state"].as_str().unwrap(), &version["rule"]);
            let status = match served {
                None => {
                    assert_eq!(
                        (state, rule),
                        ("allowed", &"not-stored".into()),
                        "{version}"
                    );
                    404
                }
                Some(false) => 200,
                Some(true) => {
                    assert_ne!(state, "allowed", "{version}");
                    403
                }
            };
            let download = mirror.get(&format!("/api/v1/crates/{name}/{number}/download"));
            assert_eq!(download.status, status, "{name} {number} {download:?}");
        }
    }
    // Every listed file is stored, so its size is part of this state.
    let version = mirror.get("/api/v1/crates/foo/1.0.0").json();
    assert_eq!(version["version"]["crate_size"], allowed.bytes().len());
    eventually("search lists what is shown", || {
        let found = mirror.get("/api/v1/crates");
        found.status == 200 && {
            let found = found.json();
            let crates = found["crates"].as_array().unwrap().iter();
            let names: Vec<&str> = crates
                .map(|found| found["name"].as_str().unwrap())
                .collect();
            names == ["bar", "foo"]
        }
    });
}
