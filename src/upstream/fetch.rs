//! Fetching one crate file from the first upstream that has it, and checking it against the index.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use reqwest::{Client, Response};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use url::Url;

use super::addresses::Resolver;
use super::answer::{self, TryError};
use super::client::{ClientError, ClientSettings, FetchLimits, Upstreams, is_inside};
use super::template::DownloadTemplate;
use super::templates::DownloadTemplates;
use crate::clock::Clock;
use crate::observability::LastFailure;
use crate::observability::metrics::{FAILED, OK, TimedResults};
use crate::outgoing::{all_causes, certificates};
use crate::package::{Checksum, CrateFile};

/// How often one upstream is tried for one file, if another try may help.
const TRIES_MAX: u32 = 3;

/// The longest pause of an upstream that a fetch waits for. If the pause is longer, the fetch fails at once.
const PAUSE_WAITED_MAX: Duration = Duration::from_secs(5);

/// How long one file may take, even if bytes keep coming.
const FILE_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// The lowest accepted rate of a body, in bytes a second on average, and the time before it is checked.
const BYTES_PER_SECOND_MIN: u64 = 4_096;
const PACE_FREE: Duration = Duration::from_secs(60);

/// The largest accepted crate file. crates.io allows 10 MB, and more on request.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// The result of a request for a file that the upstream does not have.
const MISSING: &str = "missing";

/// The result of a request whose answer is not what the index says.
const CORRUPT: &str = "corrupt";

/// The upstreams of crate files.
#[derive(Debug)]
pub(crate) struct CrateSources {
    sources: Vec<Source>,
    public_client: Client,
    private_client: Client,
    resolver: Resolver,
    limits: FetchLimits,
    clock: Clock,
    mismatches: AtomicU64,
    /// Counts the requests, by host.
    pub(crate) requests: TimedResults,
}

#[derive(Debug)]
struct Source {
    template: DownloadTemplate,
    /// Its host name, without credentials.
    host: String,
    /// Whether it has a private address, once that is known.
    is_private: OnceCell<bool>,
    /// It asked for a pause until then.
    not_before: Mutex<Option<Instant>>,
    /// What the log has told of it.
    told: LastFailure,
}

/// Takes the bytes of a file before its checksum is known.
pub(crate) trait Receiver: Send {
    /// Why bytes could not be taken.
    type Error: Send;

    /// Discards all bytes so far, because another try begins.
    fn restart(&mut self) -> impl Future<Output = ()> + Send;

    /// Takes the next bytes.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why a file could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError<E> {
    /// No upstream has the file.
    #[error("no upstream has it")]
    Missing,
    /// The bytes do not have the checksum of the index.
    #[error("the checksum of what came is {actual}, the index says {expected}")]
    Corrupt {
        /// The checksum in the index.
        expected: Checksum,
        /// The checksum of the bytes.
        actual: Checksum,
    },
    /// An upstream did not answer in time.
    #[error("an upstream timed out")]
    TimedOut,
    /// An upstream asks for a pause.
    #[error("an upstream has too much to do")]
    Busy(Duration),
    /// An upstream cannot be reached, or answers with an error.
    #[error("{0}")]
    Failed(String),
    /// The receiver could not take the bytes.
    #[error("the bytes could not be written")]
    Receiver(E),
}

enum TryFailure<E> {
    Upstream(TryError),
    Receiver(E),
}

impl<E> From<TryError> for TryFailure<E> {
    fn from(error: TryError) -> Self {
        Self::Upstream(error)
    }
}

impl CrateSources {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// [`ClientError`], if this machine cannot speak TLS.
    pub(crate) fn new(
        templates: &DownloadTemplates,
        settings: ClientSettings,
        clock: Clock,
    ) -> Result<Self, ClientError> {
        let source = |template: &DownloadTemplate| Source {
            host: host_of(template),
            template: template.clone(),
            is_private: OnceCell::new(),
            not_before: Mutex::new(None),
            told: LastFailure::default(),
        };
        let wants_tls = templates.iter().any(DownloadTemplate::is_https);
        if wants_tls && certificates::are_missing() {
            return Err(ClientError::NoCertificates);
        }
        let requests = TimedResults::default();
        for template in templates.iter() {
            let results = [OK, MISSING, CORRUPT, FAILED];
            requests.begin(&results, Some(&host_of(template)));
        }
        Ok(Self {
            requests,
            sources: templates.iter().map(source).collect(),
            public_client: settings.build(Upstreams::Public)?,
            private_client: settings.build(Upstreams::Inside)?,
            resolver: settings.resolver,
            limits: settings.limits,
            clock,
            mismatches: AtomicU64::new(0),
        })
    }

