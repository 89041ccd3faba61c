//! Files that are kept open.

use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::super::StorageLocation;
use super::super::open_file::OPEN_TIME_MAX;
use super::{file, keep, open};

/// Whether this process has the file open, although it was removed.
fn is_open(path: &Path) -> bool {
    let removed = format!("{} (deleted)", path.display());
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    links
        .flatten()
        .filter_map(|link| std::fs::read_link(link.path()).ok())
        .any(|path| path.as_os_str() == removed.as_str())
}

#[tokio::test]
async fn a_file_that_was_removed_is_closed_although_nobody_asks_for_it_again() {
    let directory = TempDir::new().unwrap();
    let root = directory.path().canonicalize().unwrap();
    let store = open(StorageLocation::within(root.clone()));
    let (bytes, checksum) = file(1000, 1);
    keep(&store, &bytes, &checksum).await;
    let held = store.find(&checksum).await.unwrap();
    assert!(held.is_some());
    let path = root.join(store.key(&checksum).as_ref());
    std::fs::remove_file(&path).unwrap();
    drop(held);
    let disk = store.disk.as_ref().unwrap();
    let opened_by = Instant::now();
    disk.close_expired(opened_by);
    assert!(is_open(&path), "not for long enough");
    disk.close_expired(opened_by + OPEN_TIME_MAX + Duration::from_millis(1));
    assert!(!is_open(&path));
    assert!(store.find(&checksum).await.unwrap().is_none());
}
