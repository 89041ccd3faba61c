//! Files that the kernel sends: each answer must be complete, in order, and to the right client.

use std::fs::File;
use std::io::Read;

use rustix::fs::{Advice, fadvise};

use super::*;
use crate::support::{Connection, stored_path};

/// Larger than one part that is sent, and no multiple of it.
const LARGE: usize = 1_300_007;

/// More than sockets take.
const HUGE: usize = 24 * 1024 * 1024;

/// A file system in memory. It cannot tell which bytes are in the page cache.
const IN_MEMORY: &str = "/dev/shm";

fn scene() -> Scene {
    scene_with(&[])
}

fn scene_with(settings: &[(&str, &str)]) -> Scene {
    let files = vec![
        CrateFile::noise("large", "1.0.0", 1, LARGE),
        CrateFile::noise("small", "1.0.0", 2, 777),
    ];
    let scene = Scene::with(Origin::with(files), settings);
    for file in &scene.origin.files {
        // Once from the upstream, and once from the disk.
        assert_serves(&scene.mirror, file);
        assert_serves(&scene.mirror, file);
    }
    scene
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let scene = scene();
    let [large, small] = &scene.origin.files[..] else {
        panic!("two files");
    };
    let (large_path, small_path) = (large.download_path(), small.download_path());
    let asked = [
        ("GET", large_path.as_str(), ""),
        ("HEAD", &large_path, ""),
        ("GET", &small_path, ""),
        ("GET", "/livez", ""),
        ("GET", &large_path, "Range: bytes=250000-1000000\r\n"),
        ("GET", &large_path, "Range: bytes=-1\r\n"),
        ("GET", "/api/v1/crates/nothing/1.0.0/download", ""),
        ("GET", &large_path, ""),
        ("GET", &small_path, ""),
    ];
    let mut connection = Connection::open(scene.mirror.address).unwrap();
    let requests: String = asked
        .iter()
        .map(|(method, path, more)| format!("{method} {path} HTTP/1.1\r\nHost: h\r\n{more}\r\n"))
        .collect();
    connection.send(requests.as_bytes()).unwrap();
    let (large, small) = (large.bytes(), small.bytes());
    for ((method, path, more), expected) in asked.iter().zip([
        Some(&large[..]),
        Some(&[]),
        Some(&small),
        Some(b"ok\n"),
        Some(&large[250_000..=1_000_000]),
        Some(&large[LARGE - 1..]),
        None,
        Some(&large),
        Some(&small),
    ]) {
        let answer = connection.read_answer(*method == "HEAD").unwrap();
        match expected {
            Some(expected) => assert!(answer.body == expected, "{method} {path} {more}"),
            None => assert_eq!(answer.status, 404),
        }
    }
}

