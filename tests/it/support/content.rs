//! The bytes of a file, which may be more than fit into memory.

use std::io::{self, Write};
use std::ops::Range;

use sha2::{Digest, Sha256};

/// Noise is made in pieces of this length.
const PIECE_LENGTH: usize = 64 * 1024;

/// What a file holds.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// These bytes.
    Given(Vec<u8>),
    /// Noise that is made up while it is sent, the same each time.
    Noise {
        /// Another seed, other noise.
        seed: u64,
        /// How many bytes.
        length: usize,
    },
}

impl Content {
    /// How many bytes.
    pub(crate) fn length(&self) -> usize {
        match self {
            Self::Given(bytes) => bytes.len(),
            Self::Noise { length, .. } => *length,
        }
    }

    /// SHA-256 as the index writes it.
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
            // Pieces differ by their number, so that none can stand for another.
            piece[..8].copy_from_slice(&number.to_le_bytes());
            let length = (PIECE_LENGTH - begin).min(part.end - from);
            to.write_all(&piece[begin..begin + length])?;
            from += length;
        }
        Ok(())
    }
}

/// SHA-256 as the index writes it.
pub(crate) fn checksum(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
