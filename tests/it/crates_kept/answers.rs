//! Answers to downloads: headers, ranges, conditions.

use super::*;
use crate::support::stored_path;

/// A stored file: its mirror, its path and its bytes.
fn scene() -> (Scene, String, Vec<u8>) {
    let scene = Scene::of(1);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    let (path, bytes) = {
        let file = &scene.origin.files[0];
        (file.download_path(), file.bytes())
    };
    (scene, path, bytes)
}

fn etag(scene: &Scene) -> String {
    format!("\"{}\"", scene.origin.files[0].checksum())
}

#[test]
fn a_download_has_all_its_headers() {
    let (scene, path, bytes) = scene();
    let commit = scene.origin.index.head();
    for method in ["GET", "HEAD"] {
        let answer = scene.mirror.request(method, &path, &[]);
        assert_eq!(answer.status, 200);
        let length = bytes.len().to_string();
        for (name, value) in [
            ("content-length", length.as_str()),
            ("content-type", "application/gzip"),
            ("etag", &etag(&scene)),
            ("cache-control", CACHE_CONTROL),
            ("accept-ranges", "bytes"),
            ("x-index-commit", &commit),
        ] {
            assert_eq!(answer.header(name), Some(value), "{method}: {answer:?}");
        }
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.header("transfer-encoding"), None);
        let expected = if method == "HEAD" { &[][..] } else { &bytes };
        assert!(answer.body == expected);
    }
}

#[test]
fn the_api_tells_the_size_of_a_file_as_soon_as_it_is_stored_and_soon_if_another_process_stored_it()
{
    let scene = Scene::of(2);
    let size = |number: usize| {
        let path = scene.origin.files[number].download_path();
        let path = path.strip_suffix("/download").unwrap();
        scene.mirror.get(path).json()["version"]["crate_size"].as_u64()
    };
    let [first, second] = &scene.origin.files[..] else {
        panic!("two files");
    };
    assert_eq!((size(0), size(1), size(0)), (Some(0), Some(0), Some(0)));
    assert_serves(&scene.mirror, first);
    wait_until_stored(&scene.store(), first);
    let bytes = Some(first.bytes().len() as u64);
    // The file is in its place before it is counted.
    eventually("the size is known", || size(0) == bytes);
    assert_eq!(size(1), Some(0));
    let place = |file: &CrateFile| stored_path(&scene.store(), &file.checksum());
    std::fs::create_dir_all(place(second).parent().unwrap()).unwrap();
    std::fs::write(place(second), second.bytes()).unwrap();
    eventually("the other process's file is noticed", || {
        size(1) == Some(second.bytes().len() as u64)
    });
}

#[test]
fn the_paths_of_the_cdn_answer_like_the_download_route() {
    let scene = Scene::of(2);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    // The second file is stored nowhere.
    let scene = scene.restarted(&[("DOWNLOAD_MODE", "offline")]);
    for (file, status) in scene.origin.files.iter().zip([200, 404]) {
        let expected = file.download_path();
        for path in [&file.path(), expected.strip_prefix("/api/v1").unwrap()] {
            for (method, headers) in [
                ("GET", &[][..]),
                ("HEAD", &[]),
                ("GET", &[("range", "bytes=1-2")]),
            ] {
                let expected = scene.mirror.request(method, &expected, headers);
                let answer = scene.mirror.request(method, path, headers);
                if headers.is_empty() {
                    assert_eq!(answer.status, status, "{method} {path}");
                }
                assert_eq!(answer.status, expected.status, "{method} {path}");
                assert!(answer.body == expected.body, "{method} {path}");
                for name in ["etag", "content-length", "cache-control", "content-range"] {
                    let (own, its) = (answer.header(name), expected.header(name));
                    assert_eq!(own, its, "{method} {path}");
                }
            }
        }
    }
}

#[test]
fn a_head_of_a_missing_file_is_like_that_of_a_stored_file() {
    let scene = Scene::of(1);
    let file = &scene.origin.files[0];
    let answer = scene.mirror.request("HEAD", &file.download_path(), &[]);
    assert_eq!(answer.status, 200);
    let length = file.bytes().len().to_string();
    assert_eq!(answer.header("content-length"), Some(length.as_str()));
    assert_eq!(answer.header("etag"), Some(etag(&scene).as_str()));
    assert_serves(&scene.mirror, file);
}

#[test]
fn a_crate_file_is_never_compressed_again() {
    let (scene, path, bytes) = scene();
    for encoding in ["gzip", "gzip, deflate, br, zstd", "*"] {
        let headers = [("Accept-Encoding", encoding)];
        let answer = scene.mirror.request("GET", &path, &headers);
        assert_eq!(answer.header("content-encoding"), None, "{answer:?}");
        assert!(answer.body == bytes);
    }
}

