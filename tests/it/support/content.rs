//! The bytes of a file, which can be more than fit into memory.

use std::io::{self, Write};
use std::ops::Range;

use sha2::{Digest, Sha256};

/// Noise is generated in pieces of this length.
const PIECE_LENGTH: usize = 64 * 1024;

/// The content of a file.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// These bytes.
    Given(Vec<u8>),
    /// Noise that is generated while it is sent. It is the same each time.
    Noise {
        /// Each seed gives other noise.
        seed: u64,
        /// The length in bytes.
        length: usize,
    },
}

impl Content {
    /// The length in bytes.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Given(bytes) => bytes.len(),
            Self::Noise { length, .. } => *length,
        }
    }

    /// The SHA-256, as the index writes it.
    pub(crate) fn checksum(&self) -> String {
        let mut hasher = Sha256::new();
        self.write(0..self.length(), &mut hasher).unwrap();
        hex(&hasher.finalize())
    }

    /// Writes a part, piece by piece.
    pub(crate) fn write(&self, part: Range<usize>, to: &mut impl Write) -> io::Result<()> {
        let (seed, mut from) = match self {
            Self::Given(bytes) => return to.write_all(&bytes[part]),
            Self::Noise { seed, .. } => (*seed, part.start),
        };
        let mut piece = vec![0; PIECE_LENGTH];
        fastrand::Rng::with_seed(seed).fill(&mut piece);
        while from < part.end {
            let (number, begin) = (from / PIECE_LENGTH, from % PIECE_LENGTH);
            // Each piece contains its number, so no piece can replace another one.
            piece[..8].copy_from_slice(&number.to_le_bytes());
            let length = (PIECE_LENGTH - begin).min(part.end - from);
            to.write_all(&piece[begin..begin + length])?;
            from += length;
        }
        Ok(())
    }
}

/// The SHA-256, as the index writes it.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
