//! A store in a bucket: `STORAGE_URL=s3://…`. Also the S3 server of the tests.

use std::sync::Arc;
use std::time::Instant;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::SpawnedReqwestConnector;
use object_store::path::Path as ObjectPath;
use object_store::{MultipartUpload as _, ObjectStore, ObjectStoreExt as _};
use tokio::runtime::Runtime;

use super::*;
use crate::support::{S3Fault, S3Server};

/// More than one part of an upload, and of a download.
pub(super) const LARGE_LENGTH: usize = 11 * 512 * 1024;

/// How long the mirror waits for an unresponsive bucket.
const LOOK_MAX: Duration = Duration::from_secs(3);

/// A mirror with its files in a bucket.
pub(super) fn scene(bucket: &S3Server, origin: Origin) -> Scene {
    let its = bucket.settings();
    let settings = borrowed(&its);
    Scene::with(origin, &settings)
}

pub(super) fn small_and_large() -> Origin {
    Origin::with(vec![
        CrateFile::numbered(0),
        CrateFile::noise("large", "1.0.0", 1, LARGE_LENGTH),
    ])
}

/// The S3 server of the tests, seen through the library that the mirror uses.
fn client(server: &S3Server, runtime: &Runtime) -> Arc<dyn ObjectStore> {
    let connector = SpawnedReqwestConnector::new(runtime.handle().clone());
    let mut builder = AmazonS3Builder::new()
        .with_http_connector(connector)
        .with_allow_http(true);
    for (name, value) in server.settings() {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        } else {
            builder = builder.with_url(value);
        }
    }
    Arc::new(builder.build().unwrap())
}

