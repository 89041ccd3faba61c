//! Fetching one crate file from the first upstream that has it, and checking it against the index.

use std::error::Error;
use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::{Client, Response};
use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use url::Url;

use super::addresses::{Names, Reach};
use super::client::{self, is_inside};
use super::{ClientError, DownloadTemplate, DownloadTemplates, Resolver, answer};
use crate::clock::Clock;
use crate::outgoing::{Proxies, certificates};
use crate::package::{Checksum, CrateFile};

/// How often one upstream is tried for one file, where trying again may help.
const TRIES_MAX: u32 = 3;

/// How long whoever waits for a file is made to wait because an upstream asked for it.
const PAUSE_WAITED_MAX: Duration = Duration::from_secs(5);

/// How long one file may take, even if it keeps coming.
const FILE_TIME_MAX: Duration = Duration::from_secs(15 * 60);

/// The pace below which a body is given up, in bytes a second on average, and how long it may be slower.
const BYTES_PER_SECOND_MIN: u64 = 4_096;
const PACE_FREE: Duration = Duration::from_secs(60);

/// The largest crate file that is taken. crates.io allows 10 MB, and more by hand.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// How long to wait for an upstream of crate files.
#[derive(Clone, Copy, Debug)]
pub struct FetchLimits {
    /// For a TCP connection, and TLS on it.
    pub connect_timeout: Duration,
    /// For the head of an answer, redirects included.
    pub head_timeout: Duration,
    /// For the next bytes of a body.
    pub silence_timeout: Duration,
    /// Before the second try; the third waits twice as long.
    pub retry_pause: Duration,
}

impl Default for FetchLimits {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            head_timeout: Duration::from_secs(10),
            silence_timeout: Duration::from_secs(10),
            retry_pause: Duration::from_millis(250),
        }
    }
}

/// What fetching needs to know.
#[derive(Clone, Debug)]
pub(crate) struct SourcesSettings {
    /// Where crate files are, the preferred place first.
    pub(crate) templates: DownloadTemplates,
    /// What upstreams see as `User-Agent`.
    pub(crate) user_agent: String,
    /// How long to wait.
    pub(crate) limits: FetchLimits,
    /// Tells how far away the date in a `Retry-After` is.
    pub(crate) clock: Clock,
    /// Tells the addresses of upstreams.
    pub(crate) resolver: Resolver,
    /// How upstreams are reached. The proxies may have private addresses.
    pub(crate) proxies: Proxies,
}

/// The upstreams of crate files.
#[derive(Debug)]
pub(crate) struct CrateSources {
    sources: Vec<Source>,
    /// For upstreams on the internet: it connects to nothing that is private.
    public_client: Client,
    /// For upstreams in the operator's own network, which may send the mirror to others there.
    private_client: Client,
    resolver: Resolver,
    limits: FetchLimits,
    clock: Clock,
    mismatches: AtomicU64,
}

#[derive(Debug)]
struct Source {
    template: DownloadTemplate,
    /// Whether it has a private address, once that is known.
    is_private: OnceCell<bool>,
    /// It asked to be left alone until then.
    not_before: Mutex<Option<Instant>>,
}

/// Takes the bytes of a file before it is known whether they are right.
pub(crate) trait Receiver: Send {
    /// Why bytes could not be taken.
    type Error: Send;

    /// Forgets all bytes so far: another try begins.
    fn restart(&mut self) -> impl Future<Output = ()> + Send;

    /// Takes the next bytes.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), Self::Error>> + Send;
}

/// Why a file could not be fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError<E> {
    /// Every upstream says that it has no such file.
    #[error("no upstream has it")]
    Missing,
    /// What came is not what the index says.
    #[error("the checksum of what came is {actual}, the index says {expected}")]
    Corrupt {
        /// What the index says.
        expected: Checksum,
        /// What came.
        actual: Checksum,
    },
    /// An upstream did not answer in time.
    #[error("an upstream was silent for too long")]
    TimedOut,
    /// An upstream wants to be left alone for a while.
    #[error("an upstream has too much to do")]
    Busy(Duration),
    /// An upstream cannot be reached, or answers with an error.
    #[error("{0}")]
    Failed(String),
    /// Whoever should have taken the bytes could not.
    #[error("the bytes could not be written")]
    Receiver(E),
}

