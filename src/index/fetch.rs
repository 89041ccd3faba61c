//! Bringing the upstream's branch into a clone, with libgit2. Everything here is blocking.

use std::cell::Cell;
use std::path::Path;
use std::time::{Duration, Instant};

use git2::{
    AutotagOption, Cred, CredentialType, ErrorClass, FetchOptions, ProxyOptions, RemoteCallbacks,
    RemoteRedirect, RemoteUpdateFlags, Repository, RepositoryInitOptions,
};

use super::remote_url::RemoteUrl;
use super::status::{Progress, ProgressCell};

/// Where the upstream's HEAD is kept in the clone.
pub(super) const UPSTREAM_HEAD: &str = "refs/heads/upstream";

/// The upstream's HEAD whatever its branch is called, by force, since upstream squashes its history now and then.
const REFSPEC: &str = "+HEAD:refs/heads/upstream";

/// The longest that one clone or fetch may take.
pub(super) const FETCH_TIME_MAX: Duration = Duration::from_secs(3_600);

/// A peer that delivers less than [`SLOW_BYTES_MIN`] in this time while objects are outstanding is given up on.
const SLOW_WINDOW: Duration = Duration::from_secs(60);

/// See [`SLOW_WINDOW`].
const SLOW_BYTES_MIN: usize = 16 * 1024;

/// Why a clone or fetch failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// The other side or the way to it: try again later.
    #[error("{0}")]
    Upstream(String),
    /// The system refuses, most often because the disk is full: try the same again later.
    #[error("{0}")]
    System(String),
    /// Possibly our own clone: look at it, then try again.
    #[error("{0}")]
    Local(String),
    /// We were told to stop.
    #[error("stopped")]
    Stopped,
}

/// Makes a new bare clone at `path`, of depth 1 where the transport can do that.
pub(super) fn clone(
    path: &Path,
    url: &RemoteUrl,
    progress: &ProgressCell,
) -> Result<(), FetchError> {
    let repository = create(path).map_err(|error| FetchError::Local(describe(&error, url)))?;
    if url.is_local() {
        return run(&repository, url, None, progress);
    }
    match run(&repository, url, Some(1), progress) {
        Err(FetchError::Upstream(why) | FetchError::Local(why)) if why.contains("shallow") => {
            run(&repository, url, None, progress)
        }
        other => other,
    }
}

/// Makes a new bare repository at `path`, with nothing in it.
pub(super) fn create(path: &Path) -> Result<Repository, git2::Error> {
    let mut options = RepositoryInitOptions::new();
    options
        .bare(true)
        .no_reinit(true)
        .external_template(false)
        .initial_head("upstream");
    Repository::init_opts(path, &options)
}

/// Brings a clone up to date. Without a depth: with one, git writes a line to the `shallow` file at every fetch.
pub(super) fn fetch(
    path: &Path,
    url: &RemoteUrl,
    progress: &ProgressCell,
) -> Result<(), FetchError> {
    let repository =
        Repository::open_bare(path).map_err(|error| FetchError::Local(describe(&error, url)))?;
    run(&repository, url, None, progress)
}

fn run(
    repository: &Repository,
    url: &RemoteUrl,
    depth: Option<i32>,
    progress: &ProgressCell,
) -> Result<(), FetchError> {
    let pace = Pace::new();
    let mut proxy = ProxyOptions::new();
    proxy.auto();
    let mut options = FetchOptions::new();
    options
        .remote_callbacks(callbacks(url, progress, &pace))
        .proxy_options(proxy)
        .download_tags(AutotagOption::None)
        .update_fetchhead(false)
        // A redirect to another host must not get the credentials.
        .follow_redirects(match url.credentials() {
            Some(_) => RemoteRedirect::None,
            None => RemoteRedirect::Initial,
        });
    if let Some(depth) = depth {
        options.depth(depth);
    }
    let fetched = repository
        .remote_anonymous(url.address())
        .and_then(|mut remote| {
            remote.download(&[REFSPEC], Some(&mut options))?;
            // A HEAD that leads nowhere is not listed. What an earlier fetch brought must not pass for what it names.
            let has_head = remote.list()?.iter().any(|head| head.name() == "HEAD");
            // One that was given up on must not move the reference any more: another one may have done so since.
            if has_head && !progress.is_stopped() {
                remote.update_tips(None, RemoteUpdateFlags::empty(), AutotagOption::None, None)?;
            }
            Ok(has_head)
        });
    match fetched {
        _ if progress.is_stopped() => Err(FetchError::Stopped),
        _ if pace.gave_up.get() => Err(FetchError::Upstream(
            "the other side sends too slowly: gave up on it".to_owned(),
        )),
        Err(error) if is_upstreams_fault(&error) => {
            Err(FetchError::Upstream(describe(&error, url)))
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
        let now = Progress {
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
                git2::ErrorCode::Auth,
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

fn describe(error: &git2::Error, url: &RemoteUrl) -> String {
    url.redact(error.message())
}

/// Watches that a transfer gets on. A peer that falls silent altogether ends by libgit2's own time-out; this is for one
/// that trickles.
struct Pace {
    began: Instant,
    window_began: Cell<Instant>,
    window_bytes: Cell<usize>,
    gave_up: Cell<bool>,
}

impl Pace {
    fn new() -> Self {
        let now = Instant::now();
        Self {
            began: now,
            window_began: Cell::new(now),
            window_bytes: Cell::new(0),
            gave_up: Cell::new(false),
        }
    }

    fn keeps_up(&self, progress: &Progress) -> bool {
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
            self.gave_up.set(true);
        }
        self.is_in_time()
    }

    fn is_in_time(&self) -> bool {
        if self.began.elapsed() > FETCH_TIME_MAX {
            self.gave_up.set(true);
        }
        !self.gave_up.get()
    }
}
