//! `STORAGE_MAX_BYTES`.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::support::{connect_from, peer, stored_path};

const FILE_LENGTH: usize = 10_000;

/// Space for three and a half files.
const BYTES_MAX: u64 = 35_000;

/// Six files of one length.
fn scene() -> Scene {
    let names = ["one", "two", "three", "four", "five", "six"];
    let files = names
        .iter()
        .zip(1..)
        .map(|(name, seed)| CrateFile::noise(name, "1.0.0", seed, FILE_LENGTH));
    let origin = Origin::with(files.collect());
    let bound = BYTES_MAX.to_string();
    Scene::with(origin, &[("STORAGE_MAX_BYTES", &bound)])
}

#[track_caller]
fn wait_until_just_these_are_held(scene: &Scene, numbers: &[usize]) {
    let expected = numbers
        .iter()
        .map(|number| scene.origin.files[*number].checksum());
    let expected = expected.collect();
    eventually("exactly these files are stored", || {
        scene.held().checksums == expected
    });
}

/// Uses a file at another time than the one before, even if the disk has a coarse clock.
#[track_caller]
fn use_file(scene: &Scene, number: usize) {
    let file = &scene.origin.files[number];
    assert_serves(&scene.mirror, file);
    let path = stored_path(&scene.store(), &file.checksum());
    let before = std::fs::metadata(&path)
        .ok()
        .and_then(|data| data.accessed().ok());
    eventually("the use is recorded", || {
        assert_serves(&scene.mirror, file);
        let now = std::fs::metadata(&path)
            .ok()
            .and_then(|data| data.accessed().ok());
        before.is_none() || now > before
    });
}

/// Asks for a file, and reads only the first bytes of the answer.
fn begin_download(scene: &Scene, number: usize) -> TcpStream {
    let mut client = connect_from(peer(1), scene.mirror.address, Some(4_096)).unwrap();
    let path = scene.origin.files[number].download_path();
    let request = format!("GET {path} HTTP/1.1\r\nHost: mirror\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    let mut begun = [0; 12];
    client.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    client
}

#[test]
fn the_store_stays_within_its_bound() {
    let scene = scene();
    for round in 0..3 {
        for number in 0..6 {
            assert_serves(&scene.mirror, &scene.origin.files[number]);
            // A new file can be there before another one is evicted.
            let most = BYTES_MAX + FILE_LENGTH as u64;
            let held = scene.held();
            assert!(held.bytes <= most, "{round}: {held:?}");
        }
    }
    eventually("the store is within its bound", || {
        scene.held().bytes <= BYTES_MAX
    });
    assert!(scene.held().checksums.len() >= 2, "{:?}", scene.held());
}

#[test]
fn the_least_recently_used_file_is_evicted_first() {
    let scene = scene();
    for number in [0, 1, 2] {
        use_file(&scene, number);
    }
    wait_until_just_these_are_held(&scene, &[0, 1, 2]);
    use_file(&scene, 0);
    use_file(&scene, 3);
    wait_until_just_these_are_held(&scene, &[0, 2, 3]);
    // An evicted file is fetched again.
    assert_serves(&scene.mirror, &scene.origin.files[1]);
    assert_eq!(scene.requests(1), 2);
    assert_eq!(scene.requests(0), 1);
}

#[test]
fn the_order_of_use_survives_a_restart() {
    let scene = scene();
    for number in [0, 1, 2] {
        use_file(&scene, number);
    }
    use_file(&scene, 0);
    let bound = BYTES_MAX.to_string();
    let scene = scene.restarted(&[("STORAGE_MAX_BYTES", &bound)]);
    use_file(&scene, 3);
    wait_until_just_these_are_held(&scene, &[0, 2, 3]);
}

#[test]
fn a_lowered_bound_holds_after_the_next_fetch() {
    let scene = scene();
    for number in [0, 1, 2] {
        assert_serves(&scene.mirror, &scene.origin.files[number]);
    }
    let scene = scene.restarted(&[("STORAGE_MAX_BYTES", "10000")]);
    assert_serves(&scene.mirror, &scene.origin.files[3]);
    wait_until_just_these_are_held(&scene, &[3]);
}

#[test]
fn a_file_larger_than_the_bound_is_served() {
    let scene = scene().restarted(&[("STORAGE_MAX_BYTES", "1000")]);
    for _ in 0..2 {
        assert_serves(&scene.mirror, &scene.origin.files[0]);
        assert_serves(&scene.mirror, &scene.origin.files[1]);
    }
    assert!(scene.held().checksums.is_empty(), "{:?}", scene.held());
}

#[test]
fn a_file_larger_than_the_bound_is_not_stored_and_evicts_nothing() {
    const BOUND: usize = 12 * 1024 * 1024;
    let origin = Origin::with(vec![
        CrateFile::noise("small", "1.0.0", 1, FILE_LENGTH),
        CrateFile::noise("large", "1.0.0", 2, BOUND + 1),
        CrateFile::noise("fits", "1.0.0", 3, BOUND - FILE_LENGTH),
    ]);
    let scene = Scene::with(origin, &[("STORAGE_MAX_BYTES", "12MiB")]);
    for number in [0, 2, 1, 1, 2] {
        assert_serves(&scene.mirror, &scene.origin.files[number]);
    }
    wait_until_just_these_are_held(&scene, &[0, 2]);
    assert_eq!(scene.requests(0), 1);
    assert_eq!(scene.requests(1), 2, "one fetch for each request");
    assert_eq!(scene.requests(2), 1);
    // Requests at the same time share one fetch, and a part of the file can be requested.
    let path = scene.origin.files[1].download_path();
    let part = scene
        .mirror
        .request("GET", &path, &[("range", "bytes=5-9")]);
    assert_eq!(part.status, 206);
    assert_eq!(part.body, scene.origin.files[1].bytes()[5..10]);
    let held = scene.held();
    assert!(held.staged.is_empty(), "{held:?}");
}

#[test]
fn few_files_that_cannot_be_stored_are_open_at_a_time_and_clients_share_them() {
    const BOUND: usize = 6 * 1024 * 1024;
    let names = ["aa", "bb", "cc", "dd", "ee", "ff", "gg", "hh", "ii"];
    let files = names
        .iter()
        .zip(1..)
        .map(|(name, seed)| CrateFile::noise(name, "1.0.0", seed, BOUND + 1));
    let scene = Scene::with(
        Origin::with(files.collect()),
        &[("STORAGE_MAX_BYTES", "6MiB")],
    );
    let files = &scene.origin.files;
    // Each client reads only the first bytes of its answer.
    let begun: Vec<_> = (0..8)
        .map(|number| begin_download(&scene, number))
        .collect();
    for (number, file) in files.iter().enumerate().take(8) {
        assert_serves(&scene.mirror, file);
        assert_eq!(
            scene.requests(number),
            1,
            "the open file serves other clients, too"
        );
    }
    let refused = scene.mirror.get(&files[8].download_path());
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.header("retry-after").is_some());
    assert!(scene.held().staged.is_empty());
    drop(begun);
    eventually("the other clients are gone", || {
        scene.mirror.get(&files[8].download_path()).status == 200
    });
}

