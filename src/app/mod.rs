//! The composition root: builds everything from [`Config`], runs it until told to stop, and joins what it started.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{Config, DownloadMode, IndexListing};
use crate::http::{self, AppState, Settings};
use crate::index::{
    GitIndexSettings, GitProgram, Holdings, IndexHandle, Network, Pusher, PusherSettings,
    Redirects, Refresher, RefresherEnd, RefresherSettings, Stopping, check_writable,
    configure_libgit2, refuses_for_good,
};
use crate::outgoing::certificates;
use crate::package::registry_config;
use crate::server::{
    Common, CurrentCertificate, Drained, Limits, ServeOptions, TlsCertificate, TrustedProxies,
    serve,
};
use crate::store::{
    Counters, CrateFiles, CrateFilesSettings, CrateStore, DamagedFiles, StoreError, StoreSettings,
};
use crate::upstream::{
    ClientError, CrateSources, RedirectSettings, SourcesSettings, find_redirect,
};

/// How long requests under way may take to finish. Heroku kills a process 30 s after SIGTERM.
const DRAIN_MAX: Duration = Duration::from_secs(25);

/// Look-ups in the index at a time, for each processor.
const INDEX_READS_PER_PROCESSOR: usize = 2;

/// Look-ups in the index at a time on a machine with many processors: one may take 20 MB.
const INDEX_READS_MAX: usize = 8;

/// Children that answer git clients at a time, for each processor.
const GIT_CHILDREN_PER_PROCESSOR: usize = 2;

/// The same on a machine with many processors: a full clone takes 50 MB for the largest index.
const GIT_CHILDREN_MAX: usize = 4;

/// Connections at a time, where the system allows so many open files. Each may hold the 64 kB of a head that is half sent.
const CONNECTIONS_MAX: usize = 2_048;

/// Connections at a time with TLS, which keeps some 40 kB for each.
const TLS_CONNECTIONS_MAX: usize = 1_024;

/// Connections at a time, however little the system allows.
const CONNECTIONS_MIN: usize = 64;

/// Open files that are no connections: packs, pipes to git, the log, the clone that is being made.
const OTHER_FILES: usize = 512;

/// How long it may take to list the store of crate files: a bucket lists a thousand at a time.
const LISTING_TIME_MAX: Duration = Duration::from_secs(600);

/// How long it may take to find where an index has moved to.
const REDIRECT_TIME_MAX: Duration = Duration::from_secs(30);

/// What git servers see as the product in `User-Agent`.
pub(crate) const USER_AGENT: &str = concat!("crates-io-mirror/", env!("CARGO_PKG_VERSION"));

/// The runtime of the mirror and of its subcommands: upstream fetches, with their TLS and hashing, and everything else in
/// the background. Requests are served by threads of their own.
///
/// # Errors
/// If the system has no threads left.
pub fn runtime() -> io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Builder::new_multi_thread()
        .thread_name("background")
        // Two at least: one that hashes a large file must not hold up the others.
        .worker_threads(threads.max(2))
        .enable_all()
        .build()
}

/// A mirror that has bound its port and does nothing else yet.
#[derive(Debug)]
pub struct App {
    listener: TcpListener,
    address: SocketAddr,
    state: AppState,
    keeper: Option<CrateFiles>,
    stop: CancellationToken,
    refresher: Refresher,
    pusher: Option<Pusher>,
    certificate: Option<TlsCertificate>,
    trusted_proxies: TrustedProxies,
    /// What works, but hardly as it was meant.
    warnings: Vec<String>,
}

/// Why the mirror could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, or not ours.
    #[error("PORT, BIND_ADDRESS: cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error("DATA_DIR: cannot write to `{}`: {source}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The store of crate files cannot be used.
    #[error("STORAGE_URL: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing can be fetched by `https`.
    #[error("{}", certificates::MISSING)]
    Certificates,
    /// Crate files cannot be fetched by this machine.
    #[error("DOWNLOAD_URL: {0}")]
    Upstream(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<ClientError> for StartError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NoCertificates => Self::Certificates,
            ClientError::Library(_) => Self::Upstream(error.into()),
        }
    }
}

