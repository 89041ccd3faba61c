//! Reading an archive from a stream, once and in order, trusting nothing in it.

use std::io::{self, Read};

use tar::{Archive, Entries, Entry, EntryType};
use tokio_util::sync::CancellationToken;

use super::checked::{Checked, Verdict};
use super::entry::EntryName;
use super::held::HeldList;
use super::manifest::{End, Manifest, ManifestError};
use crate::package::Checksum;

/// Why an archive is no good.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    /// It does not begin like one.
    #[error("it is not an archive that `export` wrote")]
    NotAnArchive,
    /// Its manifest is no good.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Something stands where it must not, or is larger than it may be.
    #[error("`{entry}`: {what}")]
    Malformed {
        /// The entry.
        entry: String,
        /// What is wrong.
        what: &'static str,
    },
    /// It is cut off.
    #[error("it ends early: some of it was lost on its way here")]
    Truncated,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// Somebody stopped it.
    #[error("stopped")]
    Stopped,
}

/// The first two entries.
#[derive(Clone, Debug)]
pub(crate) struct Beginning {
    /// What the archive says of itself.
    pub(crate) manifest: Manifest,
    /// All that the target holds afterwards.
    pub(crate) held: HeldList,
}

/// Someone who takes what is in an archive.
pub(crate) trait Taker {
    /// Why it cannot be taken.
    type Error: From<ArchiveError>;

    /// The archive begins like this.
    fn begin(&mut self, beginning: &Beginning) -> Result<(), Self::Error>;

    /// A file of the index. It may be read or not.
    fn index_file<R: Read>(
        &mut self,
        name: &str,
        bytes: u64,
        content: &mut Checked<'_, R>,
    ) -> Result<(), Self::Error>;

    /// A crate file. It may be read or not.
    fn crate_file<R: Read>(
        &mut self,
        checksum: Checksum,
        bytes: u64,
        content: &mut Checked<'_, R>,
    ) -> Result<(), Self::Error>;
}

/// Reads no more than the beginning of an archive.
pub(crate) fn read_beginning(from: impl Read) -> Result<Beginning, ArchiveError> {
    let mut archive = Archive::new(from);
    let entries = archive.entries().map_err(ArchiveError::Unreadable)?;
    begin(&mut entries.raw(true))
}

/// Reads an archive to its end, and makes sure that it is one.
pub(crate) fn read_archive<T: Taker>(
    from: impl Read,
    taker: &mut T,
    stop: &CancellationToken,
) -> Result<Beginning, T::Error> {
    let mut archive = Archive::new(from);
    let entries = archive.entries().map_err(ArchiveError::Unreadable)?;
    let mut entries = entries.raw(true);
    let beginning = begin(&mut entries)?;
    taker.begin(&beginning)?;
    let mut so_far = End::default();
    let mut last_crate = None;
    loop {
        if stop.is_cancelled() {
            return Err(ArchiveError::Stopped.into());
        }
        let (name, mut entry) = next(&mut entries)?.ok_or(ArchiveError::Truncated)?;
        let bytes = entry.size();
        match &name {
            EntryName::Index(file) if last_crate.is_none() => {
                let mut content = Checked::sized(&mut entry, bytes, stop);
                let taken = taker.index_file(file, bytes, &mut content);
                finish(&mut content)?;
                taken?;
                so_far.index_files += 1;
            }
            EntryName::Crate(checksum) if last_crate < Some(*checksum) => {
                if !beginning.held.contains(checksum) {
                    return Err(malformed(&name, "it is not in held.txt").into());
                }
                let mut content = Checked::hashed(&mut entry, bytes, *checksum, stop);
                let taken = taker.crate_file(*checksum, bytes, &mut content);
                finish(&mut content)?;
                taken?;
                last_crate = Some(*checksum);
                so_far.crate_files += 1;
            }
            EntryName::End => {
                check_end(&read_text(&name, entry)?, &so_far, &beginning.manifest)?;
                break;
            }
            _ => return Err(malformed(&name, "it stands in the wrong place").into()),
        }
        so_far.bytes += bytes;
    }
    match next(&mut entries)? {
        None => Ok(beginning),
        Some((name, _)) => Err(malformed(&name, "it stands behind the end").into()),
    }
}

