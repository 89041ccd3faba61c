//! One suite that every kind of place passes: memory, a disk, S3.
//!
//! Other places can be given in `STORE_CONTRACT_URLS`, separated by spaces, with the clouds' own variables:
//! `.ci/clouds` does so with emulators.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::ObjectStoreExt;

use super::s3_server::{ACCESS_KEY, BUCKET, S3Server, SECRET_KEY};
use super::{file, keep, open};
use crate::store::objects::{ListedFile, key_of};
use crate::store::{CrateStore, FileHealth, StorageLocation};
use crate::upstream::Receiver;

/// Larger than two parts of an upload.
const LARGE: usize = 11_000_000;

#[tokio::test]
async fn a_store_in_memory_meets_the_contract() {
    let place = StorageLocation::parse("memory://", Vec::new()).unwrap();
    // Each store has a memory of its own.
    check(&open(place)).await;
}

#[tokio::test]
async fn a_store_on_a_disk_meets_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made/when/opened");
    let place = StorageLocation::parse(path.to_str().unwrap(), Vec::new()).unwrap();
    check(&open(place.clone())).await;
    check_shared(&open(place.clone()), &open(place)).await;
}

#[tokio::test]
async fn a_store_in_s3_meets_the_contract() {
    let server = S3Server::start();
    let url = format!("s3://{BUCKET}/a/prefix");
    let place = StorageLocation::parse(&url, variables_of(&server)).unwrap();
    check(&open(place.clone())).await;
    check_shared(&open(place.clone()), &open(place)).await;
}

