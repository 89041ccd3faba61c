//! Archives are written, damaged and imported in memory.

mod refused;

use tar::{Builder, EntryType, Header};

use super::*;
use crate::archive::entry::EntryName;
use crate::archive::testing::{
    FETCHED, MemoryIndex, MemoryStore, archive, checksum, commit, index_at, written,
};
use crate::cli::terminal::testing::remembering;

struct Imported {
    outcome: Outcome,
    store: MemoryStore,
    index: MemoryIndex,
    results: String,
    notes: String,
}

fn imported(
    archive: &[u8],
    action: ImportAction,
    store: MemoryStore,
    mut index: MemoryIndex,
) -> Imported {
    let (terminal, written) = remembering();
    let stop = CancellationToken::new();
    let clock = Clock::custom(|| UNIX_EPOCH + Duration::from_secs(FETCHED + 3_600));
    let outcome = import_from(archive, action, &mut index, &store, clock, &terminal, &stop);
    Imported {
        outcome,
        store,
        index,
        results: written.results(),
        notes: written.notes(),
    }
}

fn into_nothing(archive: &[u8]) -> Imported {
    let (store, index) = (MemoryStore::default(), MemoryIndex::default());
    imported(archive, ImportAction::Keep, store, index)
}

fn base(number: u8) -> Option<Base> {
    Some(Base {
        index_commit: commit(number),
        archive: "monday.tar".to_owned(),
    })
}

/// The entries of an archive, as name and content.
fn taken_apart(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut tar = tar::Archive::new(archive);
    let entries = tar.entries().unwrap();
    let entries = entries.map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        (name, content)
    });
    entries.collect()
}

/// An archive of any entries.
fn put_together(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (name, content) in entries {
        let mut header = Header::new_ustar();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_entry_type(EntryType::Regular);
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

#[test]
fn what_was_exported_is_imported() {
    let store = MemoryStore::of(&["one", "two", ""]);
    let archive = archive(1, &store);
    let imported = into_nothing(&archive);
    assert_eq!(
        (imported.outcome, imported.notes.as_str()),
        (Outcome::Done, "")
    );
    assert_eq!(imported.store.contents(), ["", "one", "two"]);
    assert_eq!(imported.index.commits, [commit(1)]);
    assert!(
        imported
            .results
            .starts_with("imported 3 crate files, and the index;")
    );
    // A second time the crate files are here, and the index may be in need of it.
    let again = self::imported(&archive, ImportAction::Keep, imported.store, imported.index);
    assert_eq!(again.outcome, Outcome::Done);
    assert!(
        again
            .results
            .starts_with("imported 0 crate files, and the index; 3 held already"),
        "{}",
        again.results
    );
}

#[test]
fn the_same_content_gives_the_same_archive() {
    let store = MemoryStore::of(&["one", "two"]);
    let archive = archive(1, &store);
    assert_eq!(archive, self::archive(1, &store));
    let entries = taken_apart(&archive);
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    let mut files = [checksum("one"), checksum("two")];
    files.sort();
    let expected = [
        "manifest.json".to_owned(),
        "held.txt".to_owned(),
        format!("index/pack-{}.pack", commit(1)),
        EntryName::Crate(files[0]).to_string(),
        EntryName::Crate(files[1]).to_string(),
        "end.json".to_owned(),
    ];
    assert_eq!(names, expected);
}

#[test]
fn checking_only_changes_nothing() {
    let archive = archive(1, &MemoryStore::of(&["one"]));
    let (store, index) = (MemoryStore::default(), MemoryIndex::default());
    let checked = imported(&archive, ImportAction::CheckOnly, store, index);
    assert_eq!(checked.outcome, Outcome::Done);
    assert!(checked.results.starts_with("would import 1 crate files"));
    assert!(checked.store.contents().is_empty() && checked.index.commits.is_empty());
}

#[test]
fn an_archive_that_builds_on_another_needs_that_one() {
    let store = MemoryStore::of(&["one", "two"]);
    let (new, held) = (
        vec![checksum("two")],
        vec![checksum("one"), checksum("two")],
    );
    let archive = written(2, &store, new.into(), held.into(), base(1)).unwrap();
    let refused = into_nothing(&archive);
    assert_eq!(refused.outcome, Outcome::Unusable);
    assert!(
        refused.notes.contains("`monday.tar`") && refused.notes.contains(&commit(1)),
        "{}",
        refused.notes
    );
    assert!(refused.store.contents().is_empty());

    let behind = imported(
        &archive,
        ImportAction::Keep,
        MemoryStore::of(&["one"]),
        index_at(1),
    );
    assert_eq!(behind.outcome, Outcome::Done);
    assert_eq!(behind.store.contents(), ["one", "two"]);
    assert_eq!(behind.index.commits, [commit(1), commit(2)]);

    // The index is there, but the store was lost.
    let lossy = imported(
        &archive,
        ImportAction::Keep,
        MemoryStore::default(),
        index_at(1),
    );
    assert_eq!(lossy.outcome, Outcome::Incomplete);
    assert!(
        lossy
            .notes
            .contains("1 crate files of earlier archives are not here"),
        "{}",
        lossy.notes
    );
}

#[test]
fn an_archive_that_breaks_off_anywhere_never_switches_the_index_over() {
    let archive = archive(1, &MemoryStore::of(&["one", "two"]));
    // Behind the last entry there are two empty blocks, which carry nothing.
    let content = archive.len() - 1024;
    for length in (0..content).step_by(61).chain((0..content).step_by(512)) {
        let cut = into_nothing(&archive[..length]);
        assert_ne!(cut.outcome, Outcome::Done, "{length}");
        assert!(cut.index.commits.is_empty(), "{length}");
        assert!(
            cut.notes.starts_with("the archive is no good: it"),
            "{length}: {}",
            cut.notes
        );
        assert!(
            cut.store
                .contents()
                .iter()
                .all(|content| content == "one" || content == "two")
        );
    }
}

#[test]
fn a_damaged_crate_file_is_passed_over_and_reported() {
    let mut entries = taken_apart(&archive(1, &MemoryStore::of(&["one", "two"])));
    let one = EntryName::Crate(checksum("one")).to_string();
    let damaged = entries.iter_mut().find(|(name, _)| *name == one).unwrap();
    damaged.1 = b"on3".to_vec();
    for action in [ImportAction::Keep, ImportAction::CheckOnly] {
        let archive = put_together(&entries);
        let imported = imported(
            &archive,
            action,
            MemoryStore::default(),
            MemoryIndex::default(),
        );
        assert_eq!(imported.outcome, Outcome::Incomplete);
        assert!(
            imported
                .notes
                .starts_with(&format!("problem: {}", checksum("one")))
        );
        assert!(
            imported.results.contains("1 damaged"),
            "{}",
            imported.results
        );
        assert!(!imported.store.contents().contains(&"on3".to_owned()));
    }
}

#[test]
fn a_store_that_takes_no_more_ends_it() {
    let full = into_nothing(&archive(1, &MemoryStore::of(&["refused"])));
    assert_eq!(full.outcome, Outcome::Incomplete);
    assert!(full.notes.contains("the disk is full"), "{}", full.notes);
    assert!(full.index.commits.is_empty());
}
