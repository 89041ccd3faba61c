//! What an import does with the index of an archive.

use super::*;
use crate::archive::index_part::{IndexPart, base_is_here};
use crate::archive::read::{Beginning, read_beginning};
use crate::store::testing::checksum;

/// The beginning of an archive with the index at this commit, and the crate files `one` and `two`.
fn beginning(number: u8) -> Beginning {
    read_beginning(archive(number, &store(&["one", "two"])).as_slice()).unwrap()
}

fn snapshot(numbers: &[u8]) -> (TestIndex, Option<Arc<Source>>) {
    let index = index_with(numbers);
    let current = current(&index.data_dir());
    (index, current)
}

#[test]
fn an_older_index_is_imported_only_if_the_upstream_went_back() {
    let clock = Clock::system();
    for (number, fetched, here, part) in [
        (2, FETCHED, &[][..], IndexPart::Wanted),
        (2, FETCHED, &[1], IndexPart::Wanted),
        (2, FETCHED, &[1, 2], IndexPart::Wanted),
        (1, FETCHED, &[1, 2], IndexPart::IsOlder),
        (1, FETCHED - 1, &[1, 2], IndexPart::IsOlder),
        (1, FETCHED + 1, &[1, 2], IndexPart::Wanted),
        // Nothing here was made from it.
        (1, FETCHED - 1, &[2], IndexPart::Wanted),
    ] {
        let mut manifest = beginning(number).manifest;
        manifest.index_fetched = Some(fetched);
        let (_index, current) = snapshot(here);
        let found = IndexPart::of(&manifest, current.as_deref(), &clock).unwrap();
        assert_eq!(found, part, "{number} {here:?}");
    }
    let mut manifest = beginning(2).manifest;
    manifest.index_base = Some(commit(1).to_string());
    let (_index, current) = snapshot(&[1, 2]);
    let found = IndexPart::of(&manifest, current.as_deref(), &clock).unwrap();
    assert_eq!(found, IndexPart::IsHere);
}

#[test]
fn a_complete_index_needs_only_the_crate_files_of_its_base() {
    let mut beginning = beginning(2);
    beginning.manifest.crate_files = 1;
    beginning.manifest.base = base(1);
    let index_base = Some(commit(1).to_string());
    let one = ChecksumList::from(vec![checksum("one")]);
    let none = ChecksumList::default();
    for (index_base, stored, here, is_here) in [
        (None, &one, &[][..], true),
        (None, &none, &[], false),
        (None, &none, &[1], true),
        (index_base.clone(), &one, &[], false),
        (index_base, &one, &[1], true),
    ] {
        beginning.manifest.index_base = index_base;
        let (_index, current) = snapshot(here);
        let found = base_is_here(&beginning, stored, current.as_deref()).unwrap();
        assert_eq!(found, is_here, "{here:?}");
    }
}
