//! The policy where it meets strange indexes, busy mirrors, other rules and the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use tempfile::TempDir;

use super::changes::Running;
use super::{Answer, TestMirror, journal, settings};
use crate::catalog::{Catalog, CatalogSettings, CatalogTask};
use crate::clock::Clock;
use crate::http::{AppState, DownloadPolicy, Settings};
use crate::index::testing::{TestIndex, checksum};
use crate::index::{PolicyFacts, PolicyLookup, StoredFiles};
use crate::policy::testing::{DAY, MINUTE, NOW, time};
use crate::policy::{HeldDownloads, Mode, PolicyFile, Rule};
use crate::server::Exchange;

fn policy(mode: Mode) -> Rule {
    Rule::Policy(crate::policy::Settings {
        held_downloads: HeldDownloads::Deny,
        mode,
        ..crate::policy::testing::settings()
    })
}

/// A mirror at [`NOW`], with this policy file.
struct Scene {
    mirror: TestMirror,
    catalog: Catalog,
    now: Arc<AtomicI64>,
}

impl Scene {
    fn new(files: &[(&str, &str)], rules: Vec<Rule>, file: &str) -> Self {
        let is_audit = rules.contains(&policy(Mode::Audit));
        let now = Arc::new(AtomicI64::new(NOW));
        let mut index = TestIndex::new(files);
        let file = Arc::new(PolicyFile::parse(file).unwrap());
        index.settings_mut(|follower| {
            follower.rules = crate::policy::Rules::new(rules);
            let now = Arc::clone(&now);
            follower.clock = Clock::custom(move || {
                let seconds = now.load(Ordering::Relaxed).try_into().unwrap();
                SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
            });
            follower.stored_files = Some(StoredFiles::new(|| Ok([checksum(1)].into())));
            follower.policy_lookup = Some(PolicyLookup::new(move || PolicyFacts {
                file: Arc::clone(&file),
                ..PolicyFacts::default()
            }));
        });
        index.refresh();
        let settings = Settings {
            download_policy: match is_audit {
                true => DownloadPolicy::Watch,
                false => DownloadPolicy::Enforce,
            },
            ..settings("https://files.example/{crate}-{version}")
        };
        let (handle, catalog) = (index.handle.clone(), Catalog::new());
        let state = AppState::new(
            settings,
            handle,
            None,
            catalog.clone(),
            journal(),
            None,
            Arc::default(),
        );
        let mirror = TestMirror {
            state,
            index: Some(index),
        };
        Self {
            mirror,
            catalog,
            now,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        self.mirror.get(path).await
    }

    async fn download(&self, name: &str, version: &str) -> u16 {
        let path = format!("/api/v1/crates/{name}/{version}/download");
        self.get(&path).await.status.as_u16()
    }

    /// How many answers of a surface were counted, in all states together.
    async fn counted(&self, surface: &str) -> u64 {
        let metrics = self.get("/metrics").await;
        let text = String::from_utf8(metrics.body.to_vec()).unwrap();
        let is_it = |line: &&str| {
            line.starts_with("crates_io_mirror_policy_total{")
                && line.contains(&format!("surface=\"{surface}\""))
        };
        let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap();
        text.lines().filter(is_it).map(value).sum()
    }
}

/// A line with a checksum of this number.
fn line(name: &str, version: &str, days: i64, number: u8) -> String {
    format!(
        r#"{{"name":"{name}","vers":"{version}","deps":[],"cksum":"{}","features":{{}},"yanked":false,"pubtime":"{}"}}"#,
        checksum(number),
        time(NOW - days * DAY)
    ) + "\n"
}

#[tokio::test]
async fn no_spelling_of_a_name_leads_around_a_denial_or_a_hold() {
    // The only line of this file cannot be edited, so the file is hidden.
    let uneditable = line("hidden-one", "2.0.0", 90, 1)
        .replace("\"yanked\":false", "\"yanked\":false,\"yanked\":false");
    // The policy does not change this one, so both crates show the same blob.
    let evil = line("evil", "1.0.0", 90, 4).replace("false", "true");
    let scene = Scene::new(
        &[
            ("hi/dd/hidden-one", &uneditable),
            ("hi/dd/hidden_one", &line("hidden_one", "1.0.0", 90, 1)),
            ("ab/c-/abc-d", &line("abc-d", "1.0.0", 90, 1)),
            ("ab/c_/abc_d", &line("abc_d", "1.0.0", 90, 2)),
            ("yo/un/young-er", &line("young-er", "1.0.0", 1, 1)),
            ("yo/un/young_er", &line("Young_Er", "1.0.0", 2, 3)),
            ("ev/il/evil", &evil),
            // The same bytes at the path of another crate.
            ("in/no/innocent", &evil),
        ],
        vec![policy(Mode::Enforce)],
        "bans.deny = [\"hidden_one\", \"Abc-D\", \"evil\"]",
    );
    for (one, other, state) in [
        ("hidden-one", "hidden_one", "denied"),
        ("abc-d", "abc_d", "denied"),
        ("young-er", "young_er", "held"),
    ] {
        for name in [one, other, &one.to_uppercase(), &other.to_uppercase()] {
            assert_eq!(scene.download(name, "1.0.0").await, 403, "{name}");
            let told = scene.get(&format!("/policy/{name}/1.0.0")).await.json();
            assert_eq!(told["state"], state, "{name}");
            let version = scene.get(&format!("/api/v1/crates/{name}/1.0.0")).await;
            let version = &version.json()["version"];
            assert_eq!(version["yanked"], true, "{name}");
            let why = version["yank_message"].as_str().unwrap();
            assert!(why.contains("by this mirror"), "{why}");
        }
    }
    for (path, shown) in [
        ("hi/dd/hidden-one", None),
        ("hi/dd/hidden_one", Some(true)),
        ("ab/c-/abc-d", Some(true)),
        ("ab/c_/abc_d", Some(true)),
        ("yo/un/young-er", Some(true)),
        ("yo/un/young_er", Some(true)),
        ("ev/il/evil", Some(true)),
    ] {
        for place in ["/index", "/at/2026-08-20/index"] {
            let answer = scene.get(&format!("{place}/{path}")).await;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            let is_found = answer.status == StatusCode::OK;
            let yanked = is_found.then(|| text.contains("\"yanked\":true"));
            assert_eq!(yanked, shown, "{place}/{path}");
        }
    }
    // The table of the file is in memory now, and is not that of the other crate.
    assert_eq!(scene.download("evil", "1.0.0").await, 403);
    assert_eq!(scene.download("innocent", "1.0.0").await, 404);
    assert_eq!(scene.download("evil", "1.0.0").await, 403);
}

#[tokio::test]
async fn times_beyond_that_of_the_view_are_refused_and_the_name_of_the_policy_does_not_cover_that()
{
    let young = line("young", "1.0.0", 30, 1) + &line("young", "1.1.0", 0, 2);
    let files = [("yo/un/young", young.as_str())];
    let mut scene = Scene::new(&files, vec![policy(Mode::Enforce)], "");
    let at = |seconds: i64| format!("/at/{}/index/yo/un/young", time(seconds));
    let policy_time =
        async |scene: &Scene| scene.get("/policy").await.json()["policy_time"].clone();
    let now = scene.get(&at(NOW)).await;
    assert_eq!(now.status, 200);
    let x_policy = now.header("x-policy").to_owned();
    assert_eq!(x_policy.len(), 12);
    assert_eq!(policy_time(&scene).await, time(NOW).to_string());
    // The status may be ahead of the view: what counts is the view.
    let ahead = SystemTime::UNIX_EPOCH + Duration::from_secs((NOW + DAY).try_into().unwrap());
    scene.mirror.state.index.succeeded(ahead);
    assert_eq!(policy_time(&scene).await, time(NOW).to_string());
    let (next, later) = (NOW + MINUTE, NOW + 10 * DAY);
    for path in [
        at(NOW + 1),
        at(next),
        at(later),
        at(next).replace("yo/un/young", "config.json"),
    ] {
        let refused = scene.get(&path).await;
        assert_eq!(refused.status, 400, "{path}");
        assert!(refused.detail().ends_with("is in the future"), "{path}");
        assert_eq!(refused.header("x-index-commit").len(), 40, "{path}");
        assert_eq!(refused.header("x-policy"), "", "{path}");
    }
    // The same view, and later.
    scene.now.store(next + 59, Ordering::Relaxed);
    scene.mirror.index.as_mut().unwrap().refresh();
    assert_eq!(policy_time(&scene).await, time(next).to_string());
    assert_eq!(scene.get(&at(next + 1)).await.status, 400);
    let found = scene.get(&at(next)).await;
    assert_eq!(
        (found.status, found.header("x-policy")),
        (StatusCode::OK, &*x_policy)
    );
    // A time at which the version was out, and is held now, shows it as it is shown now.
    assert_eq!(found.body, now.body);
    assert_eq!(found.body, scene.get("/index/yo/un/young").await.body);
    let text = String::from_utf8(found.body.to_vec()).unwrap();
    let yanked: Vec<bool> = text
        .lines()
        .map(|line| line.contains("\"yanked\":true"))
        .collect();
    assert_eq!(yanked, [false, true]);
    assert_eq!(
        scene.get(&at(NOW - 1)).await.body.len(),
        line("young", "1.0.0", 30, 1).len()
    );
}

#[tokio::test]
async fn audit_mode_has_no_name_whatever_other_rules_there_are() {
    let files =
        line("foo", "1.0.0", 30, 1) + &line("foo", "1.1.0", 30, 2) + &line("foo", "1.2.0", 1, 1);
    let files = [("3/f/foo", files.as_str())];
    let pruned = || Rule::StoredOnly;
    for (rules, lines, named) in [
        (vec![policy(Mode::Audit)], 3, false),
        (vec![pruned(), policy(Mode::Audit)], 2, false),
        (vec![pruned(), policy(Mode::Enforce)], 2, true),
        (vec![pruned()], 2, true),
    ] {
        let scene = Scene::new(&files, rules.clone(), "bans.deny = [\"foo@1.0.0\"]");
        for path in [
            "/index/3/f/foo",
            "/at/2026-08-20/index/3/f/foo",
            "/api/v1/crates/foo",
            "/policy/foo",
        ] {
            let answer = scene.get(path).await;
            assert_eq!(answer.status, 200, "{path}");
            assert_eq!(
                !answer.header("x-policy").is_empty(),
                named,
                "{path} {rules:?}"
            );
        }
        let shown = scene.get("/index/3/f/foo").await;
        let text = String::from_utf8(shown.body.to_vec()).unwrap();
        assert_eq!(text.lines().count(), lines, "{rules:?}");
        let is_enforced = rules.contains(&policy(Mode::Enforce));
        assert_eq!(text.contains("\"yanked\":true"), is_enforced, "{rules:?}");
        let view = scene.mirror.state.index.view().unwrap();
        assert_eq!(view.is_ruled(), named || rules.len() > 1);
    }
}

#[tokio::test(start_paused = true)]
async fn audit_mode_holds_up_no_redirect() {
    let files = line("foo", "1.0.0", 30, 1);
    let rules = vec![policy(Mode::Audit)];
    let scene = Scene::new(&[("3/f/foo", &files)], rules, "bans.deny = [\"foo\"]");
    let busy = Exchange::with_nobody();
    let permits = &scene.mirror.state.look_up_permits;
    let all = permits.take(&busy, 2).await.unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(scene.download("foo", "1.0.0").await, 302);
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(scene.counted("download").await, 0, "nobody knows");
    drop(all);
    assert_eq!(scene.download("foo", "1.0.0").await, 302);
    assert_eq!(scene.counted("download").await, 1);
}

#[tokio::test]
async fn every_answer_of_the_api_that_shows_a_changed_version_is_counted() {
    let depends = |version: &str, days: i64| {
        line("bar", version, days, 3).replace(
            "\"deps\":[]",
            r#""deps":[{"name":"foo-x","req":"*","features":[],"optional":false,"default_features":true,"target":null,"kind":"normal"}]"#,
        )
    };
    let both = depends("0.9.5", 20) + &depends("1.0.0", 1);
    let scene = Scene::new(
        &[
            (
                "fo/o-/foo-x",
                &(line("Foo-X", "1.0.0", 30, 1) + &line("Foo-X", "1.1.0", 1, 2)),
            ),
            ("3/b/bar", &both),
            ("ot/he/other", &line("other", "1.0.0", 30, 1)),
        ],
        vec![policy(Mode::Enforce)],
        "",
    );
    let data = TempDir::new().unwrap();
    let settings = CatalogSettings {
        data_dir: data.path().to_owned(),
        temp_dir: data.path().to_owned(),
    };
    let handle = scene.mirror.state.index.clone();
    let task = CatalogTask::new(settings, scene.catalog.clone(), handle);
    let running = Running::start(|stop| task.run(stop));
    while scene.catalog.status().commit.is_none() {
        tokio::task::yield_now().await;
    }
    for (path, more) in [
        // Once for an answer, however many crates it lists.
        ("/api/v1/crates?q=foo", 1),
        ("/api/v1/crates", 1),
        ("/api/v1/crates?q=other", 0),
        ("/api/v1/crates?q=nothing", 0),
        ("/api/v1/summary", 1),
        ("/api/v1/crates/foo-x/reverse_dependencies", 1),
        ("/api/v1/crates/other/reverse_dependencies", 0),
        // Whatever the spelling: the name of the file counts.
        ("/api/v1/crates/FOO_X", 1),
        ("/api/v1/crates/foo_x/versions", 1),
        ("/api/v1/crates/foo_x/1.0.0", 1),
        ("/api/v1/crates/other", 0),
        ("/api/v1/crates/foo-x/owners", 0),
    ] {
        let before = scene.counted("api").await;
        // The same question again is one more answer.
        for _answer in 0..2 {
            assert_eq!(scene.get(path).await.status, 200, "{path}");
        }
        assert_eq!(scene.counted("api").await, before + 2 * more, "{path}");
    }
    running.end().await;
}
