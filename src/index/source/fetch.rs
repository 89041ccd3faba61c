//! Bringing the upstream's branch into a clone, with libgit2. Everything here is blocking.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use git2::{
    AutotagOption, Cred, CredentialType, ErrorClass, ErrorCode, FetchOptions, ProxyOptions,
    RemoteCallbacks, RemoteRedirect, RemoteUpdateFlags, Repository, RepositoryInitOptions,
};
use url::Url;

use super::libgit2::{MemoryLimit, has_lost_too_much, has_refused_memory, with_memory_limit};
use super::redirects::Redirects;
use super::remote_url::RemoteUrl;
use super::{proxied_http, retry_after};
use crate::index::limits::{PACK_OBJECTS_MAX, TRANSFER_BYTES_MAX};
use crate::index::status::{FetchProgress, ProgressCell};
use crate::outgoing::Proxies;

/// Where the upstream's HEAD is kept in the clone.
pub(crate) const UPSTREAM_HEAD: &str = "refs/heads/upstream";

/// The upstream's HEAD whatever its branch is called, by force, since upstream squashes its history now and then.
const REFSPEC: &str = "+HEAD:refs/heads/upstream";

/// The longest that one clone or fetch may take.
pub(crate) const FETCH_TIME_MAX: Duration = Duration::from_secs(3_600);

/// A peer that delivers less than [`SLOW_BYTES_MIN`] in this time while objects are outstanding is given up on.
const SLOW_WINDOW: Duration = Duration::from_secs(60);

/// See [`SLOW_WINDOW`].
const SLOW_BYTES_MIN: usize = 16 * 1024;

const TOO_SLOW: &str = "the other side sends too slowly: gave up on it";

/// Why a clone or fetch failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The other side or the way to it: try again later.
    #[error("{0}")]
    Upstream(String),
    /// The other side has too much to do, and says in a `Retry-After` how long it wants to be left alone.
    #[error("{why}, and asks for a pause (`Retry-After: {retry_after}`)")]
    Busy {
        /// What libgit2 says of it.
        why: String,
        /// The header's value: seconds, or a date.
        retry_after: String,
    },
    /// The system refuses, most often because the disk is full: try the same again later.
    #[error("{0}")]
    System(String),
    /// Possibly our own clone: look at it, then try again.
    #[error("{0}")]
    Local(String),
    /// The other side has a repository that libgit2 cannot read.
    #[error("{0}")]
    Unsupported(String),
    /// The other side cannot send the newest commit alone.
    #[error("the other side cannot send a part of the history")]
    NoShallow,
    /// The other side sends us to another host.
    #[error("the upstream redirects to another host")]
    Redirected,
    /// We were told to stop.
    #[error("stopped")]
    Stopped,
}

/// How other machines are reached.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) proxies: Proxies,
    pub(crate) redirects: Redirects,
}

/// Makes a new bare clone at `path`, of depth 1 where the transport can do that.
pub(crate) fn clone(
    path: &Path,
    url: &RemoteUrl,
    outgoing: &Outgoing,
    progress: &ProgressCell,
) -> Result<(), FetchError> {
    within_limits(url, || {
        let repository = create(path).map_err(|error| FetchError::Local(describe(&error, url)))?;
        if url.is_local() {
            return run(&repository, (url, outgoing), None, progress);
        }
        match run(&repository, (url, outgoing), Some(1), progress) {
            Err(FetchError::NoShallow) => run(&repository, (url, outgoing), None, progress),
            other => other,
        }
    })
}

/// Keeps the memory of a transfer within bounds: the other side decides what is in a pack.
fn within_limits(
    url: &RemoteUrl,
    transfer: impl FnOnce() -> Result<(), FetchError>,
) -> Result<(), FetchError> {
    if has_lost_too_much() {
        return Err(FetchError::System(
            "packs that had to be refused have cost too much memory: restart the mirror".to_owned(),
        ));
    }
    // From a path on this machine it is this process that makes the pack.
    let limit = if url.is_local() {
        MemoryLimit::PACKING
    } else {
        MemoryLimit::TRANSFER
    };
    with_memory_limit(limit, transfer)
}

/// Makes a new bare repository at `path`, with nothing in it.
pub(crate) fn create(path: &Path) -> Result<Repository, git2::Error> {
    let mut options = RepositoryInitOptions::new();
    options
        .bare(true)
        .no_reinit(true)
        .external_template(false)
        .initial_head("upstream");
    Repository::init_opts(path, &options)
}

/// Brings a clone up to date. Without a depth: with one, git writes a line to the `shallow` file at every fetch.
pub(crate) fn fetch(
    path: &Path,
    url: &RemoteUrl,
    outgoing: &Outgoing,
    progress: &ProgressCell,
) -> Result<(), FetchError> {
    within_limits(url, || {
        let repository = Repository::open_bare(path)
            .map_err(|error| FetchError::Local(describe(&error, url)))?;
        run(&repository, (url, outgoing), None, progress)
    })
}

/// Fetches from the upstream, wherever it has moved to.
fn run(
    repository: &Repository,
    (url, outgoing): (&RemoteUrl, &Outgoing),
    depth: Option<i32>,
    progress: &ProgressCell,
) -> Result<(), FetchError> {
    match run_at(
        url.address(),
        repository,
        (url, &outgoing.proxies),
        depth,
        progress,
    ) {
        // Another host must not get the credentials.
        Err(FetchError::Redirected) if url.credentials().is_none() => {
            let moved = outgoing.redirects.find(url.address()).map_err(|why| {
                FetchError::Upstream(format!("the upstream redirects to another host: {why}"))
            })?;
            run_at(
                &moved,
                repository,
                (url, &outgoing.proxies),
                depth,
                progress,
            )
        }
        other => other,
    }
}

