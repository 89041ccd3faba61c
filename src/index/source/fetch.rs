//! Clones and fetches the upstream's branch with libgit2. Everything here blocks.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use git2::{
    AutotagOption, Cred, CredentialType, ErrorClass, ErrorCode, FetchOptions, ProxyOptions,
    RemoteCallbacks, RemoteRedirect, RemoteUpdateFlags, Repository, RepositoryInitOptions,
};
use url::Url;

use super::libgit2::{MemoryLimit, has_lost_too_much, has_refused_memory, with_memory_limit};
use super::remote_url::{Credentials, RemoteUrl};
use super::{proxied_http, retry_after};
use crate::index::limits::{PACK_OBJECTS_MAX, TRANSFER_BYTES_MAX};
use crate::index::look_up::LookUp;
use crate::index::status::{FetchProgress, ProgressCell};
use crate::outgoing::Proxies;

/// The branch of the clone that stores the upstream's HEAD.
pub(crate) const UPSTREAM_HEAD: &str = "refs/heads/upstream";

/// Fetches the upstream's HEAD, whatever its branch is called. Forced, because the upstream squashes its history from
/// time to time.
const REFSPEC: &str = "+HEAD:refs/heads/upstream";

/// Fetches nothing: no repository has this reference.
const REFSPEC_OF_NOTHING: &str = "+refs/crates-io-mirror/none:refs/heads/none";

/// The longest time for one clone or fetch.
pub(super) const FETCH_TIME_MAX: Duration = Duration::from_secs(3_600);

/// The mirror aborts a transfer that brings less than [`SLOW_BYTES_MIN`] in this time while objects are missing.
const SLOW_WINDOW: Duration = Duration::from_secs(60);

/// See [`SLOW_WINDOW`].
const SLOW_BYTES_MIN: usize = 16 * 1024;

const TOO_SLOW: &str = "the upstream sends too slowly: gave up on it";

/// Why a clone or fetch failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The upstream, or the network: try again later.
    #[error("{0}")]
    Upstream(String),
    /// The upstream is overloaded, and sends `Retry-After`.
    #[error("{why}, and asks for a pause (`Retry-After: {retry_after}`)")]
    Busy {
        /// The message of libgit2.
        why: String,
        /// The value of the header: seconds, or a date.
        retry_after: String,
    },
    /// The operating system refused, most often because the disk is full: try again later.
    #[error("{0}")]
    System(String),
    /// Possibly damage in our own clone: check it, then try again.
    #[error("{0}")]
    Local(String),
    /// libgit2 cannot read this kind of repository.
    #[error("{0}")]
    Unsupported(String),
    /// The transport does not support shallow clones.
    #[error("the upstream cannot send a part of the history")]
    NoShallow,
    /// The upstream redirects to another host.
    #[error("the upstream redirects to another host")]
    Redirected,
    /// The mirror is stopping, or the transfer was abandoned.
    #[error("stopped")]
    Stopped,
}

impl FetchError {
    /// The pause that the upstream asks for (`Retry-After`).
    pub(crate) fn asked_pause(&self, now: SystemTime) -> Duration {
        match self {
            Self::Busy { retry_after, .. } => {
                retry_after::pause_of(retry_after, now).unwrap_or_default()
            }
            _ => Duration::ZERO,
        }
    }
}

/// Finds where an upstream is that redirects to another host, by the address of a repository, or says why the redirect is
/// not followed. libgit2 would follow a redirect to any address, so it follows none to another host. `app` decides which
/// addresses are allowed.
pub(crate) type Redirects = LookUp<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

/// How the mirror reaches other machines.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) proxies: Proxies,
    pub(crate) redirects: Redirects,
}

/// What a transfer does with the clone at its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    /// Makes it, bare and with depth 1 if the transport supports that.
    CloneLatest,
    /// Makes it, bare and with the whole history of the upstream's HEAD.
    CloneAll,
    /// Brings it up to date. Sets no depth: with a depth, libgit2 adds a line to the `shallow` file at every fetch.
    Fetch,
}

impl Transfer {
    /// Clones or fetches.
    pub(super) fn run(
        self,
        path: &Path,
        (url, outgoing): (&RemoteUrl, &Outgoing),
        progress: &ProgressCell,
    ) -> Result<(), FetchError> {
        within_limits(url, || {
            let repository = match self {
                Self::CloneLatest | Self::CloneAll => create(path),
                Self::Fetch => Repository::open_bare(path),
            };
            let repository =
                repository.map_err(|error| FetchError::Local(describe(&error, url)))?;
            if self == Self::CloneLatest && !url.is_local() {
                match run(&repository, (url, outgoing), Wanted::Latest, progress) {
                    Err(FetchError::NoShallow) => {}
                    other => return other,
                }
            }
            run(&repository, (url, outgoing), Wanted::All, progress)
        })
    }
}