#[test]
fn a_client_can_ask_for_a_part_of_a_file() {
    let (scene, path, bytes) = scene();
    let length = bytes.len();
    for (range, expected) in [
        ("bytes=0-0".to_owned(), 0..1),
        ("bytes=10-19".to_owned(), 10..20),
        ("bytes=10-".to_owned(), 10..length),
        ("bytes=-7".to_owned(), length - 7..length),
        (format!("bytes=0-{}", length * 2), 0..length),
        (format!("bytes=-{}", length * 2), 0..length),
    ] {
        let headers = [("Range", range.as_str())];
        let answer = scene.mirror.request("GET", &path, &headers);
        assert_eq!(answer.status, 206, "{range}: {answer:?}");
        let (first, last) = (expected.start, expected.end - 1);
        let shown = format!("bytes {first}-{last}/{length}");
        assert_eq!(answer.header("content-range"), Some(shown.as_str()));
        let part = expected.len().to_string();
        assert_eq!(answer.header("content-length"), Some(part.as_str()));
        assert_eq!(answer.header("etag"), Some(etag(&scene).as_str()));
        assert!(answer.body == bytes[expected], "{range}");
        // A range has a meaning for GET only (RFC 9110, 14.2).
        let head = scene.mirror.request("HEAD", &path, &headers);
        assert_eq!(head.status, 200, "{range}: {head:?}");
    }
}

#[test]
fn a_range_beyond_the_end_gives_416() {
    let (scene, path, bytes) = scene();
    let length = bytes.len();
    for range in [format!("bytes={length}-"), "bytes=-0".to_owned()] {
        let headers = [("Range", range.as_str())];
        let answer = scene.mirror.request("GET", &path, &headers);
        assert_eq!(answer.status, 416, "{range}: {answer:?}");
        let shown = format!("bytes */{length}");
        assert_eq!(answer.header("content-range"), Some(shown.as_str()));
        let cached = answer.header("cache-control").unwrap_or_default();
        assert!(!cached.contains("immutable"), "{answer:?}");
    }
}

#[test]
fn an_invalid_range_gives_the_whole_file() {
    let (scene, path, bytes) = scene();
    for range in [
        "bytes=",
        "bytes=a-b",
        "bytes=9-3",
        "pages=1-2",
        "0-5",
        "bytes=--1",
    ] {
        let answer = scene.mirror.request("GET", &path, &[("Range", range)]);
        assert_eq!(answer.status, 200, "{range}: {answer:?}");
        assert!(answer.body == bytes, "{range}");
    }
}

#[test]
fn several_ranges_give_the_whole_file() {
    let (scene, path, bytes) = scene();
    let headers = [("Range", "bytes=0-1,4-5")];
    let answer = scene.mirror.request("GET", &path, &headers);
    // A server may ignore a request for several ranges.
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(answer.body == bytes);
}

#[test]
fn a_range_counts_only_if_if_range_names_the_current_file() {
    let (scene, path, bytes) = scene();
    let (same, weak) = (etag(&scene), format!("W/{}", etag(&scene)));
    let other = format!("\"{}\"", "0".repeat(64));
    for (condition, status) in [
        (same.as_str(), 206),
        (other.as_str(), 200),
        // A weak tag never matches a range.
        (weak.as_str(), 200),
        ("Sat, 01 Jan 2050 00:00:00 GMT", 200),
    ] {
        let headers = [("Range", "bytes=5-8"), ("If-Range", condition)];
        let answer = scene.mirror.request("GET", &path, &headers);
        assert_eq!(answer.status, status, "{condition}: {answer:?}");
        let expected = if status == 206 { &bytes[5..9] } else { &bytes };
        assert!(answer.body == expected, "{condition}");
    }
}

#[test]
fn a_client_that_has_the_file_gets_304() {
    let (mut scene, path, _bytes) = scene();
    scene.origin.upstream.stop();
    let etag = etag(&scene);
    for condition in [
        etag.clone(),
        format!("W/{etag}"),
        format!("\"other\", {etag}"),
        "*".to_owned(),
    ] {
        for method in ["GET", "HEAD"] {
            // The condition comes before the range.
            let headers = [
                ("If-None-Match", condition.as_str()),
                ("Range", "bytes=0-1"),
            ];
            let answer = scene.mirror.request(method, &path, &headers);
            assert_eq!(answer.status, 304, "{condition}: {answer:?}");
            assert_eq!(answer.header("etag"), Some(etag.as_str()));
            assert_eq!(answer.header("cache-control"), Some(CACHE_CONTROL));
            assert!(answer.header("x-index-commit").is_some());
            assert!(answer.body.is_empty());
        }
    }
    let headers = [("If-None-Match", "\"other\"")];
    let answer = scene.mirror.request("GET", &path, &headers);
    assert_eq!(answer.status, 200);
}

#[test]
fn a_client_that_asks_for_json_gets_a_url_that_works() {
    let (scene, path, bytes) = scene();
    let headers = [("Accept", "application/json")];
    let answer = scene.mirror.request("GET", &path, &headers);
    assert_eq!(answer.status, 200);
    if answer.header("content-type") == Some("application/json") {
        let json = answer.json();
        let url = json["url"].as_str().unwrap();
        let base = format!("http://{}", scene.mirror.address);
        let path = url.strip_prefix(&base).unwrap();
        assert!(scene.mirror.get(path).body == bytes);
    } else {
        assert!(answer.body == bytes);
    }
}

#[test]
fn another_spelling_of_the_name_gives_the_same_file() {
    let origin = Origin::with(vec![CrateFile::pack("Mixed_Case", "1.2.3", &[])]);
    let scene = Scene::with(origin, &[]);
    let file = &scene.origin.files[0];
    assert_serves(&scene.mirror, file);
    for name in ["mixed_case", "MIXED_CASE"] {
        let path = format!("/api/v1/crates/{name}/1.2.3/download");
        let answer = scene.mirror.get(&path);
        assert_eq!(answer.status, 200, "{name}: {answer:?}");
        assert!(answer.body == file.bytes());
    }
    assert_eq!(scene.origin.fetched(), [file.path()]);
}
