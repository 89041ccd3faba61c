//! A reader that watches what passes: how many bytes, and what they hash to.

use std::io::{self, Read};

use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;

use crate::package::Checksum;

/// What is known of the content by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It has not been read to its end.
    Unfinished,
    /// It is what it should be.
    Good,
    /// It ended before the size that was promised.
    TooShort,
    /// It goes on behind the size that was promised.
    TooLong,
    /// It is not what the checksum says.
    WrongChecksum,
    /// Somebody stopped it.
    Stopped,
}

/// Passes on what it reads, and fails at the end if the size or the checksum is another than expected.
pub(crate) struct Checked<'c, R> {
    inner: R,
    bytes_left: u64,
    expected: Option<Checksum>,
    hash: Sha256,
    verdict: Verdict,
    stop: &'c CancellationToken,
}

impl<'c, R: Read> Checked<'c, R> {
    /// Content that must have so many bytes.
    pub(crate) fn sized(inner: R, bytes: u64, stop: &'c CancellationToken) -> Self {
        Self {
            inner,
            bytes_left: bytes,
            expected: None,
            hash: Sha256::new(),
            verdict: Verdict::Unfinished,
            stop,
        }
    }

    /// Content that must have so many bytes and this checksum.
    pub(crate) fn hashed(
        inner: R,
        bytes: u64,
        checksum: Checksum,
        stop: &'c CancellationToken,
    ) -> Self {
        Self {
            expected: Some(checksum),
            ..Self::sized(inner, bytes, stop)
        }
    }

    /// What is known of the content by now.
    pub(crate) fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// All that was promised has been read: is it what it should be?
    fn conclude(&mut self) {
        let hash: [u8; 32] = self.hash.clone().finalize().into();
        self.verdict = match self.expected {
            Some(expected) if expected != Checksum::from(hash) => Verdict::WrongChecksum,
            _ => Verdict::Good,
        };
    }

    fn outcome(&self) -> io::Result<usize> {
        let said = match self.verdict {
            Verdict::Unfinished | Verdict::Good => return Ok(0),
            Verdict::TooShort => "it ends early",
            Verdict::TooLong => "it is longer than it should be",
            Verdict::WrongChecksum => "its SHA-256 is another one",
            Verdict::Stopped => "stopped",
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, said))
    }
}

impl<R: Read> Read for Checked<'_, R> {
    /// The last bytes are passed on only if everything is good, so that nobody need read behind them to know.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() && self.verdict == Verdict::Unfinished {
            self.verdict = Verdict::Stopped;
        }
        let goes_on = matches!(self.verdict, Verdict::Unfinished | Verdict::Good);
        if buffer.is_empty() || !goes_on {
            return self.outcome();
        }
        let read = self.inner.read(buffer)?;
        let bytes = u64::try_from(read).unwrap_or(u64::MAX);
        if self.expected.is_some() {
            self.hash.update(buffer.get(..read).unwrap_or_default());
        }
        match self.bytes_left.checked_sub(bytes) {
            None => self.verdict = Verdict::TooLong,
            Some(0) => {
                self.bytes_left = 0;
                self.conclude();
            }
            Some(_) if read == 0 => self.verdict = Verdict::TooShort,
            Some(left) => self.bytes_left = left,
        }
        self.outcome().map(|_good| read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8], bytes: u64, of: &[u8]) -> (io::Result<u64>, Verdict) {
        let stop = CancellationToken::new();
        let hash: [u8; 32] = Sha256::digest(of).into();
        let mut checked = Checked::hashed(content, bytes, hash.into(), &stop);
        let copied = io::copy(&mut checked, &mut io::sink());
        (copied, checked.verdict())
    }

    #[test]
    fn only_the_expected_content_is_read_to_its_end() {
        let (copied, verdict) = read(b"content", 7, b"content");
        assert_eq!((copied.unwrap(), verdict), (7, Verdict::Good));
        for (content, bytes, of, verdict) in [
            (&b"content"[..], 8, &b"content"[..], Verdict::TooShort),
            (b"content", 6, b"content", Verdict::TooLong),
            (b"content", 7, b"another", Verdict::WrongChecksum),
            (b"", 1, b"", Verdict::TooShort),
        ] {
            let (copied, found) = read(content, bytes, of);
            assert!(copied.is_err());
            assert_eq!(found, verdict);
        }
    }

    #[test]
    fn it_fails_when_told_to_stop() {
        let stop = CancellationToken::new();
        let mut checked = Checked::sized(&b"content"[..], 7, &stop);
        stop.cancel();
        assert!(io::copy(&mut checked, &mut io::sink()).is_err());
        assert_eq!(checked.verdict(), Verdict::Stopped);
    }
}