/// Asks the upstream for its list of references, as `git ls-remote` does, and fetches nothing. `scratch` is the path of
/// a repository that does not exist yet; it is removed again.
///
/// # Errors
/// [`FetchError`], as for a fetch. An upstream without a HEAD is one, too.
pub(crate) fn list_references(
    scratch: &Path,
    url: &RemoteUrl,
    outgoing: &Outgoing,
) -> Result<(), FetchError> {
    let listed = within_limits(url, || {
        // By a fetch of a reference that does not exist: a plain connection of libgit2 would follow redirects by rules
        // of its own.
        let repository =
            create(scratch).map_err(|error| FetchError::System(describe(&error, url)))?;
        let progress = ProgressCell::default();
        run(&repository, (url, outgoing), Wanted::Nothing, &progress)
    });
    // A directory that is left over does no harm where temporary files are.
    drop(std::fs::remove_dir_all(scratch));
    listed
}

/// Limits the memory of a transfer, because the upstream decides what a pack contains.
fn within_limits(
    url: &RemoteUrl,
    transfer: impl FnOnce() -> Result<(), FetchError>,
) -> Result<(), FetchError> {
    if has_lost_too_much() {
        return Err(FetchError::System(
            "packs that had to be refused have cost too much memory: restart the mirror".to_owned(),
        ));
    }
    // For a local upstream this process makes the pack itself, which needs larger blocks.
    let limit = if url.is_local() {
        MemoryLimit::PACKING
    } else {
        MemoryLimit::TRANSFER
    };
    with_memory_limit(limit, transfer)
}

/// Makes a new empty bare repository at `path`.
pub(crate) fn create(path: &Path) -> Result<Repository, git2::Error> {
    let mut options = RepositoryInitOptions::new();
    options
        .bare(true)
        .no_reinit(true)
        .external_template(false)
        .initial_head("upstream");
    Repository::init_opts(path, &options)
}

/// What a connection to the upstream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The HEAD with all of its history, or what the clone lacks of it.
    All,
    /// The HEAD without its history.
    Latest,
    /// Nothing but the list of references.
    Nothing,
}

/// Fetches from the upstream, and follows a redirect to another host if that is allowed.
fn run(
    repository: &Repository,
    (url, outgoing): (&RemoteUrl, &Outgoing),
    wanted: Wanted,
    progress: &ProgressCell,
) -> Result<(), FetchError> {
    let run_at = |address: &str| {
        run_at(
            address,
            repository,
            (url, &outgoing.proxies),
            wanted,
            progress,
        )
    };
    match run_at(url.address()) {
        // Another host must not get the credentials.
        Err(FetchError::Redirected) if url.credentials().is_none() => {
            let moved = outgoing.redirects.ask(url.address()).map_err(|why| {
                FetchError::Upstream(format!("the upstream redirects to another host: {why}"))
            })?;
            run_at(&moved)
        }
        other => other,
    }
}

