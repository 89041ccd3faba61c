//! Failures of the upstream index, before the first clone and after it.

use std::time::{Duration, Instant, UNIX_EPOCH};

use crates_io_mirror::Clock;
use tempfile::TempDir;

use crate::support::{FIXTURES, Fault, GitIndex, GitServer, Mirror, eventually, index_line};

fn data_dir() -> (TempDir, String) {
    let data = TempDir::new().unwrap();
    let path = data.path().to_str().unwrap().to_owned();
    (data, path)
}

/// Checks a mirror without an index: it is alive and redirects, is not ready, and answers index requests with 503 in
/// JSON.
#[track_caller]
fn assert_waits_for_the_index(mirror: &Mirror) {
    mirror.assert_serves_without_index();
    let answer = mirror.metadata("itoa");
    assert_eq!(answer.status, 503);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=10).contains(&seconds));
    assert!(answer.detail().contains("no copy of the index yet"));
    assert_eq!(answer.header("x-index-commit"), None);
    assert_eq!(mirror.get("/readyz").status, 503);
}

/// Starts a mirror with this fault of the upstream, which ends later. Returns the error that the mirror reports.
#[track_caller]
fn first_start_into(fault: Fault) -> String {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start_with(&index, fault);
    let (data, data_dir) = data_dir();
    let mirror = Mirror::start(&[("GIT_REPO_URL", &server.url()), ("DATA_DIR", &data_dir)]);
    assert_waits_for_the_index(&mirror);
    let error = mirror.wait_for_failure();
    println!("{fault:?}: {error}");
    assert_waits_for_the_index(&mirror);
    let status = mirror.get("/status").json();
    assert_eq!(status["state"], "failing", "{status}");
    assert_eq!(status["index"]["last_error"], *error);
    server.set(Fault::None);
    mirror.wait_until_ready();
    assert_eq!(mirror.commit(), Some(index.head()));
    drop(mirror);
    assert_one_clone_is_left(&data);
    error
}

/// Checks the disk between two runs: one clone, and no leftovers of a failure.
#[track_caller]
pub(crate) fn assert_one_clone_is_left(data: &TempDir) {
    let names = |path: &std::path::Path| -> Vec<String> {
        let entries = std::fs::read_dir(path).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let index = data.path().join("index");
    let entries = names(&index);
    assert_eq!(entries.len(), 3, "{entries:?}");
    assert!(entries[0].starts_with("clone-"), "{entries:?}");
    assert_eq!(entries[1..], ["current", "lock"]);
    let current = std::fs::read_to_string(index.join("current")).unwrap();
    assert_eq!(current, entries[0]);
    let packs = names(&index.join(&entries[0]).join("objects/pack"));
    assert!(
        packs.iter().all(|name| name.starts_with("pack-")),
        "{packs:?}"
    );
}

#[test]
fn the_mirror_waits_for_an_upstream_that_refuses_connections() {
    let index = GitIndex::with_fixtures();
    let (port, url) = GitServer::closed();
    let (_data, data_dir) = data_dir();
    let mirror = Mirror::start(&[("GIT_REPO_URL", &url), ("DATA_DIR", &data_dir)]);
    let error = mirror.wait_for_failure();
    assert!(error.contains("onnect"), "{error}");
    assert_waits_for_the_index(&mirror);
    let _server = GitServer::open(port, &index);
    mirror.wait_until_ready();
    assert_eq!(mirror.metadata("itoa").status, 200);
}

#[test]
fn the_mirror_waits_for_an_upstream_that_closes_connections() {
    first_start_into(Fault::Disconnect);
}

#[test]
fn the_mirror_waits_for_an_upstream_with_an_internal_error() {
    let error = first_start_into(Fault::Status(500));
    assert!(error.contains("500"), "{error}");
}

#[test]
fn the_mirror_waits_for_an_upstream_without_the_repository() {
    let error = first_start_into(Fault::Status(404));
    assert!(error.contains("404"), "{error}");
}

#[test]
fn garbage_in_place_of_branches_is_refused() {
    first_start_into(Fault::GarbageAdvertisement);
}

#[test]
fn garbage_in_place_of_a_pack_is_refused() {
    first_start_into(Fault::GarbagePack);
}

#[test]
fn a_truncated_pack_is_refused() {
    first_start_into(Fault::CutPack(20_000));
}

#[test]
fn an_upstream_that_stops_sending_in_a_pack_times_out() {
    first_start_into(Fault::HangInPack(20_000));
}

#[test]
fn an_unresponsive_upstream_times_out() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start_with(&index, Fault::Hang);
    let (_data, data_dir) = data_dir();
    let mirror = Mirror::start(&[("GIT_REPO_URL", &server.url()), ("DATA_DIR", &data_dir)]);
    let began = Instant::now();
    eventually("the request arrives", || !server.seen().is_empty());
    // Requests do not wait for a fetch.
    for _ in 0..20 {
        assert_waits_for_the_index(&mirror);
    }
    let error = mirror.wait_for_failure();
    assert!(error.contains("time"), "{error}");
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(3), "{waited:?}");
    assert!(waited < Duration::from_secs(20), "{waited:?}");
    server.set(Fault::None);
    mirror.wait_until_ready();
}

#[test]
fn the_mirror_waits_for_the_first_commit_of_an_empty_upstream() {
    let index = GitIndex::empty();
    let server = GitServer::start(&index);
    let (_data, data_dir) = data_dir();
    let mirror = Mirror::start(&[("GIT_REPO_URL", &server.url()), ("DATA_DIR", &data_dir)]);
    let error = mirror.wait_for_failure();
    assert!(error.contains("has no HEAD"), "{error}");
    assert_waits_for_the_index(&mirror);
    let line = index_line("first", "1.0.0", false);
    let commit = index.commit().crate_file("first", &line).send();
    mirror.wait_for_commit(&commit);
    mirror.wait_until_ready();
}

