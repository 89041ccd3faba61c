//! Files that the system sends by itself: they must be whole, in order, and in nobody else's answer.

use super::*;
use crate::support::Connection;

/// Larger than what is sent at a time, and no multiple of it.
const LARGE: usize = 1_300_007;

fn scene() -> Scene {
    let files = vec![
        CrateFile::noise("large", "1.0.0", 1, LARGE),
        CrateFile::noise("small", "1.0.0", 2, 777),
    ];
    let scene = Scene::with(Origin::with(files), &[]);
    for file in &scene.origin.files {
        // Once from the upstream, once from the disk.
        assert_serves(&scene.mirror, file);
        assert_serves(&scene.mirror, file);
    }
    scene
}

#[test]
fn answers_that_were_asked_for_at_once_come_in_order_with_their_own_bytes() {
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
fn clients_that_leave_in_the_middle_spoil_nothing_for_others() {
    let scene = scene();
    let path = scene.origin.files[0].download_path();
    for read in [1, 1_000, 300_000] {
        let mut connection = Connection::open(scene.mirror.address).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        connection.send(request.as_bytes()).unwrap();
        let mut beginning = vec![0; read];
        std::io::Read::read_exact(&mut connection.stream(), &mut beginning).unwrap();
        drop(connection);
        for file in &scene.origin.files {
            assert_serves(&scene.mirror, file);
        }
    }
}
