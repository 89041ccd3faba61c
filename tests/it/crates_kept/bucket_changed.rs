//! Objects that somebody else changes, removes or damages while the mirror runs.

use std::fs;

use super::bucket::{LARGE_LENGTH, scene, small_and_large};
use super::counted::count;
use super::*;
use crate::support::{Connection, S3Fault, S3Server, stored_path};

/// A bucket with two files, and a mirror that knows that they are stored.
fn knowing() -> (Scene, S3Server) {
    let bucket = S3Server::start();
    let scene = scene(&bucket, small_and_large());
    for _ in 0..2 {
        for file in &scene.origin.files {
            assert_serves(&scene.mirror, file);
        }
    }
    (scene, bucket)
}

/// Changes every object.
fn change(scene: &Scene, bucket: &S3Server, change: impl Fn(&Path, Vec<u8>)) {
    for file in &scene.origin.files {
        let path = stored_path(&bucket.bucket(), &file.checksum());
        assert!(path.is_file());
        change(&path, file.bytes());
    }
}

/// The mirror sends the right bytes of both files, and has fetched each once more.
#[track_caller]
fn is_fetched_again(scene: &Scene, bucket: &S3Server) {
    for (number, file) in scene.origin.files.iter().enumerate() {
        assert_serves(&scene.mirror, file);
        assert_serves(&scene.mirror, file);
        assert_eq!(scene.requests(number), 2);
    }
    assert_eq!(StoredFiles::look(&bucket.bucket()).checksums.len(), 2);
    assert_eq!(count(&scene.mirror, "store_failures_total"), 0);
}

/// Neither answer is complete, and both objects are removed.
#[track_caller]
fn assert_cut_and_removed(scene: &Scene, bucket: &S3Server) {
    for file in &scene.origin.files {
        let answer = scene.mirror.try_request("GET", &file.download_path(), &[]);
        assert!(answer.is_err(), "{}: {answer:?}", file.name);
        let path = stored_path(&bucket.bucket(), &file.checksum());
        eventually("the damaged object is removed", || !path.exists());
    }
}

/// Changes one byte of every object. Writes objects that the mirror has removed again.
fn damage(scene: &Scene, bucket: &S3Server, place: usize) {
    for file in &scene.origin.files {
        let mut bytes = file.bytes();
        bytes[place] ^= 1;
        fs::write(stored_path(&bucket.bucket(), &file.checksum()), bytes).unwrap();
    }
}

#[test]
fn a_damaged_object_is_never_sent_completely_and_is_removed() {
    let (scene, bucket) = knowing();
    for place in [0, 20] {
        let before = count(&scene.mirror, "store_damaged_files_total");
        damage(&scene, &bucket, place);
        assert_cut_and_removed(&scene, &bucket);
        let damaged = count(&scene.mirror, "store_damaged_files_total") - before;
        assert_eq!(damaged, 2);
        for file in &scene.origin.files {
            assert_serves(&scene.mirror, file);
        }
    }
    assert_eq!(StoredFiles::look(&bucket.bucket()).checksums.len(), 2);
}

#[test]
fn an_object_of_another_length_is_never_sent_completely() {
    for change_of in [
        |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2),
        |bytes: &mut Vec<u8>| {
            bytes[20] ^= 1;
            bytes.extend_from_slice(&[7; 100_000]);
        },
    ] {
        let (scene, bucket) = knowing();
        change(&scene, &bucket, |path, mut bytes| {
            change_of(&mut bytes);
            fs::write(path, bytes).unwrap();
        });
        assert_cut_and_removed(&scene, &bucket);
        is_fetched_again(&scene, &bucket);
    }
}

#[test]
fn an_empty_object_counts_as_missing() {
    let (scene, bucket) = knowing();
    change(&scene, &bucket, |path, _bytes| {
        fs::write(path, b"").unwrap();
    });
    is_fetched_again(&scene, &bucket);
}

#[test]
fn a_removed_object_is_fetched_again() {
    let (scene, bucket) = knowing();
    change(&scene, &bucket, |path, _bytes| {
        fs::remove_file(path).unwrap();
    });
    // A request for a part also fetches the file.
    let path = scene.origin.files[0].download_path();
    let headers = [("Range", "bytes=5-9")];
    let part = scene.mirror.request("GET", &path, &headers);
    assert_eq!(part.status, 206, "{part:?}");
    assert!(part.body == scene.origin.files[0].bytes()[5..10]);
    is_fetched_again(&scene, &bucket);
}

#[test]
fn an_offline_mirror_leaves_damaged_objects_and_answers_404_for_removed_ones() {
    let (scene, bucket) = knowing();
    let its = bucket.settings();
    let mut settings = borrowed(&its);
    settings.push(("DOWNLOAD_MODE", "offline"));
    let scene = scene.restarted(&settings);
    for file in &scene.origin.files {
        assert_serves(&scene.mirror, file);
    }
    damage(&scene, &bucket, 20);
    let path = scene.origin.files[0].download_path();
    for _ in 0..2 {
        let damaged = scene.mirror.try_request("GET", &path, &[]);
        assert!(damaged.is_err(), "{damaged:?}");
    }
    change(&scene, &bucket, |path, _bytes| {
        fs::remove_file(path).unwrap();
    });
    for number in 0..2 {
        assert_fails(&scene.download(number), 404);
    }
}

/// The ways to ask for a part. `{tag}` is the tag of the file.
const PARTS: [&[(&str, &str)]; 6] = [
    &[("Range", "bytes=1-")],
    &[("Range", "bytes=-5")],
    &[("Range", "bytes=0-0")],
    &[("Range", "bytes=100-199")],
    &[("Range", "bytes=21-"), ("If-Range", "{tag}")],
    &[("Range", "bytes=1-2,5-6")],
];

