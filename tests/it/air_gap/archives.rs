//! Archives that were changed or truncated in transport: a mirror that runs during the import serves correct content.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{done, offline, run_verb, serves};
use crate::support::{CrateFile, Origin, StoredFiles};

/// An archive with three crates, and a second one with a fourth crate.
struct Scene {
    origin: Origin,
    archives: TempDir,
    inside: TempDir,
}

impl Scene {
    /// The first archive is imported already.
    fn start() -> Self {
        let (mut origin, outside) = (Origin::of(3), TempDir::new().unwrap());
        let (archives, inside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let settings = origin.settings();
        let path = |name: &str| archives.path().join(name).to_str().unwrap().to_owned();
        let (first, second) = (path("first.tar"), path("second.tar"));
        done(&["prefetch", "--all"], outside.path(), &settings);
        done(&["export", &first], outside.path(), &settings);
        origin.publish(CrateFile::numbered(3));
        done(&["prefetch", "--all"], outside.path(), &settings);
        let since = ["export", &second, "--since", &first];
        done(&since, outside.path(), &settings);
        done(&["import", &first], inside.path(), &settings);
        Self {
            origin,
            archives,
            inside,
        }
    }

    /// The second archive.
    fn second(&self) -> Vec<u8> {
        fs::read(self.path("second.tar")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.archives.path().join(name)
    }

    /// Imports an archive, and returns the exit code and stderr.
    fn import(&self, archive: &[u8]) -> (Option<i32>, String) {
        let path = self.path("received.tar");
        fs::write(&path, archive).unwrap();
        self.import_from(&path)
    }

    fn import_from(&self, archive: &Path) -> (Option<i32>, String) {
        let import = ["import", archive.to_str().unwrap()];
        let output = run_verb(&import, self.inside.path(), &self.origin.settings());
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    }
}

/// The positions of the contents of an archive's entries.
fn contents(archive: &[u8]) -> Vec<(String, Range<usize>)> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let position = usize::try_from(entry.raw_file_position()).unwrap();
            let length = usize::try_from(entry.size()).unwrap();
            let path = entry.path().unwrap().to_str().unwrap().to_owned();
            (path, position..position + length)
        })
        .collect()
}

#[test]
fn a_truncated_or_changed_archive_changes_nothing_that_is_served() {
    let scene = Scene::start();
    let mirror = offline(&scene.origin, scene.inside.path(), &[]);
    let commit = mirror.commit();
    let archive = scene.second();
    let mut damaged: Vec<(String, Vec<u8>)> = vec![("empty".to_owned(), Vec::new())];
    for (path, content) in contents(&archive) {
        let cut = format!("cut off before {path}");
        // The header of an entry is one block.
        damaged.push((cut, archive[..content.start - 512].to_vec()));
        if path.starts_with("crates/") {
            // The next test covers these bytes.
            continue;
        }
        let mut changed = archive.clone();
        changed[content.start + content.len() / 2] ^= 0x10;
        damaged.push((format!("{path} changed"), changed));
    }
    assert!(damaged.len() >= 10, "{}", damaged.len());
    for (what, bytes) in damaged {
        let (code, said) = scene.import(&bytes);
        assert!(matches!(code, Some(1 | 2)), "{what}: {code:?} {said}");
        assert!(!said.is_empty(), "{what}");
    }
    // A new process sees the same on the disk as the running mirror.
    mirror.stop();
    let mirror = offline(&scene.origin, scene.inside.path(), &[]);
    assert_eq!(mirror.commit(), commit);
    assert_eq!(mirror.metadata("kept-003").status, 404);
    assert!(
        scene.origin.files[..3]
            .iter()
            .all(|file| serves(&mirror, file))
    );
    assert!(!serves(&mirror, &scene.origin.files[3]));
}

#[test]
fn a_changed_crate_file_is_skipped_and_can_be_imported_later() {
    let scene = Scene::start();
    let mirror = offline(&scene.origin, scene.inside.path(), &[]);
    let late = &scene.origin.files[3];
    let mut archive = scene.second();
    let path = format!("crates/{}.crate", late.checksum());
    let entries = contents(&archive);
    let (_, content) = entries.iter().find(|(name, _)| *name == path).unwrap();
    archive[content.start + content.len() / 2] ^= 0x10;
    let (code, said) = scene.import(&archive);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&late.checksum()), "{said}");
    let held = StoredFiles::look(&scene.inside.path().join("crates"));
    assert_eq!((held.checksums.len(), held.staged.len()), (3, 0));
    assert!(!serves(&mirror, late));
    let (code, said) = scene.import_from(&scene.path("second.tar"));
    assert_eq!(code, Some(0), "{said}");
    mirror.wait_for_commit(&scene.origin.index.head());
    assert!(scene.origin.files.iter().all(|file| serves(&mirror, file)));
    assert_eq!(
        done(&["verify"], scene.inside.path(), &scene.origin.settings()),
        ""
    );
}
