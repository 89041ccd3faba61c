//! What becomes of the index in an archive, by what is here already.

use crate::archive::held::HeldList;
use crate::archive::manifest::Manifest;
use crate::archive::ports::{IndexSink, PortError};
use crate::archive::read::Beginning;

/// What becomes of the index in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexPart {
    /// It is imported.
    Wanted,
    /// It is here, and the archive could not mend it.
    IsHere,
    /// The index here came after it.
    IsOlder,
}

impl IndexPart {
    /// Files of an earlier archive may be wanted again, and must not take the index back.
    pub(crate) fn of(manifest: &Manifest, index: &impl IndexSink) -> Result<Self, PortError> {
        let Some(current) = index.current()? else {
            return Ok(Self::Wanted);
        };
        if current.commit == manifest.index_commit {
            // A complete index may be here to mend a damaged one.
            let is_complete = manifest.index_base.is_none();
            return Ok(if is_complete {
                Self::Wanted
            } else {
                Self::IsHere
            });
        }
        // The commit alone does not tell: an upstream may go back to an earlier one.
        let was_fetched_later = manifest.index_fetched > current.fetched;
        if was_fetched_later || !index.has(&manifest.index_commit)? {
            return Ok(Self::Wanted);
        }
        Ok(Self::IsOlder)
    }
}

/// Whether that is here which an archive builds on. A complete index needs no other one, but its crate files may.
pub(crate) fn base_is_here(
    beginning: &Beginning,
    held: &HeldList,
    index: &impl IndexSink,
) -> Result<bool, PortError> {
    let manifest = &beginning.manifest;
    let Some(base) = &manifest.base else {
        return Ok(true);
    };
    let absent = beginning.held.without(held).count();
    if manifest.index_base.is_none() && absent <= manifest.crate_files {
        return Ok(true);
    }
    index.has(&base.index_commit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::manifest::Base;
    use crate::archive::read::read_beginning;
    use crate::archive::testing::{FETCHED, MemoryStore, archive, checksum, commit, index_with};

    /// An archive with the index at this commit, and the crate files `one` and `two`.
    fn beginning(number: u8) -> Beginning {
        let store = MemoryStore::of(&["one", "two"]);
        read_beginning(archive(number, &store).as_slice()).unwrap()
    }

    fn base(number: u8) -> Option<Base> {
        Some(Base {
            index_commit: commit(number),
            archive: "monday.tar".to_owned(),
        })
    }

    #[test]
    fn an_index_is_taken_back_only_if_the_upstream_went_back() {
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
            let found = IndexPart::of(&manifest, &index_with(here)).unwrap();
            assert_eq!(found, part, "{number} {here:?}");
        }
        let mut manifest = beginning(2).manifest;
        manifest.index_base = Some(commit(1));
        let found = IndexPart::of(&manifest, &index_with(&[1, 2])).unwrap();
        assert_eq!(found, IndexPart::IsHere);
    }

    #[test]
    fn a_complete_index_needs_of_its_base_the_crate_files_only() {
        let mut beginning = beginning(2);
        beginning.manifest.crate_files = 1;
        beginning.manifest.base = base(1);
        let one = HeldList::from(vec![checksum("one")]);
        let none = HeldList::default();
        for (index_base, held, here, is_here) in [
            (None, &one, &[][..], true),
            (None, &none, &[], false),
            (None, &none, &[1], true),
            (Some(commit(1)), &one, &[], false),
            (Some(commit(1)), &one, &[1], true),
        ] {
            beginning.manifest.index_base = index_base;
            let found = base_is_here(&beginning, held, &index_with(here)).unwrap();
            assert_eq!(found, is_here, "{here:?}");
        }
    }
}