#[test]
fn a_lowered_bound_holds_after_the_start() {
    let scene = scene();
    for number in 0..3 {
        use_file(&scene, number);
    }
    let scene = scene.restarted(&[("STORAGE_MAX_BYTES", "10000")]);
    wait_until_just_these_are_held(&scene, &[2]);
}

#[test]
fn foreign_files_in_the_store_stay_and_do_not_disturb_eviction() {
    let store = TempDir::new().unwrap();
    let path = |name: &str| store.path().join(name);
    let origin = Origin::of(1);
    let checksum = origin.files[0].checksum();
    let in_backup = stored_path(Path::new("backup"), &checksum);
    let others = [
        in_backup.to_str().unwrap().to_owned(),
        format!("00/00/{checksum}.crate"),
        "notes.crate#old".to_owned(),
        "uploads/notes.crate#old".to_owned(),
        "ab/cd/notes.crate".to_owned(),
    ];
    for other in &others {
        std::fs::create_dir_all(path(other).parent().unwrap()).unwrap();
        std::fs::write(path(other), [7; 2 * FILE_LENGTH]).unwrap();
    }
    // Two directories that the mirror cannot read: one as at the root of a disk, one where crate files would be. Root
    // can read them.
    let closed = [path("lost+found"), path("ef")];
    for directory in &closed {
        std::fs::create_dir(directory).unwrap();
        set_mode(directory, 0o000);
    }

    let names = ["one", "two", "three", "four", "five", "six"];
    let files = names
        .iter()
        .zip(1..)
        .map(|(name, seed)| CrateFile::noise(name, "1.0.0", seed, FILE_LENGTH));
    let origin = Origin::with(files.collect());
    let bound = BYTES_MAX.to_string();
    let settings = [
        ("STORAGE_MAX_BYTES", bound.as_str()),
        ("STORAGE_URL", store.path().to_str().unwrap()),
    ];
    let scene = Scene::with(origin, &settings);
    for file in &scene.origin.files {
        assert_serves(&scene.mirror, file);
    }
    let files = &scene.origin.files;
    eventually("the store is within its bound", || {
        let held = files
            .iter()
            .filter(|file| stored_path(store.path(), &file.checksum()).exists());
        (2..=3).contains(&held.count())
    });
    for other in &others {
        assert!(path(other).exists(), "{other}");
    }
    for directory in &closed {
        assert!(directory.is_dir());
        set_mode(directory, 0o700);
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
