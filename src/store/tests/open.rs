//! Files that are kept open.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::{file, keep, open};
use crate::store::crate_store::Backend;
use crate::store::disk::directory::Disk;
use crate::store::disk::open_file::OPEN_TIME_MAX;
use crate::store::objects::key_of;
use crate::store::{CrateStore, StorageLocation};
use crate::upstream::Receiver;

/// Whether this process has the file open, although it was removed.
fn is_open(path: &Path) -> bool {
    let removed = format!("{} (deleted)", path.display());
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links
        .flatten()
        .filter_map(|link| std::fs::read_link(link.path()).ok())
        .any(|path| path.as_os_str() == removed.as_str())
}

fn disk_of(store: &CrateStore) -> &Disk {
    match &store.backend {
        Backend::Disk(disk) => disk,
        Backend::Cloud(_) => panic!("not a disk"),
    }
}

#[tokio::test]
async fn a_removed_file_is_closed_even_if_it_is_not_requested_again() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let store = open(StorageLocation::within(root.clone()));
    let (bytes, checksum) = file(1000, 1);
    keep(&store, &bytes, &checksum).await;
    let found = store.find(&checksum).await.unwrap();
    assert!(found.is_some());
    let path = root.join(key_of(&checksum).as_ref());
    std::fs::remove_file(&path).unwrap();
    drop(found);
    let disk = disk_of(&store);
    let opened_by = Instant::now();
    disk.close_expired(opened_by);
    assert!(is_open(&path), "not for long enough");
    disk.close_expired(opened_by + OPEN_TIME_MAX + Duration::from_millis(1));
    assert!(!is_open(&path));
    assert!(store.find(&checksum).await.unwrap().is_none());
}

#[tokio::test]
async fn a_file_that_was_hashed_on_its_way_into_the_store_is_not_hashed_again() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let store = open(StorageLocation::within(root.clone()));
    let (bytes, checksum) = file(1000, 1);
    let mut spool = store.spool(&checksum);
    spool.write(bytes.clone()).await.unwrap();
    store.put(&checksum, 1000, spool).await.unwrap();
    // Only hashing can find that the bytes have changed.
    let path = root.join(key_of(&checksum).as_ref());
    let replace_unnoticed = |content: &[u8]| {
        let stored = std::fs::File::options().write(true).open(&path).unwrap();
        let modified = stored.metadata().unwrap().modified().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&stored, content, 0).unwrap();
        stored.set_modified(modified).unwrap();
    };
    replace_unnoticed(&[b'x'; 1000]);
    assert!(store.find(&checksum).await.unwrap().is_some());
    // A file of which fewer bytes arrived is hashed.
    disk_of(&store).forget(&checksum);
    replace_unnoticed(&bytes);
    let mut spool = store.spool(&checksum);
    spool.write(bytes.slice(1..)).await.unwrap();
    store.put(&checksum, 1000, spool).await.unwrap();
    assert!(store.find(&checksum).await.unwrap().is_none());
}
