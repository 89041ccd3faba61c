//! Disks that are full or read-only.

use super::*;
use crate::support::{Disk, DiskMade, Program};

/// The size of the small disk.
const DISK_KIB: u64 = 2048;

/// More than a fallback disk takes. Three such files are more than the small disk takes.
const MEDIUM_LENGTH: usize = 900 * 1024;

/// More than the small disk takes, and more than a fetch keeps in memory.
const LARGE_LENGTH: usize = 11 * 512 * 1024;

struct Scene {
    program: Program,
    made: DiskMade,
    origin: Origin,
    directory: TempDir,
    _data: TempDir,
}

/// A small file, three of medium size, and a large one.
fn scene(disk: Disk) -> Scene {
    let noise = CrateFile::noise;
    let origin = Origin::with(vec![
        CrateFile::numbered(0),
        noise("medium-1", "1.0.0", 1, MEDIUM_LENGTH),
        noise("medium-2", "1.0.0", 2, MEDIUM_LENGTH),
        noise("medium-3", "1.0.0", 3, MEDIUM_LENGTH),
        noise("large", "1.0.0", 4, LARGE_LENGTH),
    ]);
    let (directory, data) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let own = origin.settings();
    let mut settings = borrowed(&own);
    settings.push(("DATA_DIR", data.path().to_str().unwrap()));
    settings.push(("STORAGE_URL", directory.path().to_str().unwrap()));
    let (program, made) = Program::start_on(disk, directory.path(), &settings);
    program.wait_until_ready();
    Scene {
        program,
        made,
        origin,
        directory,
        _data: data,
    }
}

impl Scene {
    /// The store as the program sees it.
    fn held(&self) -> StoredFiles {
        StoredFiles::look(&self.program.sees(self.directory.path()))
    }

    /// The large file fits on neither disk. An error is right; wrong bytes and `404` are not.
    #[track_caller]
    fn assert_large_is_right_or_an_error(&self) {
        let large = &self.origin.files[4];
        let answer = self.program.get(&large.download_path());
        if answer.status == 200 {
            assert!(answer.body == large.bytes());
        } else {
            assert!((500..=504).contains(&answer.status), "{answer:?}");
            assert!(!answer.detail().is_empty());
        }
        let held = self.held();
        assert!(!held.checksums.contains(&large.checksum()), "{held:?}");
        assert!(held.staged.is_empty(), "{held:?}");
    }
}

#[test]
fn files_are_served_although_the_disk_is_full() {
    let scene = scene(Disk::Small(DISK_KIB));
    scene.assert_large_is_right_or_an_error();
    for _ in 0..2 {
        for file in &scene.origin.files[..4] {
            assert_serves(&scene.program, file);
        }
    }
    let held = scene.held();
    assert!(held.staged.is_empty(), "{held:?}");
    assert!(held.checksums.len() < 4, "{held:?}");
    scene.assert_large_is_right_or_an_error();
    if scene.made == DiskMade::Otherwise {
        return;
    }

    // The mirror stores files again when the disk has space.
    assert!(held.checksums.len() >= 2, "{held:?}");
    let store = scene.program.sees(scene.directory.path());
    for checksum in &held.checksums {
        std::fs::remove_file(crate::support::stored_path(&store, checksum)).unwrap();
    }
    let mut files = scene.origin.files[..4].iter();
    let not_kept = files.find(|file| !held.checksums.contains(&file.checksum()));
    let not_kept = not_kept.unwrap();
    eventually("the file is stored", || {
        assert_serves(&scene.program, not_kept);
        StoredFiles::look(&store)
            .checksums
            .contains(&not_kept.checksum())
    });
}

#[test]
fn files_are_served_although_the_disk_is_read_only() {
    let scene = scene(Disk::ReadOnly);
    scene.assert_large_is_right_or_an_error();
    for _ in 0..2 {
        for file in &scene.origin.files[..4] {
            assert_serves(&scene.program, file);
        }
    }
    let held = scene.held();
    assert!(
        held.checksums.is_empty() && held.staged.is_empty(),
        "{held:?}"
    );
    // These answers come from memory, whole, and the failure of the store is told once.
    let path = scene.origin.files[3].download_path();
    let event = crate::support::eventually_some("the requests are logged", || {
        let mut events = scene.program.request_events().into_iter();
        events.find(|event| event["path"] == path)
    });
    assert!(event["cut"].is_null(), "{event}");
    let told = scene.program.output();
    let told = told.matches("the store of crate files failed").count();
    assert!(told <= 2, "{told}");
    assert_eq!(scene.program.get("/readyz").status, 200);
}
