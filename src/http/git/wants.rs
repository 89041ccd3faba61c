//! The commits that a git client names: those that it asks for, and those at which its history ends.
//!
//! git's `upload-pack` gives any object that the repository has, listed or not (gitnamespaces(7), "Security"). The git index
//! borrows the objects of the clone, among them the upstream's commits and index files, to which no rule was applied. So
//! under rules a client gets only the states of the git index itself. A client that wants to deepen its history gets the
//! parents of the commits at which it ends, so those must be such states, too.

use std::sync::Arc;

use crate::http::error::{ApiError, GitComplaint};
use crate::index::{GitIndex, NamedCommit};

/// The length of a packet's head: the packet's length in hexadecimal, the head included.
const HEAD_BYTES: usize = 4;

const WANT: &[u8] = b"want ";

const SHALLOW: &[u8] = b"shallow ";

/// The part of a packet that is looked at: the longer word, and an id.
const NAMED_BYTES: usize = SHALLOW.len() + 40;

/// Looks at a request on its way to git.
pub(super) struct WantCheck {
    git: Arc<GitIndex>,
    packets: Packets,
}

impl WantCheck {
    /// Looks at a request that this state of the git index answers.
    pub(super) fn new(git: Arc<GitIndex>) -> Self {
        Self {
            git,
            packets: Packets::default(),
        }
    }

    /// Checks more of the request.
    ///
    /// # Errors
    /// 403 for an object that is no state of the git index.
    pub(super) async fn check(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        let mut named = self.packets.named_in(bytes);
        named.retain(|named| named.commit.0 != self.git.tip);
        if named.is_empty() {
            return Ok(());
        }
        let git = Arc::clone(&self.git);
        let refused = tokio::task::spawn_blocking(move || git.refused_of(&named)).await;
        match refused.map_err(ApiError::internal)? {
            Ok(None) => Ok(()),
            Ok(Some(commit)) => Err(ApiError::GitCommitRefused(commit.to_string())),
            Err(error) => Err(ApiError::GitFailed(GitComplaint(
                error.message().to_owned(),
            ))),
        }
    }
}

/// Reads packets piece by piece (gitprotocol-common(5), "pkt-line"). What it finds after a broken packet does not
/// matter, because git ends there.
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
    fn named_in(&mut self, mut bytes: &[u8]) -> Vec<NamedCommit> {
        let mut found = Vec::new();
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
            let (part, _) = split(part, NAMED_BYTES - self.content.len());
            self.content.extend_from_slice(part);
            if self.left == 0 {
                found.extend(named(&self.content));
                self.content.clear();
            }
        }
        found
    }
}

/// The commit that a packet names.
fn named(content: &[u8]) -> Option<NamedCommit> {
    let (id, is_wanted) = match content.strip_prefix(WANT) {
        Some(id) => (id.get(..40).unwrap_or(id), true),
        None => (content.strip_prefix(SHALLOW)?, false),
    };
    let commit = std::str::from_utf8(id).ok()?.parse().ok()?;
    Some(NamedCommit { commit, is_wanted })
}

/// So many bytes at most, and the rest.
fn split(bytes: &[u8], most: usize) -> (&[u8], &[u8]) {
    bytes.split_at_checked(most).unwrap_or((bytes, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_commits_are_found_wherever_a_request_is_cut() {
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
            packet(&format!("shallow {}\n", id("d"))),
            packet(&format!("shallow {}", id("e"))),
            packet("deepen 1"),
            "0000".to_owned(),
        ]
        .concat();
        let expected = ["2", "b", "c", "d", "e"].map(|digit| NamedCommit {
            commit: id(digit).parse().unwrap(),
            is_wanted: !matches!(digit, "d" | "e"),
        });
        for size in 1..request.len() {
            let mut packets = Packets::default();
            let pieces = request.as_bytes().chunks(size);
            let found: Vec<_> = pieces.flat_map(|piece| packets.named_in(piece)).collect();
            assert_eq!(found, expected, "{size}");
        }
        let mut packets = Packets::default();
        for junk in ["zzzz", "ffff", "+fff", "\u{e9}\u{e9}", "0003", "0000"] {
            packets.named_in(junk.as_bytes());
        }
    }
}
