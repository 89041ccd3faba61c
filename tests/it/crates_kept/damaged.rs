//! Stored files that were damaged, truncated, removed or replaced.

use std::fs;
use std::time::SystemTime;

use super::*;
use crate::support::stored_path;

/// A mirror with one file, which is stored, and the path of the stored file.
fn holding() -> (Scene, PathBuf) {
    let scene = Scene::of(1);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    let path = stored_path(&scene.store(), &scene.origin.files[0].checksum());
    assert!(path.is_file());
    (scene, path)
}

/// `damage` changes the stored file while the mirror is stopped. Then the mirror fetches the file once more.
#[track_caller]
fn is_fetched_again_after(damage: impl FnOnce(&Path)) {
    let (scene, path) = holding();
    let Scene {
        mirror: stopping,
        origin,
        data,
    } = scene;
    stopping.stop();
    damage(&path);
    let mirror = mirror(&origin, data.path(), &[], |_config| ());
    let scene = Scene {
        mirror,
        origin,
        data,
    };
    // A `304` needs no bytes, so it would show nothing. A part is verified before it is sent, too.
    let path = scene.origin.files[0].download_path();
    let part = scene
        .mirror
        .request("GET", &path, &[("Range", "bytes=0-9")]);
    assert_eq!(part.status, 206, "{part:?}");
    assert!(part.body == scene.origin.files[0].bytes()[..10]);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!(scene.requests(0), 2);
    scene.ends_well();
}

#[test]
fn a_file_with_a_changed_byte_is_fetched_again() {
    is_fetched_again_after(|path| {
        let mut bytes = fs::read(path).unwrap();
        bytes[20] ^= 1;
        fs::write(path, bytes).unwrap();
    });
}

#[test]
fn a_truncated_file_is_fetched_again() {
    is_fetched_again_after(|path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    });
}

#[test]
fn an_empty_file_is_fetched_again() {
    is_fetched_again_after(|path| fs::write(path, b"").unwrap());
}

#[test]
fn a_removed_file_is_fetched_again() {
    is_fetched_again_after(|path| fs::remove_file(path).unwrap());
}

#[test]
fn a_damaged_file_is_not_served_when_it_cannot_be_fetched_again() {
    let (scene, path) = holding();
    let Scene {
        mirror: stopping,
        mut origin,
        data,
    } = scene;
    stopping.stop();
    origin.upstream.stop();
    fs::write(path, b"damaged").unwrap();
    let mirror = mirror(&origin, data.path(), &[], |_config| ());
    assert_fails(&mirror.get(&origin.files[0].download_path()), 502);
    origin.upstream.restart();
    Scene {
        mirror,
        origin,
        data,
    }
    .ends_well();
}

#[test]
fn an_incomplete_file_is_never_served_and_the_next_start_removes_it() {
    let origin = Origin::of(1);
    let file = &origin.files[0];
    let data = TempDir::new().unwrap();
    let store = data.path().join("crates");
    // A process that was killed between two writes leaves such a file.
    let staged = store.join(format!("uploads/{}-0123456789abcdef#1", file.checksum()));
    fs::create_dir_all(staged.parent().unwrap()).unwrap();
    fs::write(&staged, &file.bytes()[..100]).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let times = fs::FileTimes::new().set_modified(long_ago);
    let leftover = fs::File::options().write(true).open(&staged);
    leftover.unwrap().set_times(times).unwrap();
    let mirror = mirror(&origin, data.path(), &[], |_config| ());
    assert_serves(&mirror, file);
    eventually("the incomplete file is removed", || {
        StoredFiles::look(&store).staged.is_empty()
    });
    let scene = Scene {
        mirror,
        origin,
        data,
    };
    assert_eq!(scene.requests(0), 1);
    scene.ends_well();
}

#[test]
fn a_file_removed_while_the_mirror_runs_is_still_served() {
    let (scene, path) = holding();
    fs::remove_file(path).unwrap();
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
}

#[test]
fn a_store_removed_while_the_mirror_runs_is_created_again() {
    let scene = Scene::of(2);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    fs::remove_dir_all(scene.store()).unwrap();
    for number in [1, 0, 1, 0] {
        assert_serves(&scene.mirror, &scene.origin.files[number]);
    }
    wait_until_stored(&scene.store(), &scene.origin.files[1]);
    scene.restarted(&[]).ends_well();
}

#[test]
fn files_are_served_although_a_file_is_in_the_place_of_the_store() {
    let scene = Scene::of(2);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    fs::remove_dir_all(scene.store()).unwrap();
    fs::write(scene.store(), b"in the way").unwrap();
    for number in [1, 1] {
        assert_serves(&scene.mirror, &scene.origin.files[number]);
    }
    fs::remove_file(scene.store()).unwrap();
    assert_serves(&scene.mirror, &scene.origin.files[1]);
    wait_until_stored(&scene.store(), &scene.origin.files[1]);
}
