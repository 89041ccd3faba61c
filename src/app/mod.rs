//! The composition root: builds everything from [`Config`], runs it until told to stop, and joins what it started.

mod error;
mod parts;
mod policy_in_force;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::catalog::{Catalog, CatalogSettings, CatalogTask};
use crate::clock::Clock;
use crate::config::Config;
use crate::http::{self, AppState, Settings};
use crate::index::{
    AdvisoryHandle, AdvisoryTask, Follower, FollowerEnd, FollowerSettings, GitIndexSettings,
    GitProgram, IndexHandle, Pusher, PusherSettings, check_writable, configure_libgit2,
    refuses_for_good,
};
use crate::journal::{Journal, JournalSettings, JournalTask};
use crate::observability::metrics::Metrics;
#[cfg(feature = "otlp")]
use crate::observability::traces::Traces;
use crate::observability::{self, Logging};
use crate::package::registry_config;
use crate::server::{
    CurrentCertificate, Drained, Limits, ServerSettings, TlsCertificate, TrustedProxies, serve,
};
use crate::store::CrateFiles;
pub use error::{RunError, StartError};
pub(crate) use parts::{
    USER_AGENT, advisory_refresh, client_settings, crate_sources, follower_settings, open_keeper,
    outgoing, served_index_settings,
};
use parts::{
    advisory_settings, download_policy, index_files_of, keeper, rules, stored_files, user_agent,
};
use policy_in_force::policy_in_force;

/// How long open requests may take to finish. Heroku kills a process 30 s after SIGTERM.
const DRAIN_MAX: Duration = Duration::from_secs(25);

/// Concurrent look-ups in the index, for each processor.
const INDEX_READS_PER_PROCESSOR: usize = 2;

/// Concurrent look-ups in the index on a machine with many processors. Each may take 20 MB.
const INDEX_READS_MAX: usize = 8;

/// Concurrent children that answer git clients, for each processor.
const GIT_CHILDREN_PER_PROCESSOR: usize = 2;

/// The same on a machine with many processors. A full clone of the largest index takes 50 MB.
const GIT_CHILDREN_MAX: usize = 4;

/// Concurrent connections, if the system allows so many open files. Each may hold 64 kB of an incomplete head.
const CONNECTIONS_MAX: usize = 2_048;

/// Concurrent connections with TLS, which needs about 40 kB for each.
const TLS_CONNECTIONS_MAX: usize = 1_024;

/// Concurrent connections, even if the system allows fewer.
const CONNECTIONS_MIN: usize = 64;

/// Open files for other purposes than connections: packs, pipes to git, the log, a clone in progress.
const OTHER_FILES: usize = 512;

/// The runtime of the mirror and of its subcommands: upstream fetches, with their TLS and hashing, and everything else in
/// the background. Requests are served by threads of their own.
///
/// # Errors
/// If the system has no threads left.
pub fn runtime() -> io::Result<Runtime> {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Builder::new_multi_thread()
        .thread_name("background")
        // Two at least: a task that hashes a large file must not delay the others.
        .worker_threads(threads.max(2))
        .enable_all()
        .build()
}

/// Starts the logging of the server, as the settings say.
pub fn start_logging(config: &Config) -> Logging {
    observability::start_logging(config.log_format, &config.log_filter)
}

/// A mirror that has bound its port, and does nothing else yet.
#[derive(Debug)]
pub struct App {
    listener: TcpListener,
    address: SocketAddr,
    state: Arc<AppState>,
    keeper: Option<CrateFiles>,
    stop: CancellationToken,
    follower: Follower,
    pusher: Option<Pusher>,
    catalog_task: CatalogTask,
    advisory_task: Option<AdvisoryTask>,
    journal_task: JournalTask,
    #[cfg(feature = "bench-rules")]
    catalog: Catalog,
    certificate: Option<TlsCertificate>,
    trusted_proxies: TrustedProxies,
    #[cfg(feature = "otlp")]
    traces: Option<Traces>,
    /// Settings that work, but are probably not what the operator meant.
    warnings: Vec<String>,
}

impl App {
    /// Builds everything and binds the port. Requests wait in the system's queue until [`App::run`].
    ///
    /// # Errors
    /// [`StartError`], for example if the port or the data directory cannot be used.
    pub async fn bind(config: Config) -> Result<Self, StartError> {
        Self::bind_with_clock(config, Clock::system()).await
    }

