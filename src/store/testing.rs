//! Stores in memory, for the tests of other modules. Must be used inside a runtime.

use std::sync::Arc;

use object_store::ObjectStoreExt;
use sha2::{Digest, Sha256};

use super::objects::key_of;
use super::{CrateStore, DamagedFiles, StorageLocation, StoreSettings};
use crate::clock::Clock;
use crate::package::Checksum;

/// The checksum of this content.
pub(crate) fn checksum(content: &str) -> Checksum {
    Checksum::of(Sha256::new_with_prefix(content))
}

/// An empty store at this place.
pub(crate) fn store_at(location: StorageLocation, bytes_max: Option<u64>) -> Arc<CrateStore> {
    let settings = StoreSettings {
        location,
        bytes_max,
        damaged_files: DamagedFiles::Remove,
        clock: Clock::system(),
    };
    Arc::new(CrateStore::open(settings).unwrap())
}

/// An empty store in memory.
pub(crate) fn memory_store() -> Arc<CrateStore> {
    store_at(
        StorageLocation::parse("memory://", Vec::new()).unwrap(),
        None,
    )
}

/// Puts this content under any checksum.
pub(crate) async fn put(store: &CrateStore, checksum: &Checksum, content: &str) {
    let key = key_of(checksum);
    let content = content.to_owned().into_bytes();
    store.objects.store.put(&key, content.into()).await.unwrap();
}

/// A store of these contents.
pub(crate) async fn store_of(contents: &[&str]) -> Arc<CrateStore> {
    let store = memory_store();
    for content in contents {
        put(&store, &checksum(content), content).await;
    }
    store
}
