//! What was not written by an export is refused, whatever it is.

use super::*;
use crate::archive::testing::index_with;

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

#[test]
fn what_another_try_may_not_meet_again_is_no_bad_usage() {
    let cut = &archive(1, &MemoryStore::of(&["one"]))[..600];
    let refused = into_nothing(cut);
    assert_eq!(refused.outcome, Outcome::Incomplete);
    assert!(refused.notes.contains("ends early"), "{}", refused.notes);

    /// A disk that breaks.
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
    let (terminal, written) = remembering();
    let outcome = import_from(
        Broken,
        ImportAction::Keep,
        &mut MemoryIndex::default(),
        &MemoryStore::default(),
        Clock::system(),
        &terminal,
        &CancellationToken::new(),
    );
    assert_eq!(outcome, Outcome::Incomplete);
    let notes = written.notes();
    assert!(notes.contains("it cannot be read"), "{notes}");
}

/// An archive of a later index with something else in its manifest.
fn with_manifest(number: u8, change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut entries = taken_apart(&archive(number, &MemoryStore::of(&["one"])));
    let mut manifest = serde_json::from_slice(&entries[0].1).unwrap();
    change(&mut manifest);
    entries[0].1 = manifest.to_string().into_bytes();
    put_together(&entries)
}

#[test]
fn a_time_that_is_still_to_come_is_taken_as_unknown() {
    for (fetched, expected) in [
        (FETCHED, Some(FETCHED)),
        (FETCHED + 3_600, Some(FETCHED + 3_600)),
        (FETCHED + 7_200, None),
        (u64::MAX, None),
    ] {
        let archive = with_manifest(1, |manifest| manifest["index_fetched"] = fetched.into());
        let taken = into_nothing(&archive);
        assert_eq!(taken.outcome, Outcome::Done, "{}", taken.notes);
        assert_eq!(taken.index.fetched, expected);
        let is_told = taken.notes.contains("still to come");
        assert_eq!(is_told, expected.is_none(), "{}", taken.notes);
    }
    // It does not take the index back either.
    let archive = with_manifest(1, |manifest| manifest["index_fetched"] = u64::MAX.into());
    let (store, index) = (MemoryStore::default(), index_with(&[1, 2]));
    let taken = imported(&archive, ImportAction::Keep, store, index);
    assert_eq!(taken.index.commits.last(), Some(&commit(2)));
}

#[test]
fn control_characters_of_a_manifest_are_never_printed_raw() {
    let archive = with_manifest(2, |manifest| {
        let base = serde_json::json!({"index_commit": commit(1), "archive": "a\u{1b}[2J\r\u{9b}b"});
        manifest["index_base"] = commit(1).into();
        manifest["base"] = base;
    });
    let refused = into_nothing(&archive);
    assert_eq!(refused.outcome, Outcome::Unusable);
    let name = r"`a\u001b[2J\u000d\u009bb`";
    assert!(refused.notes.contains(name), "{}", refused.notes);
    assert!(!refused.notes.trim_end().contains(char::is_control));
}
