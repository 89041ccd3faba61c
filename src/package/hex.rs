//! Bytes as hexadecimal text. It is fast, because many answers have an id or a checksum in a header.

const DIGITS: [u8; 16] = *b"0123456789abcdef";

/// Writes two digits for each byte. `text` must be twice as long.
pub(crate) fn write_hex(bytes: &[u8], text: &mut [u8]) {
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or_default();
        pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}