fn run_at(
    address: &str,
    repository: &Repository,
    (url, proxies): (&RemoteUrl, &Proxies),
    depth: Option<i32>,
    progress: &ProgressCell,
) -> Result<(), FetchError> {
    let pace = Pace::new();
    retry_after::forget();
    let mut proxy = ProxyOptions::new();
    // Never what libgit2 reads from the environment by rules of its own.
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
        // One to the same host is followed all the same. For others see `Redirects`.
        .follow_redirects(RemoteRedirect::None);
    if let Some(depth) = depth {
        options.depth(depth);
    }
    let fetched = repository.remote_anonymous(address).and_then(|mut remote| {
        remote.download(&[REFSPEC], Some(&mut options))?;
        // A HEAD that leads nowhere is not listed. What an earlier fetch brought must not pass for what it names.
        let has_head = remote.list()?.iter().any(|head| head.name() == "HEAD");
        // One that was given up on must not move the reference any more: another one may have done so since.
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
        // libgit2 says so before it asks for anything; nothing that the other side writes gets here.
        Err(error) if depth.is_some() && is_no_shallow(&error) => Err(FetchError::NoShallow),
        // libgit2's own words, to which the other side adds the name of its format at the end.
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
        // libgit2 asks again for as long as the other side refuses. Over ssh it asks for the user name first.
        asked.set(asked.get().saturating_add(1));
        let credentials = url.credentials().filter(|_| asked.get() <= 3);
        answer(credentials, user, allowed).unwrap_or_else(|| {
            Err(git2::Error::new(
                ErrorCode::Auth,
                ErrorClass::Http,
                "the upstream asks for credentials, or refuses those in GIT_REPO_URL",
            ))
        })
    });
    callbacks
}

fn answer(
    credentials: Option<&super::remote_url::Credentials>,
    user: Option<&str>,
    allowed: CredentialType,
) -> Option<Result<Cred, git2::Error>> {
    let credentials = credentials?;
    if allowed.contains(CredentialType::USER_PASS_PLAINTEXT)
        && !(credentials.password.is_empty() && user.is_some())
    {
        return Some(Cred::userpass_plaintext(
            &credentials.user,
            &credentials.password,
        ));
    }
    if allowed.contains(CredentialType::SSH_KEY) {
        return Some(Cred::ssh_key_from_agent(&credentials.user));
    }
    if allowed.contains(CredentialType::USERNAME) {
        return Some(Cred::username(&credentials.user));
    }
    if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) {
        return Some(Cred::userpass_plaintext(
            &credentials.user,
            &credentials.password,
        ));
    }
    None
}

/// Whether an error came from the network or the other side, and not from our own clone or disk.
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

/// Whether libgit2 has not followed a redirect. It has no code for that, only this beginning of a text. An upstream that
/// makes it up gets one request more.
fn is_redirect(error: &git2::Error) -> bool {
    error.class() == ErrorClass::Net && error.message().starts_with("cannot redirect from ")
}

fn is_no_shallow(error: &git2::Error) -> bool {
    (error.class(), error.code()) == (ErrorClass::Net, ErrorCode::Invalid)
}

fn describe(error: &git2::Error, url: &RemoteUrl) -> String {
    let said = url.redact(error.message());
    if error.code() == ErrorCode::Certificate {
        // Images often have no CA certificates at all, and those of an organisation's own CA are mostly missing.
        format!(
            "{said}: the CA certificates of this machine do not vouch for it; install the package ca-certificates, or \
             set SSL_CERT_FILE to a file with the right ones"
        )
    } else {
        said
    }
}

/// Watches that a transfer gets on. A peer that falls silent altogether ends by libgit2's own time-out; this is for one
/// that trickles.
struct Pace {
    began: Instant,
    window_began: Cell<Instant>,
    window_bytes: Cell<usize>,
    /// Why it was given up on.
    gave_up: Cell<Option<&'static str>>,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            window_began: Cell::new(now),
            window_bytes: Cell::new(0),
            gave_up: Cell::new(None),
        }
    }

    fn keeps_up(&self, progress: &FetchProgress) -> bool {
        let transferring =
            progress.total_objects > 0 && progress.received_objects < progress.total_objects;
        let too_slow = if self.window_began.get().elapsed() < SLOW_WINDOW {
            false
        } else {
            let bytes = progress
                .received_bytes
                .saturating_sub(self.window_bytes.get());
            self.window_began.set(Instant::now());
            self.window_bytes.set(progress.received_bytes);
            transferring && bytes < SLOW_BYTES_MIN
        };
        if too_slow {
            self.gave_up.set(Some(TOO_SLOW));
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
    fn a_transfer_with_too_many_objects_or_bytes_is_given_up_and_one_at_the_limits_is_not() {
        let limit = FetchProgress {
            total_objects: PACK_OBJECTS_MAX,
            received_bytes: TRANSFER_BYTES_MAX,
            ..FetchProgress::default()
        };
        assert!(Pace::new().keeps_up(&limit));
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
            let pace = Pace::new();
            assert!(!pace.keeps_up(&progress));
            let gave_up = pace.gave_up.get().unwrap();
            assert!(gave_up.contains(why), "{gave_up}");
            // It stays so, whatever comes next.
            assert!(!pace.keeps_up(&limit));
        }
    }
}
