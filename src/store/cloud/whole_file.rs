//! Hashing a whole file on its way from a cloud to a client, which never gets the end of a damaged one.

use std::{io, mem};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use crate::package::Checksum;
use crate::store::objects::{Reading, checksum_of};

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
    struct State<R> {
        parts: Reading,
        digest: Sha256,
        kept_back: Option<Bytes>,
        report: R,
    }

    let state = State {
        parts,
        digest: Sha256::new(),
        kept_back: None,
        report: Some(Box::pin(report)),
    };
    let checked = stream::try_unfold(state, move |mut state| async move {
        loop {
            match state.parts.try_next().await? {
                Some(part) => {
                    state.digest.update(&part);
                    if let Some(before) = state.kept_back.replace(part) {
                        return Ok(Some((before, state)));
                    }
                }
                None => {
                    let Some(last) = state.kept_back.take() else {
                        return Ok(None);
                    };
                    if checksum_of(mem::take(&mut state.digest)) == checksum {
                        return Ok(Some((last, state)));
                    }
                    if let Some(report) = state.report.take() {
                        report.await;
                    }
                    return Err(damaged());
                }
            }
        }
    });
    checked.boxed()
}