fn run_at(
    address: &str,
    repository: &Repository,
    (url, proxies): (&RemoteUrl, &Proxies),
    wanted: Wanted,
    progress: &ProgressCell,
) -> Result<(), FetchError> {
    let (refspec, depth) = match wanted {
        Wanted::All => (REFSPEC, None),
        Wanted::Latest => (REFSPEC, Some(1)),
        Wanted::Nothing => (REFSPEC_OF_NOTHING, None),
    };
    // A repository on this machine sends nothing while libgit2 packs its objects. On a busy machine that takes minutes.
    let pace = Pace::new(if url.is_local() { 0 } else { SLOW_BYTES_MIN });
    retry_after::forget();
    let mut proxy = ProxyOptions::new();
    // Always explicit: libgit2 would otherwise read proxies from the environment by rules of its own.
    let through = Url::parse(address).ok();
    let through = through.as_ref().and_then(|address| proxies.of(address));
    if let Some(through) = through {
        proxy.url(through.as_str());
    }
    let by_proxied_http = proxied_http::begin((address, url), proxies);
    let address = by_proxied_http.as_deref().unwrap_or(address);
    let mut options = FetchOptions::new();
    options
        .remote_callbacks(callbacks(url, progress, &pace))
        .proxy_options(proxy)
        .download_tags(AutotagOption::None)
        .update_fetchhead(false)
        // libgit2 still follows a redirect to the same host. For other hosts see `Redirects`.
        .follow_redirects(RemoteRedirect::None);
    if let Some(depth) = depth {
        options.depth(depth);
    }
    let fetched = repository.remote_anonymous(address).and_then(|mut remote| {
        remote.download(&[refspec], Some(&mut options))?;
        // A HEAD that points to no commit is not listed. Without this check the result of an earlier fetch would count
        // as this one's.
        let has_head = remote.list()?.iter().any(|head| head.name() == "HEAD");
        // An abandoned transfer must not move the reference: a later transfer may have moved it already.
        if has_head && !progress.is_stopped() {
            remote.update_tips(None, RemoteUpdateFlags::empty(), AutotagOption::None, None)?;
        }
        Ok(has_head)
    });
    if progress.is_stopped() {
        return Err(FetchError::Stopped);
    }
    if let Some(why) = pace.gave_up.get() {
        return Err(FetchError::Upstream(why.to_owned()));
    }
    match fetched {
        Err(_) if has_refused_memory() => Err(FetchError::Upstream(
            "the upstream's pack is refused: it needs more memory than a fetch may have".to_owned(),
        )),
        // libgit2 reports this before it sends a request, so the upstream cannot cause it.
        Err(error) if depth.is_some() && is_no_shallow(&error) => Err(FetchError::NoShallow),
        // libgit2 has no code for this, only a message of its own. The upstream's text comes after this beginning.
        Err(error) if error.message().starts_with("unknown remote object format") => {
            Err(FetchError::Unsupported(
                "the upstream repository has SHA-256 object ids, which are unsupported: an index has SHA-1".to_owned(),
            ))
        }
        Err(error) if is_redirect(&error) => Err(FetchError::Redirected),
        Err(error) if is_upstreams_fault(&error) => {
            let why = describe(&error, url);
            Err(match retry_after::of_last_answer() {
                Some(retry_after) => FetchError::Busy {
                    why,
                    retry_after: url.redact(&retry_after),
                },
                None => FetchError::Upstream(why),
            })
        }
        Err(error) if error.class() == ErrorClass::Os => {
            Err(FetchError::System(describe(&error, url)))
        }
        Err(error) => Err(FetchError::Local(describe(&error, url))),
        Ok(true) => Ok(()),
        Ok(false) => Err(FetchError::Upstream(
            "the upstream repository has no HEAD".to_owned(),
        )),
    }
}

fn callbacks<'a>(
    url: &'a RemoteUrl,
    progress: &'a ProgressCell,
    pace: &'a Pace,
) -> RemoteCallbacks<'a> {
    let mut callbacks = RemoteCallbacks::new();
    callbacks.transfer_progress(move |now| {
        let now = FetchProgress {
            received_objects: now.received_objects(),
            total_objects: now.total_objects(),
            indexed_objects: now.indexed_objects(),
            received_bytes: now.received_bytes(),
        };
        progress.set(now);
        !progress.is_stopped() && pace.keeps_up(&now)
    });
    callbacks.sideband_progress(move |_text| {
        progress.note_sign();
        !progress.is_stopped() && pace.is_in_time()
    });
    let asked = Cell::new(0_u8);
    callbacks.credentials(move |_address, user, allowed| {
        // libgit2 asks again as long as the upstream refuses, so this stops after three answers. Over ssh it asks for
        // the user name first.
        asked.set(asked.get().saturating_add(1));
        let credentials = url.credentials().filter(|_| asked.get() <= 3);
        answer(credentials, user, allowed).unwrap_or_else(|| {
            Err(git2::Error::new(
                ErrorCode::Auth,
                ErrorClass::Http,
                "the upstream asks for credentials, or refuses those in its URL",
            ))
        })
    });
    callbacks
}

fn answer(
    credentials: Option<&Credentials>,
    user: Option<&str>,
    allowed: CredentialType,
) -> Option<Result<Cred, git2::Error>> {
    let credentials = credentials?;
    let (name, password) = (&credentials.user, &credentials.password);
    let may_have_password = allowed.contains(CredentialType::USER_PASS_PLAINTEXT);
    let is_name_alone = password.is_empty() && user.is_some();
    if may_have_password && !is_name_alone {
        Some(Cred::userpass_plaintext(name, password))
    } else if allowed.contains(CredentialType::SSH_KEY) {
        Some(Cred::ssh_key_from_agent(name))
    } else if allowed.contains(CredentialType::USERNAME) {
        Some(Cred::username(name))
    } else {
        may_have_password.then(|| Cred::userpass_plaintext(name, password))
    }
}

