//! The commits that a git client asks for by their ids.
//!
//! git's `upload-pack` gives any object that the repository has, listed or not (gitnamespaces(7), "Security"). The git index
//! borrows the objects of the clone, among them the upstream's commits and index files, to which no rule was applied. So
//! under rules a client gets only the states of the git index itself.

use std::collections::HashSet;
use std::sync::Arc;

use crate::http::error::ApiError;
use crate::index::{CommitId, GitIndex};

/// The length of a packet's head: the packet's length in hexadecimal, the head included.
const HEAD_BYTES: usize = 4;

const WANT: &[u8] = b"want ";

/// The part of a packet that is looked at: a want and its id.
const WANT_BYTES: usize = WANT.len() + 40;

/// Looks at a request on its way to git.
pub(super) struct WantCheck {
    git: Arc<GitIndex>,
    /// The states before the current one; looked up once, if a client asks for one.
    earlier: Option<Arc<HashSet<CommitId>>>,
    packets: Packets,
}

impl WantCheck {
    /// For a request to this state.
    pub(super) fn new(git: Arc<GitIndex>) -> Self {
        Self {
            git,
            earlier: None,
            packets: Packets::default(),
        }
    }

    /// Checks more of the request.
    ///
    /// # Errors
    /// 403 for an object that is no state of the git index.
    pub(super) async fn check(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        let mut wanted = self.packets.wants_in(bytes);
        wanted.retain(|commit| commit.0 != self.git.tip);
        if wanted.is_empty() {
            return Ok(());
        }
        let earlier = match &self.earlier {
            Some(earlier) => Arc::clone(earlier),
            None => {
                let git = Arc::clone(&self.git);
                let found = tokio::task::spawn_blocking(move || git.earlier_states());
                let found = Arc::new(found.await.map_err(ApiError::internal)?);
                Arc::clone(self.earlier.insert(found))
            }
        };
        match wanted.iter().find(|commit| !earlier.contains(commit)) {
            Some(commit) => Err(ApiError::GitCommitRefused(commit.to_string())),
            None => Ok(()),
        }
    }
}

/// Reads packets piece by piece (gitprotocol-common(5), "pkt-line"). After what git would refuse it may find anything: git
/// then ends.
#[derive(Default)]
struct Packets {
    /// The part of a head that was read.
    head: Vec<u8>,
    /// The beginning of a packet's content.
    content: Vec<u8>,
    /// How much of the content was not read yet.
    left: usize,
}

impl Packets {
    fn wants_in(&mut self, mut bytes: &[u8]) -> Vec<CommitId> {
        let mut wants = Vec::new();
        while !bytes.is_empty() {
            if self.left == 0 {
                let (part, rest) = split(bytes, HEAD_BYTES - self.head.len());
                bytes = rest;
                self.head.extend_from_slice(part);
                if self.head.len() == HEAD_BYTES {
                    let length = std::str::from_utf8(&self.head).ok();
                    let length = length.and_then(|text| usize::from_str_radix(text, 16).ok());
                    // Those below 4 have a meaning without a content.
                    self.left = length.unwrap_or(0).saturating_sub(HEAD_BYTES);
                    self.head.clear();
                }
                continue;
            }
            let (part, rest) = split(bytes, self.left);
            bytes = rest;
            self.left -= part.len();
            let (part, _) = split(part, WANT_BYTES - self.content.len());
            self.content.extend_from_slice(part);
            if self.left == 0 {
                wants.extend(want(&self.content));
                self.content.clear();
            }
        }
        wants
    }
}

/// The commit that a packet asks for.
fn want(content: &[u8]) -> Option<CommitId> {
    let id = content.strip_prefix(WANT)?;
    std::str::from_utf8(id).ok()?.parse().ok()
}

/// So many bytes at most, and the rest.
fn split(bytes: &[u8], most: usize) -> (&[u8], &[u8]) {
    bytes.split_at_checked(most).unwrap_or((bytes, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wants_are_found_wherever_a_request_is_cut() {
        let id = |digit: &str| digit.repeat(40);
        let packet = |text: &str| format!("{:04x}{text}", text.len() + HEAD_BYTES);
        let request = [
            packet("command=fetch\n"),
            "0001".to_owned(),
            packet("thin-pack\n"),
            packet(&format!("have {}\n", id("1"))),
            "0004".to_owned(),
            packet(&format!("want {}\n", id("2")))
                .to_uppercase()
                .replace("WANT", "want"),
            packet(&format!("want {} side-band-64k ofs-delta\n", id("b"))),
            packet(&format!("wanted {}\n", id("3"))),
            packet(&format!("not a want {}\n", id("4"))),
            packet(&format!("want {}\n", "5".repeat(39))),
            packet(&format!("want {}", id("c"))),
            "0000".to_owned(),
        ]
        .concat();
        let expected = ["2", "b", "c"].map(|digit| id(digit).parse().unwrap());
        for size in 1..request.len() {
            let mut packets = Packets::default();
            let pieces = request.as_bytes().chunks(size);
            let found: Vec<CommitId> = pieces.flat_map(|piece| packets.wants_in(piece)).collect();
            assert_eq!(found, expected, "{size}");
        }
        let mut packets = Packets::default();
        for junk in ["zzzz", "ffff", "+fff", "\u{e9}\u{e9}", "0003", "0000"] {
            packets.wants_in(junk.as_bytes());
        }
    }
}