fn part(mirror: &Client, file: &CrateFile, headers: &[(&str, &str)]) -> std::io::Result<Answer> {
    let tag = format!("\"{}\"", file.checksum());
    let headers: Vec<(&str, &str)> = headers
        .iter()
        .map(|(name, value)| (*name, if *value == "{tag}" { &*tag } else { *value }))
        .collect();
    mirror.try_request("GET", &file.download_path(), &headers)
}

#[test]
fn no_damaged_part_of_an_object_is_sent() {
    let (mut scene, bucket) = knowing();
    // If the file can be fetched again, the mirror fetches it and sends the part.
    for (headers, file) in PARTS.iter().zip(scene.origin.files.iter().cycle()).take(2) {
        damage(&scene, &bucket, 20);
        let answer = part(&scene.mirror, file, headers).unwrap();
        assert_eq!(answer.status, 206, "{headers:?}");
        let wanted = answer.header("content-range").unwrap();
        let start = if wanted.starts_with("bytes 1-") {
            1
        } else {
            file.bytes().len() - 5
        };
        assert!(answer.body == file.bytes()[start..], "{headers:?}");
    }
    scene.origin.upstream.stop();
    let its = bucket.settings();
    let mut settings = borrowed(&its);
    settings.push(("DOWNLOAD_MODE", "offline"));
    let data = TempDir::new().unwrap();
    let offline = mirror(&scene.origin, data.path(), &settings, |_config| ());
    for mirror in [&scene.mirror, &offline] {
        for headers in PARTS {
            damage(&scene, &bucket, 20);
            for file in &scene.origin.files {
                // A truncated answer is an error. Undamaged blocks of a file that was right before may be sent.
                if let Ok(answer) = part(mirror, file, headers)
                    && answer.status < 500
                {
                    let tail = file.bytes().split_off(file.bytes().len() - 5);
                    assert_eq!(headers, &[("Range", "bytes=-5")], "{answer:?}");
                    assert!(answer.body == tail && file.bytes().len() == LARGE_LENGTH);
                }
            }
        }
        damage(&scene, &bucket, 20);
        for file in &scene.origin.files {
            let headers = [("Range", "bytes=1-")];
            let head = mirror.request("HEAD", &file.download_path(), &headers);
            assert!(head.body.is_empty());
        }
    }
}

#[test]
fn parts_cost_one_read_of_the_whole_file_and_a_later_change_is_noticed() {
    let (scene, bucket) = knowing();
    let file = &scene.origin.files[1];
    let before = bucket.read_whole().len();
    for headers in PARTS.iter().cycle().take(12) {
        let answer = part(&scene.mirror, file, headers).unwrap();
        assert!(matches!(answer.status, 200 | 206), "{answer:?}");
    }
    // One of the six ways asks for the whole file. The parts cost one read.
    let read = bucket.read_whole().len() - before;
    assert_eq!(read, 1 + 2, "reads of the whole file");
    let mut bytes = file.bytes();
    bytes[20] ^= 1;
    fs::write(stored_path(&bucket.bucket(), &file.checksum()), bytes).unwrap();
    let spoilt = part(&scene.mirror, file, &[("Range", "bytes=0-99")]);
    assert!(spoilt.is_err(), "{spoilt:?}");
    let start = LARGE_LENGTH - 5;
    let sound = part(&scene.mirror, file, &[("Range", "bytes=-5")]).unwrap();
    assert!(sound.body == file.bytes()[start..]);
    let repaired = part(&scene.mirror, file, &[("Range", "bytes=0-99")]).unwrap();
    assert!(repaired.body == file.bytes()[..100]);
}

#[test]
fn a_peer_that_wants_parts_of_many_files_leaves_another_peer_its_turn() {
    /// How many files are read in full at a time.
    const AT_A_TIME: usize = 8;
    let bucket = S3Server::start();
    let its = bucket.settings();
    let mut settings = borrowed(&its);
    settings.push(("TRUSTED_PROXIES", "127.0.0.1"));
    let scene = Scene::with(Origin::of(2 * AT_A_TIME + 1), &settings);
    for file in &scene.origin.files {
        assert_serves(&scene.mirror, file);
    }
    let before = bucket.read_whole().len();
    bucket.set(S3Fault::HangOnFiles);
    let ask = |file: &CrateFile, peer: &str| {
        let mut connection = Connection::open(scene.mirror.address).unwrap();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: h\r\nRange: bytes=1-\r\nX-Forwarded-For: {peer}\r\n\r\n",
            file.download_path()
        );
        connection.send(request.as_bytes()).unwrap();
        connection
    };
    let (last, others) = scene.origin.files.split_last().unwrap();
    let mut asking: Vec<_> = others.iter().map(|file| ask(file, "192.0.2.1")).collect();
    eventually("all permits are taken", || {
        bucket.read_whole().len() == before + AT_A_TIME
    });
    asking.push(ask(last, "192.0.2.2"));
    // The mirror still answers while these requests wait for their turn. The scrape is one of the requests.
    eventually("all requests have arrived", || {
        count(&scene.mirror, "http_requests_in_flight") == asking.len() as u64 + 1
    });
    bucket.set(S3Fault::None);
    for mut connection in asking {
        assert_eq!(connection.read_answer(false).unwrap().status, 206);
    }
    let order = bucket.read_whole().split_off(before);
    let place = order
        .iter()
        .position(|path| path.contains(&last.checksum()));
    // On a busy machine a request that has arrived may ask for its permit late, so a few others can come first. In the order
    // of arrival it would be the last one.
    assert!(
        place.unwrap() <= AT_A_TIME + 4,
        "{place:?} of {}",
        order.len()
    );
}
