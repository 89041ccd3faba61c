//! Reading an archive from a stream, once and in order. Nothing in it is trusted.

use std::io::{self, Read};

use tar::{Archive, Entries, Entry, EntryType};
use tokio_util::sync::CancellationToken;

use super::checked_reader::{CheckedReader, ReadState};
use super::checksum_list::ChecksumList;
use super::entry::EntryName;
use super::error::ArchiveError;
use super::manifest::{End, Manifest};
use crate::package::Checksum;

/// The first two entries.
#[derive(Clone, Debug)]
pub(super) struct Beginning {
    /// The first entry.
    pub(super) manifest: Manifest,
    /// The second entry: all files that the target has afterwards.
    pub(super) files: ChecksumList,
}

/// An index file or a crate file.
pub(super) struct ArchivedFile<'r, R: Read> {
    /// Which one.
    pub(super) name: ArchivedName,
    /// Its size.
    pub(super) bytes: u64,
    /// Its content. The caller need not read it.
    pub(super) content: CheckedReader<'r, Entry<'r, R>>,
}

/// Which file of an archive.
#[derive(Clone, Debug)]
pub(super) enum ArchivedName {
    Index(String),
    Crate(Checksum),
}

/// Reads only the beginning of an archive.
pub(super) fn read_beginning(from: impl Read) -> Result<Beginning, ArchiveError> {
    let mut archive = Archive::new(from);
    let entries = archive.entries().map_err(ArchiveError::Unreadable)?;
    begin(&mut entries.raw(true))
}

/// Reads the files of an archive in order, and checks that it is complete.
pub(super) struct ArchiveReader<'r, R: Read> {
    entries: Entries<'r, R>,
    /// The first two entries.
    pub(super) beginning: Beginning,
    so_far: End,
    last_crate: Option<Checksum>,
    stop: &'r CancellationToken,
}

impl<'r, R: Read> ArchiveReader<'r, R> {
    /// Reads the first two entries.
    pub(super) fn begin(
        archive: &'r mut Archive<R>,
        stop: &'r CancellationToken,
    ) -> Result<Self, ArchiveError> {
        let entries = archive.entries().map_err(ArchiveError::Unreadable)?;
        let mut entries = entries.raw(true);
        Ok(Self {
            beginning: begin(&mut entries)?,
            entries,
            so_far: End::default(),
            last_crate: None,
            stop,
        })
    }

    /// The next file, which must be [`finished`](Self::finish) before the one after it. `None` at the end of a complete
    /// archive.
    pub(super) fn next(&mut self) -> Result<Option<ArchivedFile<'r, R>>, ArchiveError> {
        if self.stop.is_cancelled() {
            return Err(ArchiveError::Stopped);
        }
        let (name, entry) = next(&mut self.entries)?.ok_or(ArchiveError::Truncated)?;
        let bytes = entry.size();
        let (name, content) = match name {
            EntryName::Index(file) if self.last_crate.is_none() => {
                let content = CheckedReader::new(entry, bytes, None, self.stop);
                (ArchivedName::Index(file), content)
            }
            EntryName::Crate(checksum) if self.last_crate < Some(checksum) => {
                if !self.beginning.files.contains(&checksum) {
                    return Err(malformed(&name, "it is not in held.txt"));
                }
                let content = CheckedReader::new(entry, bytes, Some(checksum), self.stop);
                (ArchivedName::Crate(checksum), content)
            }
            EntryName::End => {
                check_end(
                    &read_text(&name, entry)?,
                    &self.so_far,
                    &self.beginning.manifest,
                )?;
                return match next(&mut self.entries)? {
                    None => Ok(None),
                    Some((name, _)) => Err(malformed(&name, "it stands behind the end")),
                };
            }
            name => return Err(malformed(&name, "it stands in the wrong place")),
        };
        Ok(Some(ArchivedFile {
            name,
            bytes,
            content,
        }))
    }

    /// Reads the rest of a file. The caller handles a wrong checksum. A truncated archive is an error.
    pub(super) fn finish(&mut self, mut file: ArchivedFile<'r, R>) -> Result<(), ArchiveError> {
        let rest = io::copy(&mut file.content, &mut io::sink());
        match file.content.state {
            ReadState::Intact | ReadState::WrongChecksum => {}
            ReadState::TooShort => return Err(ArchiveError::Truncated),
            ReadState::Stopped => return Err(ArchiveError::Stopped),
            ReadState::Unfinished | ReadState::TooLong => {
                return Err(rest.err().map_or(ArchiveError::Truncated, unreadable));
            }
        }
        match file.name {
            ArchivedName::Index(_) => self.so_far.index_files += 1,
            ArchivedName::Crate(checksum) => {
                self.last_crate = Some(checksum);
                self.so_far.crate_files += 1;
            }
        }
        self.so_far.bytes += file.bytes;
        Ok(())
    }
}

fn begin<R: Read>(entries: &mut Entries<'_, R>) -> Result<Beginning, ArchiveError> {
    let first = next(entries).map_err(|error| match error {
        // An error of the system does not mean that the archive is bad.
        ArchiveError::Unreadable(error) if error.raw_os_error().is_some() => {
            ArchiveError::Unreadable(error)
        }
        // It is not a tar file.
        ArchiveError::Unreadable(_) | ArchiveError::Malformed { .. } | ArchiveError::Truncated => {
            ArchiveError::NotAnArchive
        }
        other => other,
    })?;
    let Some((EntryName::Manifest, entry)) = first else {
        return Err(ArchiveError::NotAnArchive);
    };
    let manifest = Manifest::parse(&read_text(&EntryName::Manifest, entry)?)?;
    let Some((EntryName::Checksums, entry)) = next(entries)? else {
        return Err(ArchiveError::Truncated);
    };
    let bytes = entry.size();
    let files = ChecksumList::read(io::BufReader::new(entry), bytes).map_err(unreadable)?;
    match files {
        Some(files) if files.count() == manifest.held_files => Ok(Beginning { manifest, files }),
        _ => Err(malformed(
            &EntryName::Checksums,
            "it is not the list that the manifest promises",
        )),
    }
}

/// The next entry, whose name must be one of the format.
fn next<'a, R: Read>(
    entries: &mut Entries<'a, R>,
) -> Result<Option<(EntryName, Entry<'a, R>)>, ArchiveError> {
    let Some(entry) = entries.next().transpose().map_err(unreadable)? else {
        return Ok(None);
    };
    let header = entry.header();
    // Names fit into plain headers. With extensions another reader could see another name or size.
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
    // The `tar` crate reports a truncated header without this kind.
    let breaks_off = error.kind() == io::ErrorKind::UnexpectedEof
        || error.to_string().contains("failed to read entire block");
    if breaks_off {
        ArchiveError::Truncated
    } else {
        ArchiveError::Unreadable(error)
    }
}