#[test]
fn clients_that_disconnect_in_the_middle_do_not_affect_others() {
    let scene = scene();
    let path = scene.origin.files[0].download_path();
    for read in [1, 1_000, 300_000] {
        let mut connection = Connection::open(scene.mirror.address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        connection.send(request.as_bytes()).unwrap();
        let mut beginning = vec![0; read];
        connection.stream().read_exact(&mut beginning).unwrap();
        drop(connection);
        for file in &scene.origin.files {
            assert_serves(&scene.mirror, file);
        }
    }
}

/// A client that has sent exactly these bytes.
fn ask(scene: &Scene, request: &str) -> Connection {
    let mut connection = Connection::open(scene.mirror.address).unwrap();
    connection.send(request.as_bytes()).unwrap();
    connection
}

#[test]
fn connection_close_ends_the_connection_after_the_file() {
    let scene = scene();
    for file in &scene.origin.files {
        let path = file.download_path();
        for request in [
            format!("GET {path} HTTP/1.0\r\n\r\n"),
            format!("GET {path} HTTP/1.0\r\nHost: h\r\n\r\n"),
            format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
        ] {
            let mut connection = ask(&scene, &request);
            let answer = connection.read_answer(false).unwrap();
            assert_eq!(answer.status, 200, "{request}");
            assert!(answer.body == file.bytes(), "{request}");
            let rest = connection.read_to_end().unwrap();
            assert!(rest.is_empty(), "{request}: {} bytes more", rest.len());
        }
    }
}

#[test]
fn keep_alive_of_http_1_0_keeps_the_connection_after_the_file() {
    let scene = scene();
    let file = &scene.origin.files[0];
    let request = format!(
        "GET {} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        file.download_path()
    );
    let mut connection = ask(&scene, &request.repeat(2));
    for _ in 0..2 {
        let answer = connection.read_answer(false).unwrap();
        assert!(answer.body == file.bytes());
    }
}

/// Truncates a file while it is sent. The client gets the beginning of the file, and then the connection ends.
fn ends_short_when_the_file_is_cut(directory: &Path) {
    let store = TempDir::new_in(directory).unwrap();
    let place = store.path().to_str().unwrap();
    let origin = Origin::with(vec![CrateFile::noise("huge", "1.0.0", 1, HUGE)]);
    let scene = Scene::with(origin, &[("STORAGE_URL", place)]);
    let file = &scene.origin.files[0];
    let held = stored_path(store.path(), &file.checksum());
    assert_eq!(
        scene
            .mirror
            .request("HEAD", &file.download_path(), &[])
            .status,
        200
    );
    let request = format!("GET {} HTTP/1.1\r\nHost: h\r\n\r\n", file.download_path());
    let mut connection = ask(&scene, &request);
    let mut beginning = vec![0; 100_000];
    connection.stream().read_exact(&mut beginning).unwrap();
    let left = u64::try_from(HUGE / 4 * 3).unwrap();
    let cut = File::options().write(true).open(&held).unwrap();
    cut.set_len(left).unwrap();
    // An error is right, too.
    let rest = connection.read_to_end().unwrap_or_default();
    let received = [beginning, rest].concat();
    let head = received
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let body = &received[head + 4..];
    assert!(body.len() < HUGE, "{} bytes came", body.len());
    assert!(body == &file.bytes()[..body.len()], "other bytes");
    drop(connection);
    drop(cut);
    // The next client does not get the rest of the truncated file.
    assert_serves(&scene.mirror, file);
}

#[test]
fn a_file_that_is_truncated_while_it_is_sent_ends_the_connection() {
    ends_short_when_the_file_is_cut(&std::env::temp_dir());
}

#[test]
fn a_file_in_memory_that_is_truncated_while_it_is_sent_ends_the_connection() {
    if Path::new(IN_MEMORY).is_dir() {
        ends_short_when_the_file_is_cut(Path::new(IN_MEMORY));
    }
}

#[test]
fn files_that_are_not_in_the_page_cache_are_sent() {
    let scene = scene();
    let file = &scene.origin.files[0];
    let (path, bytes) = (file.download_path(), file.bytes());
    let held = File::open(stored_path(&scene.store(), &file.checksum())).unwrap();
    held.sync_all().unwrap();
    let forget = || fadvise(&held, 0, None, Advice::DontNeed).unwrap();
    forget();
    assert_serves(&scene.mirror, file);
    forget();
    let headers = [("Range", "bytes=250000-1000000")];
    let part = scene.mirror.request("GET", &path, &headers);
    assert!(part.body == bytes[250_000..=1_000_000]);
    forget();
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut connection = ask(&scene, &request.repeat(3));
    for _ in 0..3 {
        let answer = connection.read_answer(false).unwrap();
        assert!(answer.body == bytes);
        forget();
    }
}

#[test]
fn a_store_in_memory_sends_whole_files_and_parts() {
    if !Path::new(IN_MEMORY).is_dir() {
        return;
    }
    let store = TempDir::new_in(IN_MEMORY).unwrap();
    let place = store.path().to_str().unwrap();
    let scene = scene_with(&[("STORAGE_URL", place)]);
    let file = &scene.origin.files[0];
    for (range, expected) in [
        ("bytes=0-", 0..LARGE),
        ("bytes=100-1000000", 100..1_000_001),
        ("bytes=262144-524287", 262_144..524_288),
        ("bytes=-600000", LARGE - 600_000..LARGE),
    ] {
        let headers = [("Range", range)];
        let part = scene.mirror.request("GET", &file.download_path(), &headers);
        assert_eq!(part.status, 206);
        assert!(part.body == file.bytes()[expected], "{range}");
    }
}
