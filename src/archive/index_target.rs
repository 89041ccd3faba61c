//! The index of a data directory, which an import replaces.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::blocking_store::Waiter;
use super::error::IndexError;
use super::manifest::{Manifest, commit_id};
use super::scratch::Scratch;
use crate::index::{self, ImportError, IndexImport, RemoteUrl, Source, may_import, open_current};

/// How long the data directory may be in use when an import begins: an offline mirror looks at it now and then.
const BEGIN_WAIT_MAX: Duration = Duration::from_secs(2);

/// The same at the end of an import, which has read much by then. A mirror that lists only stored versions may be
/// writing that list.
const END_WAIT_MAX: Duration = Duration::from_secs(600);

/// How long a wait lasts before a log event gives the reason.
const SILENT_MAX: Duration = Duration::from_secs(2);

/// How often to check whether the data directory is free.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// What to do about a data directory that is in use.
const IN_USE: &str = "DATA_DIR is in use by a running mirror or another command: beside a running mirror an import works \
                      only if that mirror has DOWNLOAD_MODE=offline and no path on this machine as GIT_REPO_URL, so stop \
                      any other mirror first; a mirror with INDEX_PRUNED may be writing its list, so try again in a minute";

/// The index of a data directory.
pub(super) struct IndexTarget {
    data_dir: PathBuf,
    /// The upstream of later fetches.
    configured: RemoteUrl,
    /// The received files, once there are any.
    scratch: Option<Scratch>,
    packs: Vec<PathBuf>,
    waiter: Waiter,
}

impl IndexTarget {
    pub(super) fn new(data_dir: &Path, configured: &RemoteUrl, stop: &CancellationToken) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            configured: configured.clone(),
            scratch: None,
            packs: Vec::new(),
            waiter: Waiter::new(stop),
        }
    }

    /// The current index. An unreadable one counts as none: an import is the way to repair it.
    pub(super) fn current(&self) -> Option<Arc<Source>> {
        open_current(&self.data_dir).unwrap_or_else(|error| {
            tracing::warn!(error = %error, "the index in DATA_DIR cannot be read");
            None
        })
    }

    /// Puts a file aside. Nothing changes for readers yet.
    pub(super) fn receive(&mut self, name: &str, content: &mut impl Read) -> io::Result<()> {
        let scratch = match &self.scratch {
            Some(scratch) => scratch,
            None => self.scratch.insert(Scratch::create(&self.data_dir)?),
        };
        let path = scratch.path.join(name);
        let mut file = File::create_new(&path)?;
        self.packs.push(path);
        io::copy(content, &mut file)?;
        Ok(())
    }

    /// Makes the commit of the manifest the current one, with the files received.
    pub(super) fn switch_over(&self, manifest: &Manifest) -> Result<(), IndexError> {
        let base = manifest.index_base.as_deref().map(commit_id).transpose()?;
        let fetched = manifest.index_fetched.map(Duration::from_secs);
        let import = IndexImport {
            commit: commit_id(&manifest.index_commit)?,
            base,
            packs: &self.packs,
            upstream: &self.upstream_of(manifest)?,
            fetched: fetched.and_then(|since_1970| UNIX_EPOCH.checked_add(since_1970)),
        };
        let switch = || index::import(&self.data_dir, &import);
        let switching = while_in_use(END_WAIT_MAX, &self.waiter.stop, switch);
        self.waiter.runtime.block_on(switching)
    }

    /// The configured upstream if it is that of the archive, which may lack the user that ssh needs: later fetches then go
    /// on from the imported clone. Another upstream is recorded as it is, so that the two indexes are never mixed.
    fn upstream_of(&self, manifest: &Manifest) -> Result<RemoteUrl, IndexError> {
        let url = RemoteUrl::parse_recorded(&manifest.upstream).map_err(IndexError::new)?;
        Ok(match url.is_same_place_as(&self.configured) {
            true => self.configured.clone(),
            false => url,
        })
    }
}

/// Fails if a mirror has the data directory for itself.
pub(crate) async fn wait_until_free(
    data_dir: &Path,
    stop: &CancellationToken,
) -> Result<(), IndexError> {
    while_in_use(BEGIN_WAIT_MAX, stop, || may_import(data_dir)).await
}

/// Tries again for as long as another process uses the data directory.
async fn while_in_use(
    wait_max: Duration,
    stop: &CancellationToken,
    work: impl Fn() -> Result<(), ImportError>,
) -> Result<(), IndexError> {
    let begun = Instant::now();
    let mut is_said = false;
    loop {
        match work() {
            Err(ImportError::Locked) if begun.elapsed() < wait_max && !stop.is_cancelled() => {
                if !is_said && begun.elapsed() > SILENT_MAX {
                    is_said = true;
                    tracing::warn!(
                        wait_max_in_s = wait_max.as_secs(),
                        "DATA_DIR is in use by a running mirror or another command; the import waits for it"
                    );
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(ImportError::Locked) => return Err(IndexError::new(IN_USE)),
            done => return done.map_err(IndexError::new),
        }
    }
}
