//! Whole imports.

use super::*;
use crate::archive::entry::EntryName;
use crate::archive::index_part::IndexPart;
use crate::store::StorageLocation;
use crate::store::testing::{checksum, store_at};

#[test]
fn an_exported_archive_is_imported() {
    let archive = archive(1, &store(&["one", "two", ""]));
    let (imported, mut target) = into_nothing(&archive);
    let expected = Imported {
        stored: 3,
        already_stored: 0,
        damaged: 0,
        lost: 0,
        index: IndexPart::Wanted,
    };
    assert_eq!(imported.unwrap(), expected);
    assert_eq!(target.contents(), ["", "one", "two"]);
    assert_eq!(target.commit(), Some(commit(1)));
    let stored = target
        .events
        .iter()
        .filter(|event| matches!(event, ArchiveEvent::Stored(_)));
    assert_eq!(stored.count(), 3);
    // The second time, the crate files are stored already, and the index may need a repair.
    let again = target.import(archive.as_slice(), ImportAction::Import);
    let expected = Imported {
        stored: 0,
        already_stored: 3,
        ..expected
    };
    assert_eq!(again.unwrap(), expected);
}

#[test]
fn the_same_content_gives_the_same_archive() {
    let store = store(&["one", "two"]);
    let archive = archive(1, &store);
    assert_eq!(archive, self::archive(1, &store));
    let entries = taken_apart(&archive);
    let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
    let mut files = [checksum("one"), checksum("two")];
    files.sort();
    let expected = [
        "manifest.json".to_owned(),
        "held.txt".to_owned(),
        names[2].to_owned(),
        EntryName::Crate(files[0]).to_string(),
        EntryName::Crate(files[1]).to_string(),
        "end.json".to_owned(),
    ];
    assert_eq!(names, expected);
    assert!(names[2].starts_with("index/pack-"), "{names:?}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let archive = archive(1, &store(&["one"]));
    let mut target = Target::empty();
    let checked = target.import(archive.as_slice(), ImportAction::CheckOnly);
    assert_eq!(checked.unwrap().stored, 1);
    assert!(target.contents().is_empty() && target.commit().is_none());
}

#[test]
fn an_archive_that_builds_on_another_needs_that_one() {
    let store = store(&["one", "two"]);
    let (new, all) = (
        vec![checksum("two")],
        vec![checksum("one"), checksum("two")],
    );
    let archive = written(&[1, 2], &store, new.into(), all.into(), base(1)).unwrap();
    let (refused, target) = into_nothing(&archive);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, ImportError::BaseMissing(_)));
    let said = refused.to_string();
    assert!(
        said.contains("`monday.tar`") && said.contains(&commit(1).to_string()),
        "{said}"
    );
    assert!(target.contents().is_empty());

    let mut behind = Target::of(index_with(&[1]), &["one"]);
    let imported = behind
        .import(archive.as_slice(), ImportAction::Import)
        .unwrap();
    assert_eq!((imported.stored, imported.lost), (1, 0));
    assert_eq!(behind.contents(), ["one", "two"]);
    assert_eq!(behind.commit(), Some(commit(2)));

    // The target has the index, but its store was lost.
    let mut lossy = Target::of(index_with(&[1]), &[]);
    let imported = lossy
        .import(archive.as_slice(), ImportAction::Import)
        .unwrap();
    assert_eq!((imported.stored, imported.lost), (1, 1));
}

#[test]
fn an_archive_that_is_truncated_anywhere_never_switches_the_index_over() {
    let archive = archive(1, &store(&["one", "two"]));
    // The two empty blocks after the last entry carry nothing.
    let content = archive.len() - 1024;
    for length in (0..content).step_by(61).chain((0..content).step_by(512)) {
        let (cut, target) = into_nothing(&archive[..length]);
        let said = cut.unwrap_err().to_string();
        assert!(target.commit().is_none(), "{length}");
        assert!(
            said.starts_with("the archive is no good: it"),
            "{length}: {said}"
        );
        let contents = target.contents();
        assert!(
            contents
                .iter()
                .all(|content| content == "one" || content == "two")
        );
    }
}

#[test]
fn a_damaged_crate_file_is_skipped_and_reported() {
    let mut entries = taken_apart(&archive(1, &store(&["one", "two"])));
    let one = EntryName::Crate(checksum("one")).to_string();
    let damaged = entries.iter_mut().find(|(name, _)| *name == one).unwrap();
    damaged.1 = b"on3".to_vec();
    for action in [ImportAction::Import, ImportAction::CheckOnly] {
        let mut target = Target::empty();
        let imported = target.import(put_together(&entries).as_slice(), action);
        let imported = imported.unwrap();
        assert_eq!((imported.stored, imported.damaged), (1, 1));
        let reported = ArchiveEvent::Damaged(checksum("one"));
        assert!(target.events.contains(&reported));
        assert!(!target.contents().contains(&"on3".to_owned()));
    }
}

#[test]
fn a_full_store_ends_an_import() {
    let mut target = Target::empty();
    let place = StorageLocation::within(target.data_dir.join("crates"));
    let _entered = runtime();
    target.store = store_at(place, Some(2));
    let archive = archive(1, &store(&["one"]));
    let full = target.import(archive.as_slice(), ImportAction::Import);
    let said = full.unwrap_err().to_string();
    assert!(said.contains("larger than STORAGE_MAX_BYTES"), "{said}");
    assert!(target.commit().is_none() && target.contents().is_empty());
}