    /// Like [`App::bind`], with another time of day.
    ///
    /// # Errors
    /// [`StartError`], for example if the port or the data directory cannot be used.
    pub async fn bind_with_clock(config: Config, clock: Clock) -> Result<Self, StartError> {
        // Before the port is bound, so that a bad setting is noticed first. It is one directory, so it takes no time.
        prepare_data_dir(&config)?;
        // This also points OpenSSL, and everything that reads the same variables, to the certificates of this system.
        configure_libgit2(
            config.connect_timeout,
            config.silence_timeout,
            USER_AGENT,
            config.contact.as_deref(),
        );
        let keeper = keeper(&config, &clock)?;
        let listener = TcpListener::bind(config.listen).await;
        let listener = listener.map_err(|source| StartError::Bind {
            address: config.listen,
            source,
        })?;
        let address = listener.local_addr().unwrap_or(config.listen);
        let stop = CancellationToken::new();
        let catalog = Catalog::new();
        let catalog_settings = CatalogSettings {
            data_dir: config.data_dir.clone(),
            temp_dir: config.temp_dir.clone(),
        };
        let journal_settings = JournalSettings {
            data_dir: config.data_dir.clone(),
            retention: config.changes_retention.duration(),
            clock: clock.clone(),
        };
        let journal = Journal::new(journal_settings, stop.clone());
        let index = IndexHandle::new();
        let metrics = Arc::new(Metrics::default());
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let program =
            GitProgram::new(config.search_path.clone()).counted_by(&metrics.git_processes);
        let advisory_task = config.advisory_db_url.clone().map(|url| {
            let handle = AdvisoryHandle::new(url.to_string());
            let settings = advisory_settings(&config, url, clock.clone(), program.clone());
            AdvisoryTask::new(settings, handle, index.clone())
        });
        let advisories = advisory_task.as_ref().map(AdvisoryTask::handle);
        let known_advisories = advisories.clone();
        let (policy, interval) = (config.policy.clone(), config.refresh_interval);
        let policy_lookup = policy_in_force(policy, interval, move || {
            known_advisories.as_ref()?.advisories()
        });
        let public_url = config.public_url.as_ref().map(ToString::to_string);
        let follower = FollowerSettings {
            rules: rules(&config),
            index_files_of: Some(index_files_of(catalog.clone())),
            stored_files: keeper
                .clone()
                .map(|keeper| stored_files(keeper, stop.clone())),
            git_index: public_url.as_deref().map(|url| GitIndexSettings {
                config: registry_config(url),
                program: program.clone(),
            }),
            policy_lookup: Some(policy_lookup),
            ..follower_settings(&config, clock.clone())
        };
        let pusher = config.index_push_url.clone().map(|url| PusherSettings {
            url,
            program,
            environment: config.push_environment.clone(),
            user_agent: user_agent(config.contact.as_deref()),
        });
        #[cfg(feature = "otlp")]
        let traces = config
            .traces
            .as_ref()
            .map(|settings| Traces::start(settings, &config.proxies, clock.clone()))
            .transpose()
            .map_err(StartError::Traces)?;
        let settings = Settings {
            #[cfg(feature = "otlp")]
            traces: traces.clone(),
            #[cfg(feature = "otlp")]
            trusted_proxies: config.trusted_proxies.clone(),
            download_policy: download_policy(&config),
            download: config.downloads.first.clone(),
            public_url,
            tls: config.tls.is_some(),
            hsts_max_age_secs: config.hsts_max_age_secs,
            upstream: config.git_repo_url.to_string(),
            max_staleness: config
                .refresh_interval
                .filter(|_| config.follows_the_index())
                .map(|_| config.max_staleness),
            clock,
            git_children_max: (GIT_CHILDREN_PER_PROCESSOR * processors).min(GIT_CHILDREN_MAX),
            index_reads_max: (INDEX_READS_PER_PROCESSOR * processors).min(INDEX_READS_MAX),
        };
        Ok(Self {
            listener,
            address,
            state: AppState::new(
                settings,
                index.clone(),
                advisories,
                catalog.clone(),
                journal.clone(),
                keeper.clone(),
                metrics,
            ),
            keeper,
            stop,
            pusher: pusher.map(|settings| Pusher::new(settings, index.clone())),
            catalog_task: CatalogTask::new(catalog_settings, catalog.clone(), index.clone()),
            advisory_task,
            journal_task: JournalTask::new(journal, index.clone()),
            #[cfg(feature = "bench-rules")]
            catalog,
            follower: Follower::new(follower, index),
            warnings: config.warnings(),
            certificate: config.tls,
            trusted_proxies: config.trusted_proxies,
            #[cfg(feature = "otlp")]
            traces,
        })
    }