fn begin<R: Read>(entries: &mut Entries<'_, R>) -> Result<Beginning, ArchiveError> {
    let first = next(entries).map_err(|error| match error {
        // What the system says of reading is no word about the archive.
        ArchiveError::Unreadable(error) if error.raw_os_error().is_some() => {
            ArchiveError::Unreadable(error)
        }
        // Whatever is no tar file at all.
        ArchiveError::Unreadable(_) | ArchiveError::Malformed { .. } | ArchiveError::Truncated => {
            ArchiveError::NotAnArchive
        }
        other => other,
    })?;
    let Some((EntryName::Manifest, entry)) = first else {
        return Err(ArchiveError::NotAnArchive);
    };
    let manifest = Manifest::parse(&read_text(&EntryName::Manifest, entry)?)?;
    let Some((EntryName::Held, entry)) = next(entries)? else {
        return Err(ArchiveError::Truncated);
    };
    let bytes = entry.size();
    let held = HeldList::read(io::BufReader::new(entry), bytes).map_err(unreadable)?;
    match held {
        Some(held) if held.count() == manifest.held_files => Ok(Beginning { manifest, held }),
        _ => Err(malformed(
            &EntryName::Held,
            "it is not the list that the manifest promises",
        )),
    }
}

/// The next entry, if it is one of the format.
fn next<'a, R: Read>(
    entries: &mut Entries<'a, R>,
) -> Result<Option<(EntryName, Entry<'a, R>)>, ArchiveError> {
    let Some(entry) = entries.next().transpose().map_err(unreadable)? else {
        return Ok(None);
    };
    let header = entry.header();
    // Names are short enough for plain headers; extensions could say another name or size to another reader.
    let name = EntryName::parse(&header.path_bytes());
    let Some(name) = name.filter(|_| header.entry_type() == EntryType::Regular) else {
        return Err(ArchiveError::Malformed {
            entry: String::from_utf8_lossy(&header.path_bytes())
                .escape_debug()
                .to_string(),
            what: "nothing that an archive has",
        });
    };
    if entry.size() > name.bytes_max() {
        return Err(malformed(&name, "it is too large"));
    }
    Ok(Some((name, entry)))
}

/// Reads what the taker left. A wrong checksum is the taker's concern, an archive that breaks off is not.
fn finish<R: Read>(content: &mut Checked<'_, R>) -> Result<(), ArchiveError> {
    let rest = io::copy(content, &mut io::sink());
    match content.verdict() {
        Verdict::Good | Verdict::WrongChecksum => Ok(()),
        Verdict::TooShort => Err(ArchiveError::Truncated),
        Verdict::Stopped => Err(ArchiveError::Stopped),
        Verdict::Unfinished | Verdict::TooLong => {
            Err(rest.err().map_or(ArchiveError::Truncated, unreadable))
        }
    }
}

fn read_text(name: &EntryName, entry: Entry<'_, impl Read>) -> Result<Vec<u8>, ArchiveError> {
    let bytes = entry.size();
    let mut text = Vec::new();
    let read = entry.take(name.bytes_max()).read_to_end(&mut text);
    match read.map_err(unreadable)? {
        read if u64::try_from(read) == Ok(bytes) => Ok(text),
        _ => Err(ArchiveError::Truncated),
    }
}

fn check_end(text: &[u8], so_far: &End, manifest: &Manifest) -> Result<(), ArchiveError> {
    let end: End = serde_json::from_slice(text)
        .map_err(|_no_end| malformed(&EntryName::End, "it cannot be read"))?;
    let promised = (manifest.index_files, manifest.crate_files);
    if end == *so_far && promised == (so_far.index_files, so_far.crate_files) {
        Ok(())
    } else {
        Err(malformed(
            &EntryName::End,
            "it counts other files than there were",
        ))
    }
}

fn malformed(name: &EntryName, what: &'static str) -> ArchiveError {
    ArchiveError::Malformed {
        entry: name.to_string(),
        what,
    }
}

fn unreadable(error: io::Error) -> ArchiveError {
    // What `tar` says of a header that breaks off comes without this kind.
    let breaks_off = error.kind() == io::ErrorKind::UnexpectedEof
        || error.to_string().contains("failed to read entire block");
    if breaks_off {
        ArchiveError::Truncated
    } else {
        ArchiveError::Unreadable(error)
    }
}
