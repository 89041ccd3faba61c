//! Hashing a whole file on its way from a cloud to a client, which never gets the end of a damaged one.

use std::io;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use crate::package::Checksum;
use crate::store::objects::Reading;

/// The bytes do not match the checksum.
#[derive(Debug, thiserror::Error)]
#[error("the file in the store is damaged")]
struct Damaged;

/// Whether a read ended because of damage, and not because the store failed.
pub(super) fn is_damage(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|source| source.is::<Damaged>())
}

/// The error of a damaged file.
pub(super) fn damaged() -> io::Error {
    io::Error::other(Damaged)
}

/// The same parts. The last one comes only if all of them have this checksum; otherwise an error, after `report`.
pub(super) fn check_whole(
    parts: Reading,
    checksum: Checksum,
    report: impl Future<Output = ()> + Send + 'static,
) -> Reading {
    let begin = (parts, Sha256::new(), None, Box::pin(report));
    let checked = stream::try_unfold(begin, move |state| async move {
        let (mut parts, mut digest, mut kept_back, report) = state;
        while let Some(part) = parts.try_next().await? {
            digest.update(&part);
            if let Some(before) = kept_back.replace(part) {
                return Ok(Some((before, (parts, digest, kept_back, report))));
            }
        }
        let Some(last) = kept_back else {
            return Ok(None);
        };
        if Checksum::of(digest) != checksum {
            report.await;
            return Err(damaged());
        }
        Ok(Some((last, (parts, Sha256::new(), None, report))))
    });
    checked.boxed()
}