/// Why the mirror ended otherwise than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no index to serve, and waiting would not bring one.
    #[error("{0}")]
    Index(String),
    /// A mistake in the mirror ended its background task.
    #[error("the task that refreshes the index has ended: {0}")]
    Refresh(#[source] JoinError),
    /// A mistake in the mirror ended the task that pushes the index.
    #[error("the task that pushes the index has ended: {0}")]
    Push(#[source] JoinError),
    /// A mistake in the mirror ended the task that reads the certificate again.
    #[error("the task that follows the certificate has ended: {0}")]
    Certificate(#[source] JoinError),
    /// The part that serves requests broke.
    #[error("serving has ended: {0}")]
    Serve(#[source] io::Error),
}

impl App {
    /// Builds everything and binds the port. Requests wait in the system's queue until [`App::run`].
    ///
    /// # Errors
    /// [`StartError`], if the port or the data directory cannot be had.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        Self::bind_with_clock(config, Clock::system()).await
    }

    /// Like [`App::bind`], with another time of day.
    ///
    /// # Errors
    /// [`StartError`], if the port or the data directory cannot be had.
    pub async fn bind_with_clock(config: Config, clock: Clock) -> Result<Self, StartError> {
        // One directory: this takes no longer than binding does, and a bad setting must be known before that.
        prepare_data_dir(&config)?;
        // It also leads OpenSSL, and all who read the same variables, to the certificates of this system, as in subcommands.
        configure_libgit2(
            config.connect_timeout,
            config.silence_timeout,
            USER_AGENT,
            config.contact.as_deref(),
        );
        let keeper = keeper(&config, &clock)?;
        let listener = listen(config.listen)
            .await
            .map_err(|source| StartError::Bind {
                address: config.listen,
                source,
            })?;
        let address = listener.local_addr().unwrap_or(config.listen);
        let network = match config.download_mode {
            DownloadMode::Offline => Network::Forbidden,
            DownloadMode::Redirect | DownloadMode::Cache => Network::Allowed,
        };
        let follows_the_index = config.follows_the_index();
        let warnings = config.warnings();
        let stop = CancellationToken::new();
        let held = keeper
            .clone()
            .filter(|_| config.index_listing == IndexListing::HeldOnly)
            .map(|keeper| holdings(keeper, stop.clone()));
        let redirects = redirects(&config);
        let index = IndexHandle::new();
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let user_agent = user_agent(config.contact.as_deref());
        let public_url = config.public_url.map(|url| url.to_string());
        let program = GitProgram::new(config.search_path);
        let environment = config.push_environment;
        let git_index = public_url.as_deref().map(|url| GitIndexSettings {
            config: registry_config(url),
            program: program.clone(),
        });
        let pusher = config.index_push_url.map(|url| PusherSettings {
            url,
            program,
            environment,
            user_agent,
        });
        let settings = Settings {
            download: config.downloads.first().clone(),
            public_url,
            tls: config.tls.is_some(),
            hsts_max_age_secs: config.hsts_max_age_secs,
            pruned: config.index_listing == IndexListing::HeldOnly,
            upstream: config.git_repo_url.to_string(),
            max_staleness: config
                .refresh_interval
                .filter(|_| follows_the_index)
                .map(|_| config.max_staleness),
            clock: clock.clone(),
            git_children_max: (GIT_CHILDREN_PER_PROCESSOR * processors).min(GIT_CHILDREN_MAX),
            index_reads_max: (INDEX_READS_PER_PROCESSOR * processors).min(INDEX_READS_MAX),
        };
        let refresher = RefresherSettings {
            url: config.git_repo_url,
            redirects,
            data_dir: config.data_dir,
            interval: config.refresh_interval,
            clock,
            git_index,
            network,
            held,
            lock_wait_max: config.lock_wait_max,
            proxies: config.proxies,
            temp_dir: config.temp_dir,
            upkeep: config.upkeep,
        };
        Ok(Self {
            listener,
            address,
            state: AppState::new(settings, index.clone(), keeper.clone()),
            keeper,
            stop,
            pusher: pusher.map(|settings| Pusher::new(settings, index.clone())),
            refresher: Refresher::new(refresher, index),
            certificate: config.tls,
            trusted_proxies: config.trusted_proxies,
            warnings,
        })
    }

    /// The address that was bound: the port is a real one even if 0 was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is done, then finishes what is under way within 25 s.
    ///
    /// # Errors
    /// [`RunError`], if the background task broke; the mirror then stops serving, too.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        tracing::info!(
            net.address = %self.address,
            index.upstream = %self.state.upstream(),
            "crates-io-mirror {} is listening",
            env!("CARGO_PKG_VERSION"),
        );
        for warning in self.warnings {
            tracing::warn!("{warning}");
        }
        let token = self.stop;
        let common = Common {
            limits: Limits::default(),
            account: self.state.account().clone(),
            trusted_proxies: self.trusted_proxies,
        };
        let stack = http::stack(http::router(self.state.clone()), self.state);
        let current = self.certificate.as_ref().map(CurrentCertificate::new);
        let options = ServeOptions {
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            drain_max: DRAIN_MAX,
            certificate: current.clone(),
            common,
            connections_max: if self.certificate.is_some() {
                connections_max().min(TLS_CONNECTIONS_MAX)
            } else {
                connections_max()
            },
        };
        if let Some(keeper) = &self.keeper {
            keeper.tidy();
        }
        let server = serve(self.listener, stack, token.clone(), options);
        let guard = token.clone().drop_guard();
        // Not a task: connections are accepted on the thread that runs this, whatever upstream fetches do on theirs.
        let server = async move {
            let served = server.await;
            drop(guard);
            served
        };
        let refresher = spawn(self.refresher.run(token.clone()), &token);
        let follower = self.certificate.zip(current).map(|(certificate, current)| {
            spawn(current.follow(certificate, token.clone()), &token)
        });
        let pusher = self
            .pusher
            .map(|pusher| spawn(pusher.run(token.clone()), &token));
        let stopping = async {
            tokio::select! {
                () = stop => {
                    tracing::info!("stopping: no new connections, requests under way are finished");
                    token.cancel();
                }
                () = token.cancelled() => {}
            }
        };
        let (served, refreshed, ()) = tokio::join!(server, refresher, stopping);
        if let Some(keeper) = self.keeper {
            keeper.stop().await;
        }
        if let Some(follower) = follower {
            follower.await.flatten().map_err(RunError::Certificate)?;
        }
        if let Some(pusher) = pusher {
            pusher.await.map_err(RunError::Push)?;
        }
        match refreshed.map_err(RunError::Refresh)? {
            Ok(()) => {}
            Err(RefresherEnd::Broken(panic)) => return Err(RunError::Refresh(panic)),
            Err(RefresherEnd::Hopeless(why)) => return Err(RunError::Index(why)),
        }
        let drained = served.map_err(RunError::Serve)?;
        match drained {
            Drained::All => tracing::info!("stopped: every request was answered"),
            Drained::DeadlineReached => {
                tracing::warn!("stopped: some requests were cut off after {DRAIN_MAX:?}");
            }
        }
        Ok(())
    }
}

