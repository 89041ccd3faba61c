//! The index, as archives take it out of a data directory and put it into one.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::scratch::Scratch;
use crate::archive::{
    CurrentIndex, IndexExport, IndexSink, IndexSource, Manifest, OpenFile, PortError,
};
use crate::clock::Clock;
use crate::index::{
    self, CommitId, ExportError, ImportError, IndexImport, RemoteUrl, Source, export_all,
    export_since, may_import, open_current,
};

/// How long the data directory may be in use before an import begins: an offline mirror looks at it now and then.
const BEGIN_WAIT_MAX: Duration = Duration::from_secs(2);

/// The same at its end, when much has been read: a mirror that lists only what it holds may be writing that list.
const END_WAIT_MAX: Duration = Duration::from_secs(600);

/// Who waits for so long is told what for.
const SILENT_MAX: Duration = Duration::from_secs(2);

/// How often to look whether the data directory is free.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// An index to take out.
pub(super) struct ExportedIndex {
    source: Arc<Source>,
    clock: Clock,
    /// For what is no file yet.
    scratch: PathBuf,
}

impl ExportedIndex {
    pub(super) fn new(source: Arc<Source>, scratch: &Path, clock: Clock) -> Self {
        Self {
            source,
            clock,
            scratch: scratch.to_owned(),
        }
    }

    /// What is new since a commit, if the clone knows that one.
    fn new_since(&self, commit: CommitId) -> Result<Option<index::IndexExport>, PortError> {
        match export_since(&self.source, commit, &self.scratch) {
            Ok(export) => Ok(Some(export)),
            Err(ExportError::BaseMissing) => Ok(None),
            Err(error) => Err(PortError::new(&error)),
        }
    }
}

impl IndexSource for ExportedIndex {
    fn export(&self, since: Option<&str>) -> Result<IndexExport, PortError> {
        let since = since.map(commit).transpose()?;
        let new = match since {
            Some(commit) => self.new_since(commit)?,
            None => None,
        };
        let base = since.filter(|_| new.is_some());
        let export = match new {
            Some(export) => export,
            None => {
                export_all(&self.source, &self.scratch).map_err(|error| PortError::new(&error))?
            }
        };
        let upstream = export.upstream.clone();
        let export = Arc::new(export);
        let packs = export.packs.iter();
        let files = packs.map(|pack| Pack::file(pack, &export));
        Ok(IndexExport {
            commit: export.commit.to_string(),
            base: base.map(|base| base.to_string()),
            upstream: upstream.ok_or_else(|| {
                PortError("DATA_DIR does not say which upstream its index is of".into())
            })?,
            fetched: believable(export.fetched, &self.clock).and_then(seconds),
            files: files.collect::<io::Result<_>>().map_err(port)?,
        })
    }
}

/// A pack that is opened when it is read: there may be hundreds.
struct Pack {
    path: PathBuf,
    file: Option<File>,
    /// Keeps the clone, and so the pack, where it is.
    _export: Arc<index::IndexExport>,
}

impl Pack {
    fn file(path: &Path, export: &Arc<index::IndexExport>) -> io::Result<(String, OpenFile)> {
        let name = path.file_name().unwrap_or_default();
        let file = OpenFile {
            bytes: path.metadata()?.len(),
            content: Box::new(Self {
                path: path.to_owned(),
                file: None,
                _export: Arc::clone(export),
            }),
        };
        Ok((name.to_string_lossy().into_owned(), file))
    }
}

impl Read for Pack {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path)?),
        };
        file.read(buffer)
    }
}

/// The index of a data directory, to be replaced. To be made inside a runtime, and used outside of its workers.
pub(super) struct ImportedIndex {
    data_dir: PathBuf,
    /// The upstream that a later fetch would ask.
    configured: RemoteUrl,
    /// What has been received, once there is something.
    scratch: Option<Scratch>,
    packs: Vec<PathBuf>,
    clock: Clock,
    runtime: Handle,
    stop: CancellationToken,
}

impl ImportedIndex {
    pub(super) fn new(
        data_dir: &Path,
        configured: &RemoteUrl,
        clock: Clock,
        stop: &CancellationToken,
    ) -> Self {
        Self {
            clock,
            data_dir: data_dir.to_owned(),
            configured: configured.clone(),
            scratch: None,
            packs: Vec::new(),
            runtime: Handle::current(),
            stop: stop.clone(),
        }
    }

    /// Fails if there is a mirror that has the data directory for itself.
    pub(super) async fn wait_until_free(&self) -> Result<(), PortError> {
        let free = || may_import(&self.data_dir);
        while_held(BEGIN_WAIT_MAX, &self.stop, free).await
    }

