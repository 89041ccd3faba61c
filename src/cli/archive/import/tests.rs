//! Archives are written, damaged and imported in memory.

use tar::{Builder, EntryType, Header};

use super::super::entry::EntryName;
use super::super::testing::{
    MemoryIndex, MemoryStore, archive, checksum, commit, index_at, written,
};
use super::*;
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
    let outcome = import_from(archive, action, &mut index, &store, &terminal, &stop);
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

#[test]
fn entries_that_do_not_belong_there_are_refused() {
    let good = taken_apart(&archive(1, &MemoryStore::of(&["one", "two"])));
    let with = |place: usize, name: &str, content: &[u8]| {
        let mut entries = good.clone();
        entries.insert(place, (name.to_owned(), content.to_vec()));
        entries
    };
    let swapped = |left: usize, right: usize| {
        let mut entries = good.clone();
        entries.swap(left, right);
        entries
    };
    let without = |place: usize| {
        let mut entries = good.clone();
        entries.remove(place);
        entries
    };
    let unlisted = EntryName::Crate([255; 32].into()).to_string();
    for (entries, words) in [
        (
            with(2, "index/../../etc/passwd", b"x"),
            "nothing that an archive has",
        ),
        (with(2, "/etc/passwd", b"x"), "nothing that an archive has"),
        (with(2, "index/.git", b"x"), "nothing that an archive has"),
        (with(5, "index/late.pack", b"x"), "in the wrong place"),
        (with(2, "index/more.pack", b"x"), "it counts other files"),
        (with(5, &unlisted, b"x"), "not in held.txt"),
        (with(6, "index/more.pack", b"x"), "behind the end"),
        (with(1, "manifest.json", b"{}"), "ends early"),
        (with(2, "manifest.json", b"{}"), "in the wrong place"),
        (swapped(0, 1), "not an archive"),
        (swapped(3, 4), "in the wrong place"),
        (without(0), "not an archive"),
        (without(1), "ends early"),
        (without(3), "it counts other files"),
        (without(5), "ends early"),
        (Vec::new(), "not an archive"),
    ] {
        let refused = into_nothing(&put_together(&entries));
        assert_ne!(refused.outcome, Outcome::Done, "{words}");
        assert!(refused.notes.contains(words), "{words}: {}", refused.notes);
        assert!(refused.index.commits.is_empty());
    }
}

#[test]
fn what_is_no_archive_at_all_is_said_to_be_none() {
    for bytes in [&b""[..], b"#!/bin/sh\n", &[0; 4096], &[b'x'; 4096]] {
        let refused = into_nothing(bytes);
        assert_eq!(refused.outcome, Outcome::Unusable);
        assert!(
            refused.notes.contains("not an archive that `export` wrote"),
            "{}",
            refused.notes
        );
    }
}

#[test]
fn an_entry_may_be_neither_a_link_nor_too_large_nor_an_extension() {
    let good = taken_apart(&archive(1, &MemoryStore::of(&["one"])));
    for kind in [
        EntryType::Symlink,
        EntryType::Link,
        EntryType::Directory,
        EntryType::XHeader,
        EntryType::GNULongName,
    ] {
        let mut bytes = put_together(&good[..2]);
        bytes.truncate(bytes.len() - 1024);
        let mut header = Header::new_ustar();
        header.set_path("index/a.pack").unwrap();
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        let refused = into_nothing(&bytes);
        assert!(
            refused.notes.contains("nothing that an archive has"),
            "{kind:?}: {}",
            refused.notes
        );
    }
    let mut bytes = put_together(&good[..3]);
    bytes.truncate(bytes.len() - 1024);
    let mut header = Header::new_ustar();
    header.set_path(&good[3].0).unwrap();
    header.set_size(1024 * 1024 * 1024 + 1);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    let refused = into_nothing(&bytes);
    assert!(refused.notes.contains("too large"), "{}", refused.notes);
}