/// Google's store speaks the same protocol, with another login. There is no emulator of it.
#[tokio::test]
async fn a_store_through_googles_client_meets_the_contract() {
    let server = S3Server::start_open();
    let endpoint = server.endpoint();
    let variables = [
        ("GOOGLE_BASE_URL", endpoint.as_str()),
        ("GOOGLE_SERVICE_ACCOUNT_KEY", NO_LOGIN),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let place = StorageLocation::parse(&format!("gs://{BUCKET}/a"), variables.into()).unwrap();
    check(&open(place.clone())).await;
    check_shared(&open(place.clone()), &open(place)).await;
}

#[tokio::test]
async fn prefixes_of_a_bucket_are_stores_of_their_own() {
    let server = S3Server::start();
    let at = |prefix: &str| {
        let url = format!("s3://{BUCKET}/{prefix}");
        open(StorageLocation::parse(&url, variables_of(&server)).unwrap())
    };
    let (one, other) = (at("one"), at("two"));
    let (bytes, checksum) = file(10, 1);
    keep(&one, &bytes, &checksum).await;
    assert!(one.contains(&checksum).await.unwrap());
    assert!(!other.contains(&checksum).await.unwrap());
    assert_eq!(list(&other).await, HashSet::new());
}

#[tokio::test]
async fn stores_from_the_environment_meet_the_contract() {
    #[expect(clippy::disallowed_methods, reason = "no setting of the mirror")]
    let (urls, variables) = (std::env::var("STORE_CONTRACT_URLS"), std::env::vars());
    let variables: Vec<_> = variables.collect();
    for url in urls.unwrap_or_default().split_whitespace() {
        let place = StorageLocation::parse(url, variables.clone()).unwrap();
        check(&open(place.clone())).await;
        check_shared(&open(place.clone()), &open(place)).await;
    }
}

pub(super) fn variables_of(server: &S3Server) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", server.endpoint().as_str()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_REGION", "us-east-1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// An account of Google's that needs no token.
const NO_LOGIN: &str =
    r#"{"disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}"#;

async fn check(store: &Arc<CrateStore>) {
    for size in [0, 1, 50_000, LARGE] {
        check_one_file(store, size).await;
    }
    check_what_is_not_kept(store).await;
    check_damage(store).await;
    assert_eq!(list(store).await, HashSet::new());
}

async fn check_one_file(store: &Arc<CrateStore>, size: usize) {
    let (bytes, checksum) = file(size, 1);
    assert!(store.find(&checksum).await.unwrap().is_none());
    assert!(!store.contains(&checksum).await.unwrap());
    assert_eq!(store.verify(&checksum).await.unwrap(), FileHealth::Missing);
    keep(store, &bytes, &checksum).await;
    // A second mirror may store the same file.
    keep(store, &bytes, &checksum).await;
    assert!(store.contains(&checksum).await.unwrap());
    let size = size as u64;
    assert_eq!(
        list(store).await,
        HashSet::from([ListedFile { checksum, size }])
    );
    assert_eq!(
        store.verify(&checksum).await.unwrap(),
        FileHealth::Intact { size }
    );
    let found = store.find(&checksum).await.unwrap().unwrap();
    assert_eq!(found.size, size);
    for range in [
        0..size,
        0..size.min(1),
        size / 3..size / 2,
        size.saturating_sub(5)..size,
    ] {
        if range.is_empty() {
            continue;
        }
        let read = found.read(range.clone()).await.unwrap();
        let read: Vec<_> = read.try_collect().await.unwrap();
        let place = |at: u64| usize::try_from(at).unwrap();
        let expected = &bytes[place(range.start)..place(range.end)];
        assert!(read.concat() == expected, "{range:?} of {size}");
    }
    store.remove(&checksum).await.unwrap();
    store.remove(&checksum).await.unwrap();
    assert!(store.find(&checksum).await.unwrap().is_none());
}

/// Unverified and truncated files leave nothing behind.
async fn check_what_is_not_kept(store: &Arc<CrateStore>) {
    for size in [1_000, LARGE] {
        let (bytes, checksum) = file(size, 2);
        let mut spool = store.spool(&checksum);
        spool.write(bytes.clone()).await.unwrap();
        assert!(!store.contains(&checksum).await.unwrap());
        assert!(store.find(&checksum).await.unwrap().is_none());
        spool.discard().await;
        assert!(store.find(&checksum).await.unwrap().is_none());
        // A second attempt after a truncated one.
        let mut spool = store.spool(&checksum);
        spool
            .write(bytes.slice(..bytes.len() * 2 / 3))
            .await
            .unwrap();
        spool.restart().await;
        spool.write(bytes.clone()).await.unwrap();
        spool.finish().await.unwrap();
        assert_eq!(
            store.verify(&checksum).await.unwrap(),
            FileHealth::Intact { size: size as u64 }
        );
        store.remove(&checksum).await.unwrap();
    }
}

async fn check_damage(store: &Arc<CrateStore>) {
    let (bytes, checksum) = file(1_000, 3);
    keep(store, &bytes, &checksum).await;
    let key = key_of(&checksum);
    store
        .objects
        .store
        .put(&key, bytes.slice(..999).into())
        .await
        .unwrap();
    assert_eq!(store.verify(&checksum).await.unwrap(), FileHealth::Damaged);
    store.remove(&checksum).await.unwrap();
    // Foreign objects do not count as crate files.
    let stranger = object_store::path::Path::from(format!("{key}.txt"));
    store
        .objects
        .store
        .put(&stranger, "x".into())
        .await
        .unwrap();
    assert_eq!(list(store).await, HashSet::new());
    store.objects.store.delete(&stranger).await.unwrap();
}

async fn check_shared(one: &Arc<CrateStore>, other: &Arc<CrateStore>) {
    let (bytes, checksum) = file(LARGE, 4);
    tokio::join!(keep(one, &bytes, &checksum), keep(other, &bytes, &checksum));
    for store in [one, other] {
        let size = LARGE as u64;
        assert_eq!(
            store.verify(&checksum).await.unwrap(),
            FileHealth::Intact { size }
        );
    }
    one.remove(&checksum).await.unwrap();
    assert!(!other.contains(&checksum).await.unwrap());
}

async fn list(store: &Arc<CrateStore>) -> HashSet<ListedFile> {
    store.list().try_collect().await.unwrap()
}