    /// The number of answers with a wrong checksum.
    pub(crate) fn mismatches(&self) -> u64 {
        self.mismatches.load(Ordering::Relaxed)
    }

    /// Gives the bytes of a file to `receiver`. Returns their number after the checksum was verified. If an upstream lacks
    /// the file, times out, or sends other bytes, the next upstream is asked.
    ///
    /// # Errors
    /// [`FetchError`]. The bytes that the receiver has are then useless.
    pub(crate) async fn fetch<R: Receiver>(
        &self,
        file: &CrateFile,
        receiver: &mut R,
    ) -> Result<u64, FetchError<R::Error>> {
        let mut result = FetchError::Missing;
        for source in &self.sources {
            match self.fetch_from(source, file, receiver).await {
                Ok(bytes) => {
                    if source.told.note_success() {
                        let upstream = &source.template.base;
                        tracing::info!(upstream, "an upstream of crate files works again");
                    }
                    return Ok(bytes);
                }
                Err(TryFailure::Receiver(error)) => return Err(FetchError::Receiver(error)),
                Err(TryFailure::Upstream(error)) => {
                    log(source, file, &error);
                    result = worse(result, error, file);
                }
            }
        }
        Err(result)
    }

    /// Tries one upstream, several times if that may help.
    async fn fetch_from<R: Receiver>(
        &self,
        source: &Source,
        file: &CrateFile,
        receiver: &mut R,
    ) -> Result<u64, TryFailure<R::Error>> {
        let mut tries = 0;
        loop {
            tries += 1;
            source.wait_for_its_pause().await?;
            receiver.restart().await;
            let began = Instant::now();
            let attempt = self.try_once(source, file, receiver);
            let tried = match timeout(FILE_TIME_MAX, attempt).await {
                Ok(tried) => tried,
                Err(_elapsed) => Err(TryError::TimedOut.into()),
            };
            if let Some(result) = result_of(&tried) {
                self.requests
                    .note(result, Some(&source.host), began.elapsed());
            }
            let failure = match tried {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => failure,
            };
            match failure {
                TryFailure::Upstream(TryError::Busy(pause)) => {
                    source.pause_for(pause);
                    if tries == TRIES_MAX {
                        return Err(TryError::Busy(pause).into());
                    }
                }
                TryFailure::Upstream(TryError::Transient(_)) if tries < TRIES_MAX => {
                    let pause = self.limits.retry_pause.mul_f64(f64::from(1 << (tries - 1)));
                    tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
                }
                other => return Err(other),
            }
        }
    }

    async fn try_once<R: Receiver>(
        &self,
        source: &Source,
        file: &CrateFile,
        receiver: &mut R,
    ) -> Result<u64, TryFailure<R::Error>> {
        let url = source
            .template
            .expand(&file.name, &file.version, Some(&file.checksum));
        let answer = async {
            let client = self.client_for(source, &url).await;
            client.get(&url).send().await
        };
        let answer = timeout(self.limits.head_timeout, answer).await;
        let answer = answer
            .map_err(|_elapsed| TryError::TimedOut)?
            .map_err(reason)?;
        let mut body = answer::accept(answer, self.clock.now())?;
        let began = Instant::now();
        let (mut digest, mut bytes) = (Sha256::new(), 0);
        while let Some(part) = self.next_part(&mut body).await? {
            bytes += part.len() as u64;
            if bytes > FILE_BYTES_MAX {
                return Err(TryError::Useless("the file is larger than 1 GiB".to_owned()).into());
            }
            if is_too_slow(bytes, began.elapsed()) {
                return Err(TryError::TimedOut.into());
            }
            digest.update(&part);
            receiver.write(part).await.map_err(TryFailure::Receiver)?;
        }
        let actual = Checksum::from(<[u8; 32]>::from(digest.finalize()));
        if actual == file.checksum {
            Ok(bytes)
        } else {
            self.mismatches.fetch_add(1, Ordering::Relaxed);
            Err(TryError::Corrupt { actual }.into())
        }
    }

    /// The client for an upstream: it decides which redirects are followed.
    async fn client_for(&self, source: &Source, url: &str) -> &Client {
        let is_private = || async {
            let url = Url::parse(url).map_err(io::Error::other)?;
            is_inside(&self.resolver, &url).await
        };
        // Decided once: the name server of a public upstream must not be able to make it a private one later. If this
        // machine cannot look up the name, a proxy may know it, and the upstream counts as public for now.
        match source.is_private.get_or_try_init(is_private).await {
            Ok(true) => &self.private_client,
            Ok(false) | Err(_) => &self.public_client,
        }
    }