/// The last view stays in use during an outage, and the mirror follows the upstream again afterwards.
#[test]
fn a_later_outage_changes_nothing_for_clients() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let (data, data_dir) = data_dir();
    let mirror = Mirror::start(&[("GIT_REPO_URL", &server.url()), ("DATA_DIR", &data_dir)]);
    mirror.wait_until_ready();
    for (round, fault) in [
        Fault::Disconnect,
        Fault::Status(502),
        Fault::GarbageAdvertisement,
        Fault::GarbagePack,
        Fault::CutPack(100),
        Fault::HangInPack(100),
        Fault::Hang,
    ]
    .into_iter()
    .enumerate()
    {
        let before = index.head();
        server.set(fault);
        let line = index_line("fresh", &format!("1.0.{round}"), false);
        let after = index.commit().crate_file("fresh", &line).send();
        let error = mirror.wait_for_failure();
        println!("{fault:?}: {error}");
        assert_eq!(mirror.commit(), Some(before));
        assert_eq!(mirror.get("/readyz").status, 200);
        mirror.assert_serves_without_index();
        for name in FIXTURES {
            assert_eq!(mirror.metadata(name).status, 200, "{name}");
        }
        server.set(Fault::None);
        mirror.wait_for_commit(&after);
        eventually("the failure is over", || {
            mirror.get("/readyz").json()["index"]["failures"] == 0
        });
    }
    drop(mirror);
    assert_one_clone_is_left(&data);
}

#[test]
fn an_outage_beyond_max_staleness_makes_the_mirror_unready_but_it_still_answers() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let (_data, data_dir) = data_dir();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", &data_dir),
        ("MAX_STALENESS_SECS", "1"),
    ]);
    mirror.wait_until_ready();
    server.set(Fault::Disconnect);
    mirror.wait_for_failure();
    eventually("the view is too old", || {
        let answer = mirror.get("/readyz");
        let reason = answer.json()["reason"].to_string();
        answer.status == 503 && reason.contains("MAX_STALENESS_SECS=1")
    });
    assert_eq!(mirror.metadata("itoa").status, 200);
    mirror.assert_serves_without_index();
    server.set(Fault::None);
    mirror.wait_until_ready();
}

#[test]
fn a_restart_without_upstream_serves_the_clone_on_disk() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let (_data, data_dir) = data_dir();
    let url = server.url();
    let settings = [("GIT_REPO_URL", url.as_str()), ("DATA_DIR", &data_dir)];
    // The clock does not move in a run, so ages are exact.
    let at = |seconds| Clock::custom(move || UNIX_EPOCH + Duration::from_secs(seconds));
    let first = Mirror::start_at(&settings, at(2_000_000_000));
    first.wait_until_ready();
    first.stop();

    server.set(Fault::Hang);
    let second = Mirror::start_at(&settings, at(2_000_003_000));
    eventually("the clone is served", || {
        second.commit() == Some(index.head())
    });
    let answer = second.get("/readyz");
    assert_eq!(answer.json()["index"]["age_seconds"], 3_000);
    assert_eq!(answer.status, 200);
    second.stop();

    let third = Mirror::start_at(&settings, at(2_000_003_601));
    eventually("the clone is served", || {
        third.commit() == Some(index.head())
    });
    let answer = third.get("/readyz");
    assert_eq!(answer.status, 503);
    let reason = answer.json()["reason"].to_string();
    assert!(reason.contains("3601 s ago"), "{reason}");
    server.set(Fault::None);
    third.wait_until_ready();
    assert_eq!(third.get("/readyz").json()["index"]["age_seconds"], 0);
}

#[test]
fn without_refresh_there_is_one_fetch_and_no_staleness() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let (_data, data_dir) = data_dir();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", &data_dir),
        ("REFRESH_INTERVAL_SECS", "0"),
        ("MAX_STALENESS_SECS", "1"),
    ]);
    mirror.wait_until_ready();
    let (first, requests) = (index.head(), server.seen().len());
    let line = index_line("fresh", "1.0.0", false);
    index.commit().crate_file("fresh", &line).send();
    eventually("some time has passed", || {
        mirror.get("/readyz").json()["index"]["age_seconds"]
            .as_u64()
            .unwrap()
            >= 3
    });
    assert_eq!(mirror.get("/readyz").status, 200);
    assert_eq!(mirror.commit(), Some(first));
    assert_eq!(server.seen().len(), requests);
}

#[test]
fn an_upstream_head_without_a_commit_is_a_failed_refresh() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let (_data, data_dir) = data_dir();
    let mirror = Mirror::start(&[("GIT_REPO_URL", &server.url()), ("DATA_DIR", &data_dir)]);
    mirror.wait_until_ready();
    let commit = index.head();
    // A renamed branch on a host that does not change HEAD.
    index.git(&["branch", "moved", "master"]);
    index.git(&["update-ref", "-d", "refs/heads/master"]);
    let error = mirror.wait_for_failure();
    assert!(error.contains("has no HEAD"), "{error}");
    assert_eq!(mirror.commit().as_deref(), Some(commit.as_str()));
    index.git(&["symbolic-ref", "HEAD", "refs/heads/moved"]);
    let line = index_line("fresh", "1.0.0", false);
    mirror.wait_for_commit(&index.commit().crate_file("fresh", &line).send());
}
