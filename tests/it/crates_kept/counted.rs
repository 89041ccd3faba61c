//! Crate files in `/metrics` and `/status`.

use super::*;

/// The value of a series in `/metrics`.
#[track_caller]
pub(super) fn count(mirror: &Client, series: &str) -> u64 {
    let answer = mirror.get("/metrics");
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = answer.text();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("crates_io_mirror_{series} ")))
        .unwrap_or_else(|| panic!("{series} is not in {text}"));
    line.parse().unwrap()
}

#[test]
fn hits_fetches_and_mismatches_are_counted() {
    let scene = Scene::of(3);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    for _ in 0..3 {
        assert_serves(&scene.mirror, &scene.origin.files[0]);
    }
    scene.origin.upstream.fail(UpstreamFault::WrongBytes);
    assert_fails(&scene.download(1), 502);
    scene.origin.upstream.heal();
    scene.origin.upstream.fail(UpstreamFault::Status(404));
    assert_fails(&scene.download(2), 404);
    for (series, expected) in [
        ("crate_files_total{result=\"hit\"}", 3),
        ("crate_files_total{result=\"fetched\"}", 1),
        ("crate_files_total{result=\"corrupt\"}", 1),
        ("crate_files_total{result=\"missing\"}", 1),
        ("crate_files_total{result=\"failed\"}", 0),
        ("crate_file_checksum_mismatches_total", 1),
        (
            "crate_file_fetched_bytes_total",
            scene.origin.files[0].bytes().len() as u64,
        ),
        ("store_failures_total", 0),
        ("store_evicted_files_total", 0),
        ("ready", 1),
    ] {
        assert_eq!(count(&scene.mirror, series), expected, "{series}");
    }
    let status = scene.mirror.get("/status").json();
    let crate_files = &status["crate_files"];
    assert_eq!(
        (&crate_files["hits"], &crate_files["fetched"]),
        (&3.into(), &1.into())
    );
}