    async fn next_part(&self, body: &mut Response) -> Result<Option<Bytes>, TryError> {
        let part = timeout(self.limits.silence_timeout, body.chunk()).await;
        part.map_err(|_elapsed| TryError::TimedOut)?.map_err(reason)
    }
}

impl Source {
    /// Waits for the pause that the upstream asked for, if it is short.
    async fn wait_for_its_pause(&self) -> Result<(), TryError> {
        let not_before = *self.not_before.lock();
        let Some(not_before) = not_before else {
            return Ok(());
        };
        let pause = not_before.saturating_duration_since(Instant::now());
        if pause > PAUSE_WAITED_MAX {
            return Err(TryError::Busy(pause));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    fn pause_for(&self, pause: Duration) {
        let until = Instant::now().checked_add(pause);
        let mut not_before = self.not_before.lock();
        // Another request may have got a longer pause.
        *not_before = until.max(*not_before);
    }
}

/// The host of an upstream, without user, password and port.
fn host_of(template: &DownloadTemplate) -> String {
    let origin = template.origin();
    let host = origin.as_ref().and_then(Url::host_str);
    host.unwrap_or("unknown").to_owned()
}

/// The result to count. A failure of the receiver says nothing about the upstream.
fn result_of<E>(tried: &Result<u64, TryFailure<E>>) -> Option<&'static str> {
    match tried {
        Ok(_) => Some(OK),
        Err(TryFailure::Upstream(TryError::Missing)) => Some(MISSING),
        Err(TryFailure::Upstream(TryError::Corrupt { .. })) => Some(CORRUPT),
        Err(TryFailure::Upstream(_)) => Some(FAILED),
        Err(TryFailure::Receiver(_)) => None,
    }
}

/// Whether a body comes so slowly that it only occupies a place that others need.
fn is_too_slow(bytes: u64, elapsed: Duration) -> bool {
    elapsed > PACE_FREE && bytes < elapsed.as_secs().saturating_mul(BYTES_PER_SECOND_MIN)
}

/// The reason of a failed request. Its text has no URL, because a URL may contain secrets.
fn reason(error: reqwest::Error) -> TryError {
    let error = error.without_url();
    if error.is_timeout() {
        return TryError::TimedOut;
    }
    let text = all_causes(&error);
    if error.is_redirect() || error.is_builder() {
        TryError::Useless(text)
    } else {
        TryError::Transient(text)
    }
}

/// The error after one more upstream has failed. A file is missing only if all upstreams lack it.
fn worse<E>(before: FetchError<E>, error: TryError, file: &CrateFile) -> FetchError<E> {
    match error {
        TryError::Missing => before,
        TryError::Corrupt { actual } => FetchError::Corrupt {
            expected: file.checksum,
            actual,
        },
        // Wrong bytes are worse than no bytes.
        _ if matches!(before, FetchError::Corrupt { .. }) => before,
        TryError::TimedOut => FetchError::TimedOut,
        TryError::Busy(pause) => FetchError::Busy(pause),
        TryError::Transient(why) | TryError::Useless(why) => FetchError::Failed(why),
    }
}

/// Logs a failure: one of a file by itself, one of an upstream only when it begins. Each request has an event of its own,
/// with the cause.
fn log(source: &Source, file: &CrateFile, error: &TryError) {
    let upstream = &source.template.base;
    let is_news = match error {
        TryError::Missing | TryError::Corrupt { .. } => true,
        TryError::TimedOut => source.told.note_failure("timed out"),
        TryError::Busy(_) => source.told.note_failure("asks for a pause"),
        TryError::Transient(why) | TryError::Useless(why) => source.told.note_failure(why),
    };
    if !is_news {
        return;
    }
    match error {
        TryError::Missing => {
            tracing::info!(upstream, "crate.file" = %file, "an upstream has no such crate file");
        }
        TryError::Corrupt { actual } => tracing::error!(
            upstream,
            "crate.file" = %file,
            expected = %file.checksum,
            actual = %actual,
            "a crate file is not what the index says, and is not kept"
        ),
        TryError::TimedOut => {
            tracing::warn!(upstream, "crate.file" = %file, "an upstream of crate files timed out");
        }
        TryError::Busy(pause) => tracing::warn!(
            upstream,
            "crate.file" = %file,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "an upstream of crate files asks for a pause"
        ),
        TryError::Transient(why) | TryError::Useless(why) => tracing::warn!(
            upstream,
            "crate.file" = %file,
            error = why,
            "a crate file could not be fetched from an upstream; further failures like this one are not logged"
        ),
    }
}