/// Makes the data directory. Where the index is followed it must be possible to write to it; a full disk may get room.
fn prepare_data_dir(config: &Config) -> Result<(), StartError> {
    let made = std::fs::create_dir_all(&config.data_dir);
    let made = if config.follows_the_index() {
        made.and_then(|()| check_writable(&config.data_dir))
    } else {
        made
    };
    match made {
        Err(source) if refuses_for_good(&source) || !config.data_dir.is_dir() => {
            Err(StartError::DataDir {
                path: config.data_dir.clone(),
                source,
            })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Starts a task that takes the others along when it ends, however it ends.
fn spawn<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
    stop: &CancellationToken,
) -> JoinHandle<T> {
    let guard = stop.clone().drop_guard();
    tokio::spawn(async move {
        let result = task.await;
        drop(guard);
        result
    })
}

/// Lets the process open as many files as the system allows, and says how many of them may be connections.
fn connections_max() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_refused) => limit.current,
    };
    // No value means no limit.
    let allowed = allowed.and_then(|files| usize::try_from(files).ok());
    allowed
        .map_or(CONNECTIONS_MAX, |files| files.saturating_sub(OTHER_FILES))
        .clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

/// What gives out crate files, unless clients are sent to the upstream.
fn keeper(config: &Config, clock: &Clock) -> Result<Option<CrateFiles>, StartError> {
    let sources = match config.download_mode {
        DownloadMode::Redirect => return Ok(None),
        DownloadMode::Offline => None,
        DownloadMode::Cache => Some(crate_sources(config, clock)?),
    };
    Ok(Some(open_keeper(config, clock, sources)?))
}

