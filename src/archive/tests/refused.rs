//! Archives that no export wrote are refused.

use std::io;

use super::*;
use crate::archive::entry::EntryName;
use crate::printable::{is_printable, printable};

#[test]
fn entries_that_no_export_writes_are_refused() {
    let good = taken_apart(&archive(1, &store(&["one", "two"])));
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
        let (refused, target) = into_nothing(&put_together(&entries));
        let said = refused.unwrap_err().to_string();
        assert!(said.contains(words), "{words}: {said}");
        assert!(target.commit().is_none());
    }
}

#[test]
fn files_that_are_not_archives_are_refused() {
    for bytes in [&b""[..], b"#!/bin/sh\n", &[0; 4096], &[b'x'; 4096]] {
        let refused = into_nothing(bytes).0.unwrap_err();
        assert!(matches!(refused, ImportError::NotImportable(_)));
        let said = refused.to_string();
        assert!(
            said.contains("not an archive that `export` wrote"),
            "{said}"
        );
    }
}

#[test]
fn an_entry_may_be_neither_a_link_nor_too_large_nor_an_extension() {
    let good = taken_apart(&archive(1, &store(&["one"])));
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
        let said = into_nothing(&bytes).0.unwrap_err().to_string();
        assert!(
            said.contains("nothing that an archive has"),
            "{kind:?}: {said}"
        );
    }
    let mut bytes = put_together(&good[..3]);
    bytes.truncate(bytes.len() - 1024);
    let mut header = Header::new_ustar();
    header.set_path(&good[3].0).unwrap();
    header.set_size(1024 * 1024 * 1024 + 1);
    header.set_cksum();
    bytes.extend_from_slice(header.as_bytes());
    let said = into_nothing(&bytes).0.unwrap_err().to_string();
    assert!(said.contains("too large"), "{said}");
}

#[test]
fn an_archive_that_cannot_be_read_now_is_not_bad_usage() {
    let cut = &archive(1, &store(&["one"]))[..600];
    let refused = into_nothing(cut).0.unwrap_err();
    assert!(matches!(refused, ImportError::Archive(_)));
    let said = refused.to_string();
    assert!(said.contains("ends early"), "{said}");

    /// A disk that fails.
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(libc::EIO))
        }
    }
    let refused = Target::empty()
        .import(Broken, ImportAction::Import)
        .unwrap_err();
    assert!(matches!(refused, ImportError::Archive(_)));
    let said = refused.to_string();
    assert!(said.contains("it cannot be read"), "{said}");
}

/// An archive with another manifest.
fn with_manifest(number: u8, change: impl FnOnce(&mut serde_json::Value)) -> Vec<u8> {
    let mut entries = taken_apart(&archive(number, &store(&["one"])));
    let mut manifest = serde_json::from_slice(&entries[0].1).unwrap();
    change(&mut manifest);
    entries[0].1 = manifest.to_string().into_bytes();
    put_together(&entries)
}

#[test]
fn a_time_in_the_future_counts_as_unknown() {
    for (fetched, expected) in [
        (FETCHED, Some(FETCHED)),
        (FETCHED + 3_600, Some(FETCHED + 3_600)),
        (FETCHED + 7_200, None),
        (u64::MAX, None),
    ] {
        let archive = with_manifest(1, |manifest| manifest["index_fetched"] = fetched.into());
        let (imported, target) = into_nothing(&archive);
        imported.unwrap();
        let recorded = current(&target.data_dir).unwrap().fetched();
        let expected = expected.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(recorded, expected);
        let is_told = target.events.contains(&ArchiveEvent::FetchedInTheFuture);
        assert_eq!(is_told, expected.is_none());
    }
    // It does not replace a newer index, either.
    let archive = with_manifest(1, |manifest| manifest["index_fetched"] = u64::MAX.into());
    let mut target = Target::of(index_with(&[1, 2]), &[]);
    target
        .import(archive.as_slice(), ImportAction::Import)
        .unwrap();
    assert_eq!(target.commit(), Some(commit(2)));
}

#[test]
fn what_is_not_printable_in_a_manifest_is_never_printed_raw() {
    let archive = with_manifest(2, |manifest| {
        let base = commit(1).to_string();
        manifest["index_base"] = base.clone().into();
        manifest["base"] =
            serde_json::json!({"index_commit": base, "archive": "a\u{1b}[2J\r\u{9b}\u{202e}b"});
    });
    let refused = into_nothing(&archive).0.unwrap_err();
    let name = r"`a\u001b[2J\u000d\u009b\u202eb`";
    // As the terminal does with every line.
    let text = refused.to_string();
    let printed = printable(&text);
    assert!(printed.contains(name), "{printed}");
    assert!(printed.chars().all(is_printable));
}
