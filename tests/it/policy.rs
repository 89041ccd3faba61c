//! The policy on every surface: held, denied and frozen versions.

use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use crate::git_served::GitClone;
use crate::support::{Answer, GitIndex, Mirror, eventually, index_path};

const DAY: u64 = 86_400;

#[expect(
    clippy::disallowed_methods,
    reason = "the mirror of these tests has the system's clock"
)]
/// An index line of a version that was published `days` ago.
fn line(name: &str, version: &str, days: u64, yanked: bool) -> String {
    let time = SystemTime::now() - Duration::from_secs(days * DAY);
    let seconds = time
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let time = chrono::DateTime::from_timestamp(seconds.try_into().unwrap(), 0).unwrap();
    let time = time.format("%Y-%m-%dT%H:%M:%SZ");
    format!(
        r#"{{"name":"{name}","vers":"{version}","deps":[],"cksum":"{}","features":{{}},"yanked":{yanked},"pubtime":"{time}"}}"#,
        "0".repeat(64)
    )
}

/// A mirror of an index, with these settings.
struct Scene {
    index: GitIndex,
    data: TempDir,
}

impl Scene {
    fn new(files: &[(&str, &[String])]) -> Self {
        let scene = Self {
            index: GitIndex::empty(),
            data: TempDir::new().unwrap(),
        };
        scene.commit(files);
        scene
    }

    fn commit(&self, files: &[(&str, &[String])]) -> String {
        let mut commit = self.index.commit();
        for (name, lines) in files {
            commit = commit.crate_file(name, (lines.join("\n") + "\n").as_bytes());
        }
        commit.send()
    }

    fn start(&self, settings: &[(&str, &str)]) -> Mirror {
        let url = self.index.path();
        let own = [
            ("GIT_REPO_URL", url.to_str().unwrap()),
            ("DATA_DIR", self.data.path().to_str().unwrap()),
        ];
        let mirror = Mirror::start_public(&[&own, settings].concat());
        mirror.wait_until_ready();
        mirror
    }
}

fn state(mirror: &Mirror, name: &str, version: &str) -> String {
    let answer = mirror.get(&format!("/policy/{name}/{version}")).json();
    answer["state"].as_str().unwrap_or_default().to_owned()
}

fn yanked(answer: &Answer) -> Vec<bool> {
    let text = answer.text();
    let lines = text.lines();
    let flag = |line: &str| line.contains(r#""yanked":true"#);
    lines.map(flag).collect()
}

#[test]
fn a_young_version_is_held_on_every_surface_until_it_is_old_enough() {
    let lines = [
        line("foo", "1.0.0", 30, false),
        line("foo", "1.1.0", 2, false),
    ];
    let scene = Scene::new(&[("foo", &lines)]);
    let settings = [("MIN_PUBLISH_AGE", "7 days"), ("HELD_DOWNLOADS", "deny")];
    let mirror = scene.start(&settings);
    let file = mirror.get("/index/3/f/foo");
    assert_eq!(yanked(&file), [false, true], "{file:?}");
    assert_eq!(file.header("x-policy").unwrap().len(), 12);
    let expected = format!("{}\n{}\n", lines[0], lines[1].replace("false", "true"));
    assert_eq!(file.text(), expected);
    let versions = mirror.get("/api/v1/crates/foo").json();
    assert_eq!(versions["crate"]["max_version"], "1.0.0");
    let held = &versions["versions"][0];
    assert_eq!(
        (&held["num"], &held["yanked"]),
        (&"1.1.0".into(), &true.into())
    );
    let why = held["yank_message"].as_str().unwrap();
    assert!(
        why.starts_with("foo 1.1.0 is held by this mirror until 20"),
        "{why}"
    );
    assert!(
        why.ends_with(
            "and the minimum publish age is 7 days. Use: cargo update foo --precise 1.0.0"
        ),
        "{why}"
    );
    let refused = mirror.get("/api/v1/crates/foo/1.1.0/download");
    assert_eq!((refused.status, refused.detail()), (403, why.to_owned()));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((4 * DAY..=5 * DAY).contains(&wait), "{wait}");
    assert_eq!(mirror.get("/api/v1/crates/foo/1.0.0/download").status, 302);
    assert_eq!(mirror.get("/api/v1/crates/foo/1.2.0/download").status, 404);
    assert_eq!(state(&mirror, "foo", "1.1.0"), "held");
    assert_eq!(state(&mirror, "foo", "1.0.0"), "allowed");
    println!("{}", mirror.get("/policy").text());
    println!("{}", mirror.get("/policy/foo").text());
    println!("{}", mirror.get("/metrics").text());
    let restarted = mirror
        .get("/index/3/f/foo")
        .header("x-policy")
        .map(str::to_owned);
    drop(mirror);
    let mirror = scene.start(&settings);
    assert_eq!(
        mirror
            .get("/index/3/f/foo")
            .header("x-policy")
            .map(str::to_owned),
        restarted
    );
    // A release of another crate changes only its own file.
    scene.commit(&[("bar", &[line("bar", "1.0.0", 0, false)])]);
    mirror.wait_for_commit(&scene.index.head());
    assert_eq!(state(&mirror, "bar", "1.0.0"), "held");
    two_spellings_of_a_name_are_held_alike(&scene, &mirror);
}

/// A strange index lists one name in two spellings. Each file follows the policy, on every surface.
fn two_spellings_of_a_name_are_held_alike(scene: &Scene, mirror: &Mirror) {
    let names = ["twin-crate", "twin_crate"];
    let lines = names.map(|name| [line(name, "1.0.0", 2, false)]);
    let commit = scene.commit(&[(names[0], &lines[0]), (names[1], &lines[1])]);
    mirror.wait_for_git_commit(&commit);
    let clone = GitClone::of(&format!("http://{}/git/index", mirror.address), &["--bare"]);
    let mut feed = String::new();
    eventually("the feed has both", || {
        feed = mirror.get("/changes?since=1970-01-01T00:00:00Z").text();
        names.iter().all(|name| feed.contains(name))
    });
    let found = mirror.get("/api/v1/crates?q=twin").json();
    let found = found["crates"].as_array().unwrap();
    assert_eq!(found.len(), 2);
    for name in names {
        let path = index_path(name);
        assert_eq!(yanked(&mirror.get(&format!("/index/{path}"))), [true]);
        let by_git = clone.git(&["show", &format!("HEAD:{path}")]);
        assert!(by_git.contains(r#""yanked":true"#), "{by_git}");
        for spelling in [name.to_owned(), name.to_uppercase()] {
            let download = mirror.get(&format!("/api/v1/crates/{spelling}/1.0.0/download"));
            assert_eq!(download.status, 403, "{download:?}");
            assert_eq!(state(mirror, &spelling, "1.0.0"), "held");
        }
        let of_crate = format!(r#""crate":"{name}""#);
        let mut added = feed.lines().filter(|line| line.contains(&of_crate));
        let added = added.next().unwrap();
        assert!(
            added.contains(r#""yanked":true"#) && added.contains("held_until"),
            "{added}"
        );
        let listed = found.iter().find(|found| found["id"] == name).unwrap();
        assert_eq!(listed["max_version"], "0.0.0", "{listed}");
    }
}