/// The upstreams of crate files.
pub(crate) fn crate_sources(config: &Config, clock: &Clock) -> Result<CrateSources, ClientError> {
    CrateSources::new(SourcesSettings {
        templates: config.downloads.clone(),
        user_agent: user_agent(config.contact.as_deref()),
        limits: config.fetch_limits,
        clock: clock.clone(),
        resolver: config.resolver.clone(),
        proxies: config.proxies.clone(),
    })
}

/// Follows redirects of the upstream index by the rules for those of crate files. To be called inside a runtime.
pub(crate) fn redirects(config: &Config) -> Redirects {
    let settings = Arc::new(RedirectSettings {
        user_agent: user_agent(config.contact.as_deref()),
        limits: config.fetch_limits,
        resolver: config.resolver.clone(),
        proxies: config.proxies.clone(),
    });
    let runtime = tokio::runtime::Handle::current();
    Redirects::new(move |address| {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let (settings, address) = (Arc::clone(&settings), address.to_owned());
        runtime.spawn(async move {
            // The look-up of a name has no time-out of its own.
            let found = tokio::time::timeout(REDIRECT_TIME_MAX, find_redirect(&settings, &address));
            let found = found.await;
            let found =
                found.unwrap_or_else(|_elapsed| Err("it did not answer in time".to_owned()));
            // Nobody listens to one that was left behind.
            let _left_behind = tell.send(found);
        });
        // A runtime that ends drops the task, and with it what it tells.
        told.recv()
            .unwrap_or_else(|_ended| Err("the mirror is stopping".to_owned()))
    })
}

/// The store, and a keeper that fills it from these upstreams. To be called inside a runtime.
pub(crate) fn open_keeper(
    config: &Config,
    clock: &Clock,
    sources: Option<CrateSources>,
) -> Result<CrateFiles, StoreError> {
    let store = StoreSettings {
        location: config.storage.clone(),
        bytes_max: config.storage_bytes_max,
        damaged_files: if sources.is_some() {
            DamagedFiles::Remove
        } else {
            DamagedFiles::Leave
        },
        clock: clock.clone(),
    };
    Ok(CrateFiles::new(CrateFilesSettings {
        store: Arc::new(CrateStore::open(store, Arc::new(Counters::default()))?),
        sources,
        missing_remembered: config.missing_remembered,
        wait_max: config.fetch_wait_max,
    }))
}

/// What is held, for the index to show that and no more. To be asked on a thread that may block.
fn holdings(keeper: CrateFiles, stop: CancellationToken) -> Holdings {
    let runtime = tokio::runtime::Handle::current();
    Holdings::new(move || {
        let listing = async {
            tokio::select! {
                held = tokio::time::timeout(LISTING_TIME_MAX, keeper.store().checksums()) => Ok(held??),
                () = stop.cancelled() => Err(Stopping.into()),
            }
        };
        runtime.block_on(listing)
    })
}

/// What servers see as `User-Agent`.
fn user_agent(contact: Option<&str>) -> String {
    match contact {
        Some(contact) => format!("{USER_AGENT} ({contact})"),
        None => USER_AGENT.to_owned(),
    }
}

/// Binds like every server does: a port that was just closed can be taken at once.
async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}
