//! The SHA-256 of a `.crate` file.

use std::fmt;

/// A SHA-256 in lower-case hexadecimal, as the index's `cksum` field has it.
///
/// Invariant: 64 characters, digits and `a` to `f`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Checksum(String);

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a checksum is 64 hexadecimal digits")]
pub(crate) struct ChecksumError;

impl TryFrom<String> for Checksum {
    type Error = ChecksumError;

    fn try_from(mut text: String) -> Result<Self, ChecksumError> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            text.make_ascii_lowercase();
            Ok(Self(text))
        } else {
            Err(ChecksumError)
        }
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_64_hexadecimal_digits_and_nothing_else() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(
            Checksum::try_from(digits.clone()).unwrap().to_string(),
            digits
        );
        assert_eq!(
            Checksum::try_from(digits.to_uppercase())
                .unwrap()
                .to_string(),
            digits
        );
        for bad in ["", "abc", &"g".repeat(64), &"0".repeat(65)] {
            assert_eq!(Checksum::try_from(bad.to_owned()), Err(ChecksumError));
        }
    }
}
