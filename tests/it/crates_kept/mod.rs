//! `DOWNLOAD_MODE=cache` and `offline`: the mirror fetches, verifies, stores and serves crate files.

mod answers;
mod bounded;
mod bucket;
mod bucket_changed;
mod counted;
mod crashes;
mod damaged;
mod disks;
mod faults;
mod index_decides;
mod large;
mod memory;
mod missing;
mod offline;
mod redirects;
mod sending;
mod settings;
mod shared;
mod tls;
mod together;
mod turns;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crates_io_mirror::Config;
use tempfile::TempDir;

use crate::support::{
    Answer, Client, CrateFile, Mirror, Origin, StoredFiles, UpstreamFault, borrowed, eventually,
};

/// A crate file never changes, so clients may keep it for a year.
const CACHE_CONTROL: &str = "public, max-age=31536000, immutable";

/// The time-out for an upstream in tests that wait for it. A healthy upstream is faster, even on a busy machine.
const IMPATIENCE: Duration = Duration::from_millis(700);

/// A mirror in cache mode, with its upstreams and its data.
struct Scene {
    mirror: Mirror,
    origin: Origin,
    data: TempDir,
}

impl Scene {
    /// A mirror of `count` crates.
    fn of(count: usize) -> Self {
        Self::with(Origin::of(count), &[])
    }

    /// A mirror of an origin, with additional settings.
    fn with(origin: Origin, settings: &[(&str, &str)]) -> Self {
        Self::changed(origin, settings, |_config| ())
    }

    /// A mirror with settings that have no variables.
    fn changed(
        origin: Origin,
        settings: &[(&str, &str)],
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let data = TempDir::new().unwrap();
        let mirror = mirror(&origin, data.path(), settings, change);
        Self {
            mirror,
            origin,
            data,
        }
    }

    /// Stops the mirror, and starts another one on the same data.
    fn restarted(self, settings: &[(&str, &str)]) -> Self {
        let Self {
            mirror: stopping,
            origin,
            data,
        } = self;
        stopping.stop();
        let mirror = mirror(&origin, data.path(), settings, |_config| ());
        Self {
            mirror,
            origin,
            data,
        }
    }

    /// The directory of the local store.
    fn store(&self) -> PathBuf {
        self.data.path().join("crates")
    }

    fn held(&self) -> StoredFiles {
        StoredFiles::look(&self.store())
    }

    /// How many requests the upstream got for a file.
    fn requests(&self, number: usize) -> usize {
        let path = self.origin.files[number].path();
        self.origin.upstream.requests(&path)
    }

    fn download(&self, number: usize) -> Answer {
        self.mirror.get(&self.origin.files[number].download_path())
    }

    /// All files are served. After a restart, nothing is incomplete and everything is served without the upstream.
    #[track_caller]
    fn ends_well(self) {
        for number in 0..self.origin.files.len() {
            assert_serves(&self.mirror, &self.origin.files[number]);
        }
        let mut scene = self.restarted(&[]);
        scene.origin.upstream.stop();
        let held = scene.held();
        assert!(held.staged.is_empty(), "{held:?}");
        for file in &scene.origin.files {
            assert!(held.checksums.contains(&file.checksum()), "{held:?}");
            assert_serves(&scene.mirror, file);
        }
    }
}

/// A mirror of an origin with its data in `data`, which is ready.
fn mirror(
    origin: &Origin,
    data: &Path,
    settings: &[(&str, &str)],
    change: impl FnOnce(&mut Config),
) -> Mirror {
    let data = data.to_str().unwrap();
    let own = origin.settings();
    let is_set = |name: &str| settings.iter().any(|(other, _)| *other == name);
    let mut all = borrowed(&own);
    all.retain(|(name, _)| !is_set(name));
    all.push(("DATA_DIR", data));
    all.extend(settings);
    let mirror = Mirror::start_with(&all, |config| {
        be_quick(config);
        change(config);
    });
    mirror.wait_until_ready();
    mirror
}

/// Short pauses between retries. Time-outs stay long, because a busy machine must not reach them.
fn be_quick(config: &mut Config) {
    config.fetch_limits.retry_pause = Duration::from_millis(5);
}

/// Short time-outs, for tests with an upstream that hangs.
fn be_impatient(config: &mut Config) {
    config.fetch_limits.head_timeout = IMPATIENCE;
    config.fetch_limits.silence_timeout = IMPATIENCE;
}

/// The mirror sends these bytes, from its store or from the upstream.
#[track_caller]
fn assert_serves(mirror: &Client, file: &CrateFile) {
    let answer = mirror.get(&file.download_path());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(
        answer.body == file.bytes(),
        "not the bytes of {}",
        file.name
    );
    let etag = format!("\"{}\"", file.checksum());
    assert_eq!(answer.header("etag"), Some(etag.as_str()));
    assert_eq!(answer.header("cache-control"), Some(CACHE_CONTROL));
    assert_eq!(answer.header("content-encoding"), None);
}

/// Waits until a file is stored.
#[track_caller]
fn wait_until_stored(store: &Path, file: &CrateFile) {
    let checksum = file.checksum();
    eventually("the file is stored", || {
        StoredFiles::look(store).checksums.contains(&checksum)
    });
}

/// The answer has this status and a text that does not show the cause.
#[track_caller]
fn assert_fails(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    let detail = answer.detail();
    assert!(
        !detail.is_empty() && !detail.contains("127.0.0.1"),
        "{detail}"
    );
    let cached = answer.header("cache-control").unwrap_or_default();
    assert!(!cached.contains("immutable"), "{answer:?}");
    if status == 503 {
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
    }
}
