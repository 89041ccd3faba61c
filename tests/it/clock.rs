//! A clock that was set back: times in the future have an unknown age.

use std::time::{Duration, SystemTime};

use crates_io_mirror::Clock;
use tempfile::TempDir;

use crate::support::{Fault, GitIndex, GitServer, Mirror, eventually};

fn clock_at(time: SystemTime) -> Clock {
    Clock::custom(move || time)
}

#[test]
fn a_fetch_in_the_future_does_not_make_the_index_fresh() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let data = TempDir::new().unwrap();
    let url = server.url();
    let settings = [
        ("GIT_REPO_URL", url.as_str()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ];
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let fast = Mirror::start_at(&settings, clock_at(now + Duration::from_secs(600)));
    fast.wait_until_ready();
    fast.stop();

    server.set(Fault::Disconnect);
    let mirror = Mirror::start_at(&settings, clock_at(now));
    eventually("the index on the disk is served", || {
        mirror.get("/index/it/oa/itoa").status == 200
    });
    let ready = mirror.get("/readyz");
    assert_eq!(ready.status, 503);
    let ready = ready.json();
    assert!(ready["index"]["age_seconds"].is_null(), "{ready}");
    let reason = ready["reason"].as_str().unwrap();
    assert!(reason.contains("ahead of the clock"), "{reason}");
    let metrics = mirror.get("/metrics").text();
    assert!(!metrics.contains("index_age_seconds"), "{metrics}");
    server.set(Fault::None);
    mirror.wait_until_ready();
    assert_eq!(mirror.get("/readyz").json()["index"]["age_seconds"], 0);
}