/// Whether an error came from the network or the upstream, and not from our own clone or disk.
fn is_upstreams_fault(error: &git2::Error) -> bool {
    matches!(
        error.class(),
        ErrorClass::Net
            | ErrorClass::Http
            | ErrorClass::Ssl
            | ErrorClass::Ssh
            | ErrorClass::Callback
    )
}

/// Whether libgit2 refused to follow a redirect. It has no code for that, only this message. An upstream that forges
/// the message gains one more request and nothing else.
fn is_redirect(error: &git2::Error) -> bool {
    error.class() == ErrorClass::Net && error.message().starts_with("cannot redirect from ")
}

fn is_no_shallow(error: &git2::Error) -> bool {
    (error.class(), error.code()) == (ErrorClass::Net, ErrorCode::Invalid)
}

fn describe(error: &git2::Error, url: &RemoteUrl) -> String {
    let message = url.redact(error.message());
    if error.code() == ErrorCode::Certificate {
        // Container images often have no CA certificates, and rarely those of an organisation's own CA.
        format!(
            "{message}: the CA certificates of this machine do not vouch for it; install the package ca-certificates, or \
             set SSL_CERT_FILE to a file with the right ones"
        )
    } else {
        message
    }
}

/// Checks the speed of a transfer. libgit2's own time-out ends a transfer that brings nothing. This ends one that
/// brings too little.
struct Pace {
    /// The bytes that a transfer brings in a [`SLOW_WINDOW`] at least.
    bytes_min: usize,
    began: Instant,
    window_began: Cell<Instant>,
    window_bytes: Cell<usize>,
    /// Why the transfer was aborted.
    gave_up: Cell<Option<&'static str>>,
}

impl Pace {
    fn new(bytes_min: usize) -> Self {
        let now = Instant::now();
        Self {
            bytes_min,
            began: now,
            window_began: Cell::new(now),
            window_bytes: Cell::new(0),
            gave_up: Cell::new(None),
        }
    }

    fn keeps_up(&self, progress: &FetchProgress) -> bool {
        let transferring =
            progress.total_objects > 0 && progress.received_objects < progress.total_objects;
        if self.window_began.get().elapsed() >= SLOW_WINDOW {
            self.window_began.set(Instant::now());
            let before = self.window_bytes.replace(progress.received_bytes);
            let bytes = progress.received_bytes.saturating_sub(before);
            if transferring && bytes < self.bytes_min {
                self.gave_up.set(Some(TOO_SLOW));
            }
        }
        if progress.total_objects > PACK_OBJECTS_MAX {
            self.gave_up.set(Some(
                "the upstream's pack is refused: it has too many objects",
            ));
        }
        if progress.received_bytes > TRANSFER_BYTES_MAX {
            self.gave_up
                .set(Some("the upstream's pack is refused: it is too large"));
        }
        self.is_in_time()
    }

    fn is_in_time(&self) -> bool {
        if self.began.elapsed() > FETCH_TIME_MAX {
            self.gave_up.set(Some(TOO_SLOW));
        }
        self.gave_up.get().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_that_brings_little_is_aborted_unless_the_upstream_is_on_this_machine() {
        let packing = FetchProgress {
            total_objects: 10,
            ..FetchProgress::default()
        };
        for (bytes_min, keeps_up) in [(SLOW_BYTES_MIN, false), (0, true)] {
            let pace = Pace::new(bytes_min);
            let window_ago = Instant::now().checked_sub(SLOW_WINDOW).unwrap();
            pace.window_began.set(window_ago);
            assert_eq!(pace.keeps_up(&packing), keeps_up);
        }
    }

    #[test]
    fn a_transfer_with_too_many_objects_or_bytes_is_aborted_and_one_at_the_limits_is_not() {
        let limit = FetchProgress {
            total_objects: PACK_OBJECTS_MAX,
            received_bytes: TRANSFER_BYTES_MAX,
            ..FetchProgress::default()
        };
        assert!(Pace::new(SLOW_BYTES_MIN).keeps_up(&limit));
        let total_objects = PACK_OBJECTS_MAX + 1;
        let received_bytes = TRANSFER_BYTES_MAX + 1;
        for (progress, why) in [
            (
                FetchProgress {
                    total_objects,
                    ..limit
                },
                "too many objects",
            ),
            (
                FetchProgress {
                    received_bytes,
                    ..limit
                },
                "too large",
            ),
        ] {
            let pace = Pace::new(SLOW_BYTES_MIN);
            assert!(!pace.keeps_up(&progress));
            let gave_up = pace.gave_up.get().unwrap();
            assert!(gave_up.contains(why), "{gave_up}");
            // It stays aborted.
            assert!(!pace.keeps_up(&limit));
        }
    }
}