    /// The bound address. Its port is the real one, even if the setting is 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Has `/metrics` say how many events this logging has dropped.
    pub fn count_dropped_events(&self, logging: &Logging) {
        let counter = logging.dropped.clone();
        // There is one logging for a mirror.
        let _set_before = self.state.metrics.dropped_log_events.set(counter);
    }

    /// Asks the catalog, for benchmarks.
    #[cfg(feature = "bench-rules")]
    #[must_use]
    pub fn catalog(&self) -> crate::CatalogProbe {
        crate::CatalogProbe::new(self.catalog.clone())
    }

    /// Serves until `stop` is done, then finishes open requests within 25 s.
    ///
    /// # Errors
    /// [`RunError`], if a background task failed. The mirror then stops serving, too.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), RunError> {
        tracing::info!(
            net.address = %self.address,
            index.upstream = %self.state.settings.upstream,
            "crates-io-mirror {} is listening",
            env!("CARGO_PKG_VERSION"),
        );
        for warning in self.warnings {
            tracing::warn!("{warning}");
        }
        let token = self.stop;
        let current = self.certificate.as_ref().map(|certificate| {
            let expiry = self.state.metrics.certificate_expiry.clone();
            CurrentCertificate::new(certificate, expiry)
        });
        let settings = ServerSettings {
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            drain_max: DRAIN_MAX,
            connections: self.state.metrics.connections.clone(),
            certificate: current.clone(),
            limits: Limits::default(),
            account: self.state.account.clone(),
            trusted_proxies: self.trusted_proxies,
            connections_max: if self.certificate.is_some() {
                connections_max().min(TLS_CONNECTIONS_MAX)
            } else {
                connections_max()
            },
        };
        if let Some(keeper) = &self.keeper {
            keeper.tidy();
        }
        let application = http::application(self.state);
        let server = serve(self.listener, application, token.clone(), settings);
        let guard = token.clone().drop_guard();
        // Not a task: connections are accepted on the thread that runs this, so that fetches cannot delay them.
        let server = async move {
            let served = server.await;
            drop(guard);
            served
        };
        // The index is opened after the copy of the advisories on disk, so that its first view is made with them.
        let (opened, is_open) = oneshot::channel();
        let advisories = self.advisory_task.map(|task| {
            let task = spawn(task.run(opened, token.clone()), &token);
            ("follows the advisory database", task)
        });
        let follower = self.follower.run(token.clone());
        let follower = async {
            // Without a database the sender is gone at once.
            let _opened = is_open.await;
            follower.await
        };
        let follower = spawn(follower, &token);
        let catalog = spawn(self.catalog_task.run(token.clone()), &token);
        let catalog = Some(("keeps the catalog", catalog));
        let journal = spawn(self.journal_task.run(token.clone()), &token);
        let journal = Some(("writes the change journal", journal));
        let certificate = self.certificate.zip(current).map(|(certificate, current)| {
            let task = spawn(current.follow(certificate, token.clone()), &token);
            ("follows the certificate", task)
        });
        let pusher = self.pusher.map(|pusher| {
            let task = spawn(pusher.run(token.clone()).map(Ok), &token);
            ("pushes the index", task)
        });
        let tasks = [certificate, pusher, catalog, advisories, journal];
        let stopping = async {
            tokio::select! {
                () = stop => {
                    tracing::info!("stopping: no new connections, requests under way are finished");
                    token.cancel();
                }
                () = token.cancelled() => {}
            }
        };
        let (served, refreshed, ()) = tokio::join!(server, follower, stopping);
        if let Some(keeper) = self.keeper {
            keeper.stop().await;
        }
        #[cfg(feature = "otlp")]
        if let Some(traces) = self.traces {
            traces.stop().await;
        }
        for (task, running) in tasks.into_iter().flatten() {
            let ended = running.await.flatten();
            ended.map_err(|source| RunError::Task { task, source })?;
        }
        match refreshed.unwrap_or_else(|panic| Err(FollowerEnd::Broken(panic))) {
            Ok(()) => {}
            Err(FollowerEnd::Broken(source)) => {
                let task = "refreshes the index";
                return Err(RunError::Task { task, source });
            }
            Err(FollowerEnd::Hopeless(why)) => return Err(RunError::Index(why)),
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

/// Makes the data directory. It must be writable if the index is followed. A full disk is no error: it may get space later.
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

/// Starts a task. When it ends, for whatever reason, it stops the others.
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

/// Raises the limit of open files as far as the system allows. Returns how many of them may be connections.
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
