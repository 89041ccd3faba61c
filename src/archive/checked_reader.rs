//! A reader that checks the size and the checksum of its content.

use std::io::{self, Read};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::package::Checksum;

/// What is known of the content so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadState {
    /// It was not read to its end.
    Unfinished,
    /// Size and checksum match.
    Intact,
    /// It ends early.
    TooShort,
    /// It is longer than expected.
    TooLong,
    /// The checksum does not match.
    WrongChecksum,
    /// Reading was stopped.
    Stopped,
}

/// Passes on what it reads, and fails at the end if the size or the checksum does not match.
pub(super) struct CheckedReader<'c, R> {
    inner: R,
    bytes_left: u64,
    expected: Option<Checksum>,
    hash: Sha256,
    /// What is known of the content so far.
    pub(super) state: ReadState,
    /// The last failure of the inner reader. `io::copy` does not tell failures of reading from failures of writing.
    pub(super) failure: Option<String>,
    stop: &'c CancellationToken,
}

impl<'c, R: Read> CheckedReader<'c, R> {
    /// Content of this size, and with this checksum if one is known.
    pub(super) fn new(
        inner: R,
        bytes: u64,
        expected: Option<Checksum>,
        stop: &'c CancellationToken,
    ) -> Self {
        Self {
            inner,
            bytes_left: bytes,
            expected,
            hash: Sha256::new(),
            state: ReadState::Unfinished,
            failure: None,
            stop,
        }
    }

    /// Compares the checksum, after all bytes were read.
    fn conclude(&mut self) {
        self.state = match self.expected {
            Some(expected) if expected != Checksum::of(self.hash.clone()) => {
                ReadState::WrongChecksum
            }
            _ => ReadState::Intact,
        };
    }

    fn outcome(&self) -> io::Result<usize> {
        let said = match self.state {
            ReadState::Unfinished | ReadState::Intact => return Ok(0),
            ReadState::TooShort => "it ends early",
            ReadState::TooLong => "it is longer than it should be",
            ReadState::WrongChecksum => "its SHA-256 is another one",
            ReadState::Stopped => "stopped",
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, said))
    }
}

impl<R: Read> Read for CheckedReader<'_, R> {
    /// Passes on the last bytes only if everything matches, so that callers need not read on to know.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() && self.state == ReadState::Unfinished {
            self.state = ReadState::Stopped;
        }
        let goes_on = matches!(self.state, ReadState::Unfinished | ReadState::Intact);
        if buffer.is_empty() || !goes_on {
            return self.outcome();
        }
        let read = self.inner.read(buffer);
        let read = read.inspect_err(|error| self.failure = Some(error.to_string()))?;
        let bytes = u64::try_from(read).unwrap_or(u64::MAX);
        if self.expected.is_some() {
            self.hash.update(buffer.get(..read).unwrap_or_default());
        }
        match self.bytes_left.checked_sub(bytes) {
            None => self.state = ReadState::TooLong,
            Some(0) => {
                self.bytes_left = 0;
                self.conclude();
            }
            Some(_) if read == 0 => self.state = ReadState::TooShort,
            Some(left) => self.bytes_left = left,
        }
        self.outcome().map(|_good| read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8], bytes: u64, of: &[u8]) -> (io::Result<u64>, ReadState) {
        let stop = CancellationToken::new();
        let hash: [u8; 32] = Sha256::digest(of).into();
        let mut checked = CheckedReader::new(content, bytes, Some(hash.into()), &stop);
        let copied = io::copy(&mut checked, &mut io::sink());
        (copied, checked.state)
    }

    #[test]
    fn only_the_expected_content_is_read_to_its_end() {
        let (copied, state) = read(b"content", 7, b"content");
        assert_eq!((copied.unwrap(), state), (7, ReadState::Intact));
        for (content, bytes, of, state) in [
            (&b"content"[..], 8, &b"content"[..], ReadState::TooShort),
            (b"content", 6, b"content", ReadState::TooLong),
            (b"content", 7, b"another", ReadState::WrongChecksum),
            (b"", 1, b"", ReadState::TooShort),
        ] {
            let (copied, found) = read(content, bytes, of);
            assert!(copied.is_err());
            assert_eq!(found, state);
        }
    }

    #[test]
    fn reading_ends_with_an_error_when_it_is_stopped() {
        let stop = CancellationToken::new();
        let mut checked = CheckedReader::new(&b"content"[..], 7, None, &stop);
        stop.cancel();
        assert!(io::copy(&mut checked, &mut io::sink()).is_err());
        assert_eq!(checked.state, ReadState::Stopped);
    }
}
