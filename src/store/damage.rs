//! Files whose bytes do not match their checksum.

/// What happens to a damaged file. It is never served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DamagedFiles {
    /// It is removed, because it can be fetched again.
    Remove,
    /// It stays, because only an operator can replace it.
    Leave,
}

/// What hashing a whole file found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileHealth {
    /// The bytes match the checksum.
    Intact {
        /// The number of bytes.
        size: u64,
    },
    /// The bytes do not match the checksum.
    Damaged,
    /// The file was removed.
    Missing,
}
