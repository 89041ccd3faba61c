//! What every place for crate files must do.

mod contract;
#[cfg(target_os = "linux")]
mod open;
mod probe;
#[expect(dead_code, reason = "the integration tests use the rest")]
#[path = "../../../tests/it/support/s3_server.rs"]
mod s3_server;

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::testing::store_at;
use super::{CrateStore, StorageLocation};
use crate::package::Checksum;
use crate::upstream::Receiver;

/// A store at this place.
fn open(location: StorageLocation) -> Arc<CrateStore> {
    store_at(location, None)
}

/// Bytes that differ from each other, and their checksum.
fn file(size: usize, seed: u8) -> (Bytes, Checksum) {
    let bytes: Vec<u8> = (0..size)
        .map(|at| ((at / 7 + at * 31) % 251).to_le_bytes()[0] ^ seed)
        .collect();
    let checksum = Checksum::of(Sha256::new_with_prefix(&bytes));
    (bytes.into(), checksum)
}

/// Stores a file.
async fn keep(store: &CrateStore, bytes: &Bytes, checksum: &Checksum) {
    let mut spool = store.spool(checksum);
    for part in bytes.chunks(100_000) {
        spool.write(bytes.slice_ref(part)).await.unwrap();
    }
    spool.finish().await.unwrap();
}
