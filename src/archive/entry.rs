//! The entries of an archive: their names, and how large each may be.

use std::fmt;
use std::io::{self, Read, Write};

use tar::{Builder, EntryType, Header};

use crate::package::Checksum;

/// The largest text entry. Real ones have a few fields.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// The largest `held.txt`: 16 million checksums, eight times those of crates.io. Each takes 32 bytes of memory.
const CHECKSUMS_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The largest index file. A pack of the whole index of crates.io has a quarter of a gigabyte.
const INDEX_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024 * 1024;

/// The largest crate file: a hundred times the limit of crates.io.
const CRATE_FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The longest name of an index file. A plain tar header can hold it.
const INDEX_NAME_BYTES_MAX: usize = 90;

/// The name of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum EntryName {
    /// `manifest.json`.
    Manifest,
    /// `held.txt`.
    Checksums,
    /// `index/{name}`.
    Index(String),
    /// `crates/{sha256}.crate`.
    Crate(Checksum),
    /// `end.json`.
    End,
}

impl EntryName {
    /// Reads the name of an entry. `None` for other names, like a path that leads elsewhere.
    pub(super) fn parse(path: &[u8]) -> Option<Self> {
        Some(match std::str::from_utf8(path).ok()? {
            "manifest.json" => Self::Manifest,
            "held.txt" => Self::Checksums,
            "end.json" => Self::End,
            path => match path.split_once('/')? {
                ("index", name) if is_index_name(name) => Self::Index(name.to_owned()),
                ("crates", file) => {
                    let checksum: Checksum = file.strip_suffix(".crate")?.parse().ok()?;
                    // Each file has one spelling.
                    (format!("{checksum}.crate") == file).then_some(Self::Crate(checksum))?
                }
                _ => return None,
            },
        })
    }

    /// The largest size of such an entry.
    pub(super) fn bytes_max(&self) -> u64 {
        match self {
            Self::Manifest | Self::End => TEXT_BYTES_MAX,
            Self::Checksums => CHECKSUMS_BYTES_MAX,
            Self::Index(_) => INDEX_FILE_BYTES_MAX,
            Self::Crate(_) => CRATE_FILE_BYTES_MAX,
        }
    }

    /// Writes the entry. The content must have exactly this many bytes.
    pub(super) fn write(
        &self,
        to: &mut Builder<impl Write>,
        bytes: u64,
        content: impl Read,
    ) -> io::Result<()> {
        let mut header = Header::new_ustar();
        header.set_path(self.to_string())?;
        header.set_size(bytes);
        header.set_mode(0o644);
        header.set_entry_type(EntryType::Regular);
        // No times, no owners: the same content gives the same archive.
        header.set_mtime(0);
        header.set_cksum();
        to.append(&header, content)
    }
}

/// Whether a file of the index may have this name.
pub(super) fn is_index_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    name.len() <= INDEX_NAME_BYTES_MAX
        && name.bytes().all(is_plain)
        && name
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
}

impl fmt::Display for EntryName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Manifest => formatter.write_str("manifest.json"),
            Self::Checksums => formatter.write_str("held.txt"),
            Self::Index(name) => write!(formatter, "index/{name}"),
            Self::Crate(checksum) => write!(formatter, "crates/{checksum}.crate"),
            Self::End => formatter.write_str("end.json"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_names_of_the_format_are_accepted() {
        let hex = "0123456789abcdef".repeat(4);
        for good in [
            "manifest.json".to_owned(),
            "held.txt".to_owned(),
            "end.json".to_owned(),
            "index/pack-0a.pack".to_owned(),
            format!("crates/{hex}.crate"),
        ] {
            assert_eq!(EntryName::parse(good.as_bytes()).unwrap().to_string(), good);
        }
        for bad in [
            String::new(),
            "/manifest.json".to_owned(),
            "./manifest.json".to_owned(),
            "index/".to_owned(),
            "index/..".to_owned(),
            "index/.git".to_owned(),
            "index/../x".to_owned(),
            "index//x".to_owned(),
            "index/a\0b".to_owned(),
            "index/-rf".to_owned(),
            format!("index/{}", "a".repeat(91)),
            "crates/x.crate".to_owned(),
            format!("crates/{hex}"),
            format!("crates/{}.crate", hex.to_uppercase()),
            format!("crates/../crates/{hex}.crate"),
        ] {
            assert_eq!(EntryName::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_gives_the_text_back(path in proptest::collection::vec(any::<u8>(), 0..100)) {
            if let Some(name) = EntryName::parse(&path) {
                prop_assert_eq!(name.to_string().into_bytes(), path);
            }
        }
    }
}