/// Why one try failed, by what to do next.
#[derive(Debug)]
pub(super) enum TryError {
    /// There is no such file at this upstream.
    Missing,
    /// These are other bytes.
    Corrupt { actual: Checksum },
    /// Silence.
    TimedOut,
    /// Not now.
    Busy(Duration),
    /// Another try may help.
    Transient(String),
    /// No other try will help.
    Useless(String),
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
    pub(crate) fn new(settings: SourcesSettings) -> Result<Self, ClientError> {
        let source = |template: &DownloadTemplate| Source {
            template: template.clone(),
            is_private: OnceCell::new(),
            not_before: Mutex::new(None),
        };
        let client = |reach| {
            let resolver = settings.resolver.clone();
            let names = Names { resolver, reach };
            client::build(
                &settings.user_agent,
                &settings.limits,
                &settings.proxies,
                names,
            )
        };
        let wants_tls = settings.templates.iter().any(DownloadTemplate::is_https);
        if wants_tls && certificates::are_missing() {
            return Err(ClientError::NoCertificates);
        }
        Ok(Self {
            sources: settings.templates.iter().map(source).collect(),
            public_client: client(Reach::Public {
                except: settings.proxies.hosts().into(),
            })?,
            private_client: client(Reach::Everywhere)?,
            resolver: settings.resolver,
            limits: settings.limits,
            clock: settings.clock,
            mismatches: AtomicU64::new(0),
        })
    }

    /// How many answers were not what the index says.
    pub(crate) fn mismatches(&self) -> u64 {
        self.mismatches.load(Ordering::Relaxed)
    }

    /// Gives the bytes of a file to `receiver`, and returns their number when they are known to be right. Upstreams are
    /// asked in turn: the next one if one lacks the file, is silent, or has other bytes.
    ///
    /// # Errors
    /// [`FetchError`]; whatever the receiver has then is of no use.
    pub(crate) async fn fetch<R: Receiver>(
        &self,
        file: &CrateFile,
        receiver: &mut R,
    ) -> Result<u64, FetchError<R::Error>> {
        let mut result = FetchError::Missing;
        for source in &self.sources {
            match self.fetch_from(source, file, receiver).await {
                Ok(bytes) => return Ok(bytes),
                Err(TryFailure::Receiver(error)) => return Err(FetchError::Receiver(error)),
                Err(TryFailure::Upstream(error)) => {
                    log(source, file, &error);
                    result = worse(result, error, file);
                }
            }
        }
        Err(result)
    }

    /// Tries one upstream, again where that may help.
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
            let attempt = self.try_once(source, file, receiver);
            let failure = match timeout(FILE_TIME_MAX, attempt).await {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(failure)) => failure,
                Err(_elapsed) => TryError::TimedOut.into(),
            };
            match failure {
                TryFailure::Upstream(TryError::Busy(pause)) => {
                    source.leave_alone_for(pause);
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

    /// The client that may connect to what an upstream of this kind may send it to.
    async fn client_for(&self, source: &Source, url: &str) -> &Client {
        let is_private = || async {
            let url = Url::parse(url).map_err(io::Error::other)?;
            is_inside(&self.resolver, &url).await
        };
        // Found out once: a public upstream must not become a private one by an answer of its own name server. One whose
        // name is not known here may be known to a proxy, and counts as public for now.
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
    /// Waits for as long as the upstream asked to be left alone, if that is not long.
    async fn wait_for_its_pause(&self) -> Result<(), TryError> {
        let not_before = *self.lock();
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

    fn leave_alone_for(&self, pause: Duration) {
        let until = Instant::now().checked_add(pause);
        let mut not_before = self.lock();
        // Others may have been told to wait for longer.
        *not_before = until.max(*not_before);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.not_before
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a body keeps coming, but so slowly that it only takes the place of others.
fn is_too_slow(bytes: u64, elapsed: Duration) -> bool {
    elapsed > PACE_FREE && bytes < elapsed.as_secs().saturating_mul(BYTES_PER_SECOND_MIN)
}

/// What to make of a failed request. The text has no URL, which may hold secrets, our own or those of a redirect.
fn reason(error: reqwest::Error) -> TryError {
    let error = error.without_url();
    if error.is_timeout() {
        return TryError::TimedOut;
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    if error.is_redirect() || error.is_builder() {
        TryError::Useless(text)
    } else {
        TryError::Transient(text)
    }
}

/// What to say of a file when one upstream more has failed. Only if all lack it is it missing.
fn worse<E>(before: FetchError<E>, error: TryError, file: &CrateFile) -> FetchError<E> {
    match error {
        TryError::Missing => before,
        TryError::Corrupt { actual } => FetchError::Corrupt {
            expected: file.checksum,
            actual,
        },
        // Bytes that are wrong are worse than none.
        _ if matches!(before, FetchError::Corrupt { .. }) => before,
        TryError::TimedOut => FetchError::TimedOut,
        TryError::Busy(pause) => FetchError::Busy(pause),
        TryError::Transient(why) | TryError::Useless(why) => FetchError::Failed(why),
    }
}

fn log(source: &Source, file: &CrateFile, error: &TryError) {
    let upstream = source.template.base();
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
            tracing::warn!(upstream, "crate.file" = %file, "an upstream of crate files is silent");
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
            "a crate file could not be fetched from an upstream"
        ),
    }
}