    /// What is there now. Whatever cannot be read is as good as nothing: an import is the way to mend it.
    fn source(&self) -> Option<Arc<Source>> {
        match open_current(&self.data_dir) {
            Ok(source) => source,
            Err(error) => {
                tracing::warn!(error = %error, "the index in DATA_DIR cannot be read");
                None
            }
        }
    }

    fn file(&mut self, name: &str) -> io::Result<File> {
        let scratch = match &self.scratch {
            Some(scratch) => scratch,
            None => self.scratch.insert(Scratch::create(&self.data_dir)?),
        };
        let path = scratch.path().join(name);
        let file = File::create_new(&path)?;
        self.packs.push(path);
        Ok(file)
    }

    /// The upstream as it is configured here, if it is the one of the archive, for that may lack the user that ssh needs:
    /// a later fetch then goes on from the imported clone. Another one is noted as it is, so that nothing of it is ever
    /// mixed with what a later fetch brings.
    fn upstream_of(&self, manifest: &Manifest) -> Result<RemoteUrl, PortError> {
        let url = RemoteUrl::parse_recorded(&manifest.upstream)
            .map_err(|error| PortError::new(&error))?;
        Ok(match url.is_same_place_as(&self.configured) {
            true => self.configured.clone(),
            false => url,
        })
    }
}

impl IndexSink for ImportedIndex {
    fn current(&self) -> Result<Option<CurrentIndex>, PortError> {
        Ok(self.source().map(|source| CurrentIndex {
            commit: source.commit().to_string(),
            fetched: believable(source.fetched(), &self.clock).and_then(seconds),
        }))
    }

    fn has(&self, text: &str) -> Result<bool, PortError> {
        let commit = commit(text)?;
        let knows = |source: Arc<Source>| source.knows(commit);
        self.source()
            .map_or(Ok(false), knows)
            .map_err(|error| PortError::new(&error))
    }

    fn receive(
        &mut self,
        name: &str,
        _bytes: u64,
        content: &mut dyn Read,
    ) -> Result<(), PortError> {
        let mut file = self.file(name).map_err(port)?;
        io::copy(content, &mut file).map_err(port)?;
        Ok(())
    }

    fn switch_over(&mut self, manifest: &Manifest) -> Result<(), PortError> {
        let base = manifest.index_base.as_deref().map(commit).transpose()?;
        let import = IndexImport {
            commit: commit(&manifest.index_commit)?,
            base,
            packs: &self.packs,
            upstream: &self.upstream_of(manifest)?,
            fetched: manifest.index_fetched.and_then(time),
        };
        let switch = || index::import(&self.data_dir, &import);
        self.runtime
            .block_on(while_held(END_WAIT_MAX, &self.stop, switch))
    }
}

/// Tries again for as long as somebody else has possession of the data directory.
async fn while_held(
    wait_max: Duration,
    stop: &CancellationToken,
    work: impl Fn() -> Result<(), ImportError>,
) -> Result<(), PortError> {
    let begun = Instant::now();
    let give_up = begun + wait_max;
    let mut is_told = false;
    loop {
        match work() {
            Err(ImportError::Locked) if Instant::now() < give_up && !stop.is_cancelled() => {
                if !is_told && begun.elapsed() > SILENT_MAX {
                    is_told = true;
                    tracing::warn!(
                        wait_max_in_s = wait_max.as_secs(),
                        "DATA_DIR is in use by a running mirror or another command; the import waits for it"
                    );
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(ImportError::Locked) => return Err(PortError(HELD.into())),
            done => return done.map_err(|error| PortError::new(&error)),
        }
    }
}

/// What to do about a data directory that is in use.
const HELD: &str = "DATA_DIR is in use by a running mirror or another command: beside a running mirror an import works \
                    only if that one has DOWNLOAD_MODE=offline and no path on this machine as GIT_REPO_URL, so stop any \
                    other first; one that lists only what it holds may be writing that list, so try again in a minute";

fn commit(text: &str) -> Result<CommitId, PortError> {
    text.parse()
        .map_err(|error: <CommitId as std::str::FromStr>::Err| PortError(error.into()))
}

fn port(error: io::Error) -> PortError {
    PortError(error.into())
}

fn seconds(time: SystemTime) -> Option<u64> {
    let since_1970 = time.duration_since(UNIX_EPOCH).ok()?;
    Some(since_1970.as_secs())
}

fn time(seconds: u64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// A time that is not ahead of the clock. Any other one is as good as unknown: the index would pass for newer than every
/// one to come.
fn believable(time: Option<SystemTime>, clock: &Clock) -> Option<SystemTime> {
    time.filter(|time| clock.age(*time).is_some())
}
