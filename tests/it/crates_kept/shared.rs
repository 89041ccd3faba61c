//! Several mirrors with one store, and a store in memory.

use super::*;
use crate::support::{Program, S3Server};

/// So large that most of the file is not in memory during a fetch.
const LARGE_LENGTH: usize = 11 * 512 * 1024;

/// Two mirrors of one origin, with the same settings.
struct Pair {
    mirrors: [Mirror; 2],
    origin: Origin,
    _data: [TempDir; 2],
}

impl Pair {
    fn start(origin: Origin, settings: &[(&str, &str)]) -> Self {
        let data = [TempDir::new().unwrap(), TempDir::new().unwrap()];
        let start = |data: &TempDir| mirror(&origin, data.path(), settings, |_config| ());
        Self {
            mirrors: [start(&data[0]), start(&data[1])],
            origin,
            _data: data,
        }
    }

    /// Both mirrors serve all files at the same time. Then each serves all files without the upstream.
    #[track_caller]
    fn serve_everything(&mut self) {
        std::thread::scope(|threads| {
            for mirror in &self.mirrors {
                let files = &self.origin.files;
                threads.spawn(move || {
                    for file in files {
                        assert_serves(mirror, file);
                    }
                });
            }
        });
        let fetches = self.origin.fetched().len();
        let files = self.origin.files.len();
        assert!((files..=2 * files).contains(&fetches), "{fetches}");
        self.origin.upstream.stop();
        for mirror in &self.mirrors {
            for file in &self.origin.files {
                assert_serves(mirror, file);
            }
        }
    }
}

#[test]
fn two_mirrors_share_a_directory() {
    let store = TempDir::new().unwrap();
    let settings = [("STORAGE_URL", store.path().to_str().unwrap())];
    let mut pair = Pair::start(Origin::of(20), &settings);
    pair.serve_everything();
    let held = StoredFiles::look(store.path());
    assert_eq!(held.checksums.len(), 20);
    assert!(held.staged.is_empty(), "{held:?}");
}

#[test]
fn a_file_that_one_mirror_has_fetched_is_not_fetched_by_the_other() {
    let store = TempDir::new().unwrap();
    let settings = [("STORAGE_URL", store.path().to_str().unwrap())];
    let pair = Pair::start(Origin::of(1), &settings);
    for mirror in &pair.mirrors {
        assert_serves(mirror, &pair.origin.files[0]);
    }
    assert_eq!(pair.origin.fetched().len(), 1);
}

#[test]
fn a_mirror_that_starts_leaves_the_incomplete_file_of_another_one() {
    let store = TempDir::new().unwrap();
    let settings = [("STORAGE_URL", store.path().to_str().unwrap())];
    let large = CrateFile::noise("large", "1.0.0", 1, LARGE_LENGTH);
    let scene = Scene::with(Origin::with(vec![large]), &settings);
    let file = &scene.origin.files[0];
    scene.origin.upstream.fail(UpstreamFault::HangsMidBody);
    std::thread::scope(|threads| {
        let asking = threads.spawn(|| assert_serves(&scene.mirror, file));
        eventually("a part of the file is on the disk", || {
            !StoredFiles::look(store.path()).staged.is_empty()
        });
        let data = TempDir::new().unwrap();
        let second = mirror(&scene.origin, data.path(), &settings, |_config| ());
        assert!(!StoredFiles::look(store.path()).staged.is_empty());
        scene.origin.upstream.open_gate();
        asking.join().unwrap();
        assert_serves(&second, file);
    });
    assert!(StoredFiles::look(store.path()).staged.is_empty());
}

/// The program with its data in `data`.
fn program(origin: &Origin, data: &Path, more: &[(&str, &str)]) -> Program {
    let own = origin.settings();
    let mut settings = borrowed(&own);
    settings.push(("DATA_DIR", data.to_str().unwrap()));
    settings.extend(more);
    Program::start(&settings)
}

/// The upstream hangs in the middle of a large file. Then `meanwhile` runs, and the upstream continues. No incomplete
/// file is found at any time, and the file is served in the end. Returns the answer to the request that waited.
fn hangs_while(first: &Program, origin: &Origin, store: &Path, meanwhile: impl FnOnce()) -> Answer {
    let file = &origin.files[0];
    origin.upstream.fail_times(1, UpstreamFault::HangsMidBody);
    let answer = std::thread::scope(|threads| {
        let asking = threads.spawn(|| first.get(&file.download_path()));
        eventually("a part of the file is on the disk", || {
            !StoredFiles::look(store).staged.is_empty()
        });
        meanwhile();
        // `look` fails if an incomplete file has a key.
        drop(StoredFiles::look(store));
        origin.upstream.open_gate();
        asking.join().unwrap()
    });
    if answer.status == 200 {
        assert!(answer.body == file.bytes());
    } else {
        assert_fails(&answer, 503);
    }
    assert_serves(first, file);
    let held = StoredFiles::look(store);
    assert_eq!(held.checksums, [file.checksum()].into());
    assert!(held.staged.is_empty(), "{held:?}");
    answer
}

#[test]
fn two_processes_with_one_store_can_assemble_the_same_file_at_the_same_time() {
    let origin = Origin::with(vec![CrateFile::noise("large", "1.0.0", 1, LARGE_LENGTH)]);
    let data = [TempDir::new().unwrap(), TempDir::new().unwrap()];
    let store = TempDir::new().unwrap();
    let more = [("STORAGE_URL", store.path().to_str().unwrap())];
    let first = program(&origin, data[0].path(), &more);
    first.wait_until_ready();
    let answer = hangs_while(&first, &origin, store.path(), || {
        let second = program(&origin, data[1].path(), &more);
        second.wait_until_ready();
        assert_serves(&second, &origin.files[0]);
        assert_eq!(StoredFiles::look(store.path()).checksums.len(), 1);
    });
    assert_eq!(answer.status, 200);
    assert_eq!(origin.fetched().len(), 2);
}

#[test]
fn a_second_process_with_the_same_data_costs_at_most_one_fetch() {
    let origin = Origin::with(vec![CrateFile::noise("large", "1.0.0", 1, LARGE_LENGTH)]);
    let data = TempDir::new().unwrap();
    let store = data.path().join("crates");
    let first = program(&origin, data.path(), &[]);
    first.wait_until_ready();
    let mut second = None;
    hangs_while(&first, &origin, &store, || {
        // The second process takes the file for a remainder of a crash. Two deployed versions can overlap for a short
        // time.
        second = Some(program(&origin, data.path(), &[]));
        eventually("the incomplete file is removed", || {
            StoredFiles::look(&store).staged.is_empty()
        });
    });
}

#[test]
fn two_mirrors_share_a_bucket() {
    let bucket = S3Server::start();
    let its = bucket.settings();
    let settings = borrowed(&its);
    let mut pair = Pair::start(Origin::of(10), &settings);
    pair.serve_everything();
    let held = StoredFiles::look(&bucket.bucket());
    assert_eq!(held.checksums.len(), 10);
}

#[test]
fn a_store_in_memory_serves_and_leaves_nothing_on_the_disk() {
    let mut scene = Scene::with(Origin::of(3), &[("STORAGE_URL", "memory://")]);
    for file in &scene.origin.files {
        assert_serves(&scene.mirror, file);
    }
    scene.origin.upstream.stop();
    for file in &scene.origin.files {
        assert_serves(&scene.mirror, file);
    }
    assert!(!scene.store().exists());
}
