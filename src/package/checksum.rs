//! The SHA-256 of a `.crate` file.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::write_hex;

/// The SHA-256 that the index's `cksum` field gives of a crate file. Shown in lower-case hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Checksum([u8; 32]);

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a checksum is 64 hexadecimal digits")]
pub(crate) struct ChecksumError;

impl From<[u8; 32]> for Checksum {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl FromStr for Checksum {
    type Err = ChecksumError;

    fn from_str(text: &str) -> Result<Self, ChecksumError> {
        let mut digest = [0; 32];
        if text.len() != 2 * digest.len() {
            return Err(ChecksumError);
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = pair.iter().try_fold(0, |byte, digit| {
                let digit = char::from(*digit).to_digit(16).ok_or(ChecksumError)?;
                Ok((byte << 4) | u8::try_from(digit).map_err(|_impossible| ChecksumError)?)
            })?;
        }
        Ok(Self(digest))
    }
}

impl Checksum {
    /// The checksum of all bytes that were hashed.
    pub(crate) fn of(digest: Sha256) -> Self {
        Self(digest.finalize().into())
    }

    /// The bytes of the hash.
    pub(crate) fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The checksum in hexadecimal. Every answer with a file has it.
    pub(crate) fn hex(&self) -> [u8; 64] {
        let mut hex = [0; 64];
        write_hex(&self.0, &mut hex);
        hex
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(std::str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_64_hexadecimal_digits() {
        let digits = "0123456789abcdef".repeat(4);
        for text in [digits.clone(), digits.to_uppercase()] {
            assert_eq!(text.parse::<Checksum>().unwrap().to_string(), digits);
        }
        for bad in [
            "",
            "abc",
            &"g".repeat(64),
            &"0".repeat(65),
            &"+f".repeat(32),
            &"é".repeat(32),
        ] {
            assert_eq!(bad.parse::<Checksum>(), Err(ChecksumError), "{bad}");
        }
    }
}