#[test]
fn the_server_of_the_tests_speaks_s3() {
    drop(tokio_rustls::rustls::crypto::ring::default_provider().install_default());
    let server = S3Server::start();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let store = client(&server, &runtime);
    runtime.block_on(async {
        let (small, large) = (
            ObjectPath::from("ab/cd/small"),
            ObjectPath::from("ef/gh/large"),
        );
        store.put(&small, "0123456789".into()).await.unwrap();
        let range = store.get_range(&small, 3..6).await.unwrap();
        assert_eq!(&range[..], b"345");
        assert_eq!(store.head(&small).await.unwrap().size, 10);

        let mut upload = store.put_multipart(&large).await.unwrap();
        let part = vec![b'x'; 5 * 1024 * 1024];
        upload.put_part(part.into()).await.unwrap();
        assert!(
            store.head(&large).await.is_err(),
            "visible before it is complete"
        );
        upload.put_part("end".into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(store.head(&large).await.unwrap().size, 5 * 1024 * 1024 + 3);

        let mut given_up = store.put_multipart(&small).await.unwrap();
        given_up.put_part("other".into()).await.unwrap();
        given_up.abort().await.unwrap();
        let listed = store.list_with_delimiter(None).await.unwrap();
        assert_eq!(listed.common_prefixes.len(), 2, "{listed:?}");
        let kept = store.get(&small).await.unwrap().bytes().await.unwrap();
        assert_eq!(&kept[..], b"0123456789");

        store.delete(&small).await.unwrap();
        assert!(store.head(&small).await.is_err());
        server.set(S3Fault::Status(403));
        assert!(store.head(&large).await.is_err());
        server.set(S3Fault::None);
        assert!(store.head(&large).await.is_ok());
    });
    runtime.shutdown_background();
}

#[test]
fn a_bucket_stores_small_files_and_large_ones() {
    let bucket = S3Server::start();
    let mut scene = scene(&bucket, small_and_large());
    for _ in 0..2 {
        for file in &scene.origin.files {
            assert_serves(&scene.mirror, file);
        }
    }
    let held = StoredFiles::look(&bucket.bucket());
    assert_eq!(held.checksums.len(), 2, "{held:?}");
    assert_eq!(scene.origin.fetched().len(), 2);
    assert!(!scene.store().exists(), "the disk has crate files");

    // Another mirror with an empty disk finds the files.
    scene.origin.upstream.stop();
    let its = bucket.settings();
    let settings = borrowed(&its);
    let data = TempDir::new().unwrap();
    let second = mirror(&scene.origin, data.path(), &settings, |_config| ());
    for file in &scene.origin.files {
        assert_serves(&second, file);
        let headers = [("Range", "bytes=100-199")];
        let part = second.request("GET", &file.download_path(), &headers);
        assert_eq!(part.status, 206, "{part:?}");
        assert!(part.body == file.bytes()[100..200]);
        let etag = format!("\"{}\"", file.checksum());
        let headers = [("If-None-Match", etag.as_str())];
        let same = second.request("GET", &file.download_path(), &headers);
        assert_eq!(same.status, 304);
    }
}

#[test]
fn wrong_bytes_never_get_into_the_bucket() {
    let bucket = S3Server::start();
    let scene = scene(&bucket, small_and_large());
    for fault in [
        UpstreamFault::WrongBytes,
        UpstreamFault::CutShort,
        UpstreamFault::Extended,
    ] {
        scene.origin.upstream.fail(fault);
        for number in 0..2 {
            assert_fails(&scene.download(number), 502);
        }
        scene.origin.upstream.heal();
    }
    assert!(StoredFiles::look(&bucket.bucket()).checksums.is_empty());
    for file in &scene.origin.files {
        assert_serves(&scene.mirror, file);
    }
    assert_eq!(StoredFiles::look(&bucket.bucket()).checksums.len(), 2);
}

#[test]
fn files_are_served_although_a_bucket_refuses_writes() {
    let bucket = S3Server::start();
    let scene = scene(&bucket, Origin::of(2));
    bucket.set(S3Fault::StatusOfWrites(403));
    for _ in 0..2 {
        assert_serves(&scene.mirror, &scene.origin.files[0]);
    }
    assert!(StoredFiles::look(&bucket.bucket()).checksums.is_empty());
    bucket.set(S3Fault::None);
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    assert_eq!(StoredFiles::look(&bucket.bucket()).checksums.len(), 1);
}

#[test]
fn an_unreachable_bucket_never_gives_404() {
    let mut bucket = S3Server::start();
    let scene = scene(&bucket, Origin::of(2));
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    bucket.set(S3Fault::Status(403));
    // An answer has verified bytes from the upstream, or it is an error.
    for number in 0..2 {
        let answer = scene.download(number);
        if answer.status == 200 {
            assert!(answer.body == scene.origin.files[number].bytes());
        } else {
            assert!((500..=504).contains(&answer.status), "{answer:?}");
        }
    }
    bucket.set(S3Fault::None);
    for file in &scene.origin.files {
        assert_serves(&scene.mirror, file);
    }
    bucket.stop();
    let answer = scene.download(1);
    assert!(matches!(answer.status, 200 | 500..=504), "{answer:?}");
}

#[test]
fn a_bucket_that_hangs_delays_only_the_first_requests() {
    let bucket = S3Server::start();
    let scene = scene(&bucket, Origin::of(4));
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    bucket.set(S3Fault::Hang);
    // Both files are sent from memory. The mirror knows that the bucket has the first one. The bucket may have the
    // second one.
    std::thread::scope(|threads| {
        for number in 0..2 {
            let scene = &scene;
            threads.spawn(move || assert_serves(&scene.mirror, &scene.origin.files[number]));
        }
    });
    // The next request does not wait for the unresponsive bucket.
    let began = Instant::now();
    assert_serves(&scene.mirror, &scene.origin.files[2]);
    let waited = began.elapsed();
    assert!(waited < LOOK_MAX, "{waited:?}");
    assert_eq!(scene.requests(0), 2);
    bucket.set(S3Fault::None);
    eventually("the bucket is used again", || {
        assert_serves(&scene.mirror, &scene.origin.files[3]);
        StoredFiles::look(&bucket.bucket()).checksums.len() == 4
    });
}

#[test]
fn a_request_waits_for_a_bucket_that_hangs_no_longer_than_for_an_upstream() {
    let bucket = S3Server::start();
    let its = bucket.settings();
    let settings = borrowed(&its);
    let scene = Scene::changed(Origin::of(2), &settings, |config| {
        config.fetch_wait_max = Duration::from_millis(500);
    });
    assert_serves(&scene.mirror, &scene.origin.files[0]);
    bucket.set(S3Fault::Hang);
    for number in 0..2 {
        let began = Instant::now();
        assert_fails(&scene.download(number), 503);
        let waited = began.elapsed();
        assert!(waited < LOOK_MAX, "{waited:?}");
    }
    bucket.set(S3Fault::None);
    for number in 0..2 {
        eventually("the bucket is used again", || {
            scene.download(number).status == 200
        });
    }
}
