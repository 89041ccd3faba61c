//! `held.txt`: sorted checksums, one a line.

use std::collections::VecDeque;
use std::io::{self, Read};

use crate::package::Checksum;

/// 64 digits and the end of the line.
const LINE_BYTES: u64 = 65;

/// A sorted list of checksums, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ChecksumList(Vec<Checksum>);

impl ChecksumList {
    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap_or(u64::MAX)
    }

    /// How large the entry is.
    pub(super) fn bytes(&self) -> u64 {
        self.count() * LINE_BYTES
    }

    /// Whether this one is listed.
    pub(super) fn contains(&self, checksum: &Checksum) -> bool {
        self.0.binary_search(checksum).is_ok()
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Checksum> {
        self.0.iter()
    }

    /// The checksums that the other list lacks.
    pub(super) fn without(&self, other: &Self) -> Self {
        let new = |checksum: &&Checksum| !other.contains(checksum);
        Self(self.0.iter().filter(new).copied().collect())
    }

    /// The checksums of either list.
    pub(super) fn with(&self, other: &Self) -> Self {
        let mut both = self.0.clone();
        both.extend(other.without(self).0);
        Self::from(both)
    }

    /// The text of the entry. It is made during reading.
    pub(super) fn reader(&self) -> impl Read + '_ {
        Lines {
            checksums: self.0.iter(),
            rest: VecDeque::new(),
        }
    }

    /// Reads the text of an entry of this size. `Ok(None)` if it is no sorted list of checksums.
    pub(super) fn read(mut from: impl Read, bytes: u64) -> io::Result<Option<Self>> {
        if !bytes.is_multiple_of(LINE_BYTES) {
            return Ok(None);
        }
        let mut checksums: Vec<Checksum> = Vec::new();
        let mut line = [0; 65];
        for _ in 0..bytes / LINE_BYTES {
            from.read_exact(&mut line)?;
            let checksum = line.strip_suffix(b"\n").and_then(parse);
            let Some(checksum) =
                checksum.filter(|this| checksums.last().is_none_or(|last| last < this))
            else {
                return Ok(None);
            };
            checksums.push(checksum);
        }
        Ok(Some(Self(checksums)))
    }
}

impl From<Vec<Checksum>> for ChecksumList {
    fn from(mut checksums: Vec<Checksum>) -> Self {
        checksums.sort_unstable();
        checksums.dedup();
        Self(checksums)
    }
}

fn parse(digits: &[u8]) -> Option<Checksum> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

struct Lines<'c> {
    checksums: std::slice::Iter<'c, Checksum>,
    /// What is left of the current line.
    rest: VecDeque<u8>,
}

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest.is_empty()
            && let Some(checksum) = self.checksums.next()
        {
            self.rest.extend(checksum.hex());
            self.rest.push_back(b'\n');
        }
        self.rest.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(numbers: &[u8]) -> ChecksumList {
        let checksums = numbers.iter().map(|number| Checksum::from([*number; 32]));
        checksums.collect::<Vec<_>>().into()
    }

    #[test]
    fn a_list_is_sorted_and_is_read_as_it_was_written() {
        let sorted = list(&[3, 1, 2, 3]);
        let mut text = Vec::new();
        sorted.reader().read_to_end(&mut text).unwrap();
        assert_eq!((sorted.count(), sorted.bytes()), (3, text.len() as u64));
        let again = ChecksumList::read(text.as_slice(), sorted.bytes()).unwrap();
        assert_eq!(again, Some(sorted));
        assert_eq!(
            ChecksumList::read(&b""[..], 0).unwrap(),
            Some(ChecksumList::default())
        );
    }

    #[test]
    fn lists_are_added_and_subtracted() {
        assert_eq!(list(&[1, 2, 3]).without(&list(&[2, 4])), list(&[1, 3]));
        assert_eq!(list(&[1, 3]).with(&list(&[2, 3])), list(&[1, 2, 3]));
    }

    #[test]
    fn other_texts_are_refused() {
        let line = |digit: &str| format!("{}\n", digit.repeat(64));
        for bad in [
            line("2") + &line("1"),
            line("1") + &line("1"),
            line("g"),
            "1".repeat(65),
            "1".repeat(64),
        ] {
            let bytes = bad.len() as u64;
            assert_eq!(
                ChecksumList::read(bad.as_bytes(), bytes).unwrap(),
                None,
                "{bad}"
            );
        }
        assert!(ChecksumList::read(&b"12"[..], 65).is_err());
    }
}
