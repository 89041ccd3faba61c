//! The errors of a store that a mirror cannot use.

use super::contract::variables_of;
use super::s3_server::{BUCKET, S3Fault, S3Server};
use crate::store::StorageLocation;
use crate::store::probe::{Access, ProbeError, probe};

fn at(place: &str) -> StorageLocation {
    StorageLocation::parse(place, Vec::new()).unwrap()
}

#[tokio::test]
async fn a_good_store_passes_and_nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let server = S3Server::start();
    let bucket = StorageLocation::parse(&format!("s3://{BUCKET}/a"), variables_of(&server));
    let disk = directory.path().join("made/when/opened");
    for place in [
        at(disk.to_str().unwrap()),
        at(directory.path().to_str().unwrap()),
        bucket.unwrap(),
        at("memory://"),
    ] {
        for access in [Access::Read, Access::Write] {
            probe(&place, access).await.unwrap();
        }
    }
    assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    let below = server.bucket().join("a").read_dir();
    assert_eq!(below.map_or(0, Iterator::count), 0);
}

#[tokio::test]
async fn the_error_says_what_does_not_work() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let below_a_file = at(file.join("store").to_str().unwrap());
    let error = probe(&below_a_file, Access::Read).await.unwrap_err();
    assert!(matches!(error, ProbeError::Open(_)), "{error}");

    let server = S3Server::start();
    let bucket = format!("s3://{BUCKET}");
    let bucket = StorageLocation::parse(&bucket, variables_of(&server)).unwrap();
    server.set(S3Fault::StatusOfWrites(403));
    probe(&bucket, Access::Read).await.unwrap();
    let error = probe(&bucket, Access::Write).await.unwrap_err();
    assert!(matches!(error, ProbeError::Put(_)), "{error}");
    server.set(S3Fault::Status(403));
    let error = probe(&bucket, Access::Read).await.unwrap_err();
    assert!(matches!(error, ProbeError::List(_)), "{error}");
}
