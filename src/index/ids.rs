//! Ids of git objects: of any object, of a commit of the upstream index, and of an index file's content.

use std::fmt;
use std::str::FromStr;

use git2::{ObjectType, Oid};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha1::{Digest as _, Sha1};

use crate::package::write_hex;

/// The id of a git object: 20 bytes, shown in hexadecimal.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectId([u8; 20]);

impl From<Oid> for ObjectId {
    fn from(oid: Oid) -> Self {
        // libgit2 is built for SHA-1 here, whose ids have 20 bytes.
        Self(oid.as_bytes().try_into().unwrap_or_default())
    }
}

impl ObjectId {
    /// Computes git's id of an object. libgit2 also detects SHA-1 collision attacks, which takes several times as long. Only
    /// objects that the mirror itself writes are hashed here.
    pub(crate) fn of(kind: ObjectType, content: &[u8]) -> Self {
        let head = format!("{kind} {}\0", content.len());
        let hash = Sha1::new().chain_update(head).chain_update(content);
        Self(hash.finalize().into())
    }

    /// The id in hexadecimal.
    pub(crate) fn hex(self) -> [u8; 40] {
        let mut hex = [0; 40];
        write_hex(&self.0, &mut hex);
        hex
    }

    /// The id as git stores it.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Makes an id from 20 bytes; `None` for any other number of bytes.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The id in git2's type.
    pub(super) fn to_oid(self) -> Result<Oid, git2::Error> {
        Oid::from_bytes(&self.0)
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written in one piece, because every answer from the index contains an id.
        formatter.write_str(std::str::from_utf8(&self.hex()).unwrap_or_default())
    }
}

impl fmt::Debug for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for ObjectId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = String::deserialize(deserializer)?.parse::<CommitId>();
        id.map(|CommitId(id)| id).map_err(D::Error::custom)
    }
}

/// The id of a commit: of the upstream index, or of the git index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CommitId(pub(crate) ObjectId);

/// A text that is not 40 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a commit id is 40 hexadecimal digits")]
pub(crate) struct NotACommitId;

impl FromStr for CommitId {
    type Err = NotACommitId;

    fn from_str(text: &str) -> Result<Self, NotACommitId> {
        // git2 takes shortened ids, too.
        let id = Oid::from_str(text).ok().filter(|_| text.len() == 40);
        id.map(|id| Self(id.into())).ok_or(NotACommitId)
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The id of an index file's content. Equal content has the same id on every replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlobId(pub(crate) ObjectId);

impl BlobId {
    /// Computes git's id of this content.
    pub(crate) fn of(content: &[u8]) -> Self {
        Self(ObjectId::of(ObjectType::Blob, content))
    }
}

impl From<BlobId> for ObjectId {
    fn from(blob: BlobId) -> Self {
        blob.0
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
