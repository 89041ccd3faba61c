//! The parts of a mirror, each built from the settings. Subcommands use some of them, too.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{Config, DownloadMode, IndexListing};
use crate::http::DownloadPolicy;
use crate::index::{
    AdvisorySettings, FollowerSettings, GitProgram, IndexFilesOf, Network, Outgoing, Redirects,
    RemoteUrl, ServedIndexSettings, Stopping, StoredFiles,
};
use crate::policy::{HeldDownloads, Mode, Rule, Rules};
use crate::store::{
    CrateFiles, CrateFilesSettings, CrateStore, DamagedFiles, StoreError, StoreSettings,
};
use crate::upstream::{ClientError, ClientSettings, CrateSources, find_redirect};

use super::error::StartError;

/// The time-out for listing the store of crate files. A bucket lists a thousand files per request.
const LISTING_TIME_MAX: Duration = Duration::from_secs(600);

/// The time-out for finding where an index has moved to.
const REDIRECT_TIME_MAX: Duration = Duration::from_secs(30);

/// The product in the `User-Agent` that git servers see.
pub(crate) const USER_AGENT: &str = concat!("crates-io-mirror/", env!("CARGO_PKG_VERSION"));

/// What is shown of the index.
pub(super) fn rules(config: &Config) -> Rules {
    let mut rules = Vec::new();
    if config.index_listing == IndexListing::HeldOnly {
        rules.push(Rule::StoredOnly);
    }
    rules.extend(policy_rule(config));
    #[cfg(feature = "bench-rules")]
    if config.every_third_yanked {
        rules.push(Rule::EveryThirdYanked);
    }
    Rules::new(rules)
}

/// The policy, if the settings make one.
fn policy_rule(config: &Config) -> Option<Rule> {
    has_policy(config).then(|| Rule::Policy(config.policy.settings.clone()))
}

/// What subcommands need to know of the policy. The policy file was just read, with the settings.
pub(crate) fn served_index_settings(config: &Config, clock: Clock) -> ServedIndexSettings {
    ServedIndexSettings {
        rules: Rules::new(policy_rule(config).into_iter().collect()),
        file: Arc::clone(&config.policy.file),
        advisory_db: config.advisory_db_url.clone(),
        network: network(config),
        data_dir: config.data_dir.clone(),
        clock,
    }
}

/// Whether the settings make a policy.
fn has_policy(config: &Config) -> bool {
    let policy = &config.policy;
    let holds = !policy.settings.min_age.is_zero() || !policy.settings.yank_guard.is_zero();
    holds || policy.path.is_some() || config.advisory_db_url.is_some()
}

/// What the policy does about downloads. The policy file is read again later, so what it contains now does not count.
pub(super) fn download_policy(config: &Config) -> DownloadPolicy {
    let settings = &config.policy.settings;
    let refuses_denied = config.policy.path.is_some() || config.advisory_db_url.is_some();
    let refuses_held = settings.held_downloads == HeldDownloads::Deny && has_policy(config);
    match settings.mode {
        _ if !refuses_denied && !refuses_held => DownloadPolicy::None,
        Mode::Audit => DownloadPolicy::Watch,
        Mode::Enforce => DownloadPolicy::Enforce,
    }
}

/// Stores and serves crate files; `None` if clients are redirected to the upstream.
pub(super) fn keeper(config: &Config, clock: &Clock) -> Result<Option<CrateFiles>, StartError> {
    let sources = match config.download_mode {
        DownloadMode::Redirect => return Ok(None),
        DownloadMode::Offline => None,
        DownloadMode::Cache => Some(crate_sources(config, clock)?),
    };
    Ok(Some(open_keeper(config, clock, sources)?))
}

/// The upstreams of crate files.
pub(crate) fn crate_sources(config: &Config, clock: &Clock) -> Result<CrateSources, ClientError> {
    CrateSources::new(&config.downloads, client_settings(config), clock.clone())
}

/// How upstreams are asked.
pub(crate) fn client_settings(config: &Config) -> ClientSettings {
    ClientSettings {
        user_agent: user_agent(config.contact.as_deref()),
        limits: config.fetch_limits,
        resolver: config.resolver.clone(),
        proxies: config.proxies.clone(),
    }
}

/// How git reaches other machines: it follows redirects by the rules for crate files. Must be called inside a runtime.
pub(crate) fn outgoing(config: &Config) -> Outgoing {
    let settings = Arc::new(client_settings(config));
    let runtime = tokio::runtime::Handle::current();
    let redirects = Redirects::new(move |address| {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        let (settings, address) = (Arc::clone(&settings), address.to_owned());
        runtime.spawn(async move {
            // The look-up of a name has no time-out of its own.
            let found = tokio::time::timeout(REDIRECT_TIME_MAX, find_redirect(&settings, &address));
            let found = found.await;
            let found =
                found.unwrap_or_else(|_elapsed| Err("it did not answer in time".to_owned()));
            // The receiver is gone if the fetch was abandoned.
            let _left_behind = tell.send(found);
        });
        // If the runtime ends, it drops the task with its sender.
        told.recv()
            .unwrap_or_else(|_ended| Err("the mirror is stopping".to_owned()))
    });
    Outgoing {
        proxies: config.proxies.clone(),
        redirects,
    }
}

/// The store, filled from these upstreams. Must be called inside a runtime.
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
        store: Arc::new(CrateStore::open(store)?),
        sources,
        missing_remembered: config.missing_remembered,
        wait_max: config.fetch_wait_max,
    }))
}

/// The stored files, for rules that need them. Must be asked on a thread that may block.
pub(super) fn stored_files(keeper: CrateFiles, stop: CancellationToken) -> StoredFiles {
    let runtime = tokio::runtime::Handle::current();
    StoredFiles::new(move || {
        let listing = async {
            tokio::select! {
                held = tokio::time::timeout(LISTING_TIME_MAX, keeper.store().checksums()) => Ok(held??),
                () = stop.cancelled() => Err(Stopping.into()),
            }
        };
        runtime.block_on(listing)
    })
}

/// The index files of crate files, for views that follow the stored files.
pub(super) fn index_files_of(catalog: Catalog) -> IndexFilesOf {
    IndexFilesOf::new(move |checksums| Ok(catalog.index_files_of(checksums)?))
}

/// The `User-Agent` that servers see.
pub(super) fn user_agent(contact: Option<&str>) -> String {
    match contact {
        Some(contact) => format!("{USER_AGENT} ({contact})"),
        None => USER_AGENT.to_owned(),
    }
}

/// What the follower of the advisory database needs. Must be called inside a runtime.
pub(super) fn advisory_settings(
    config: &Config,
    url: RemoteUrl,
    clock: Clock,
    program: GitProgram,
) -> AdvisorySettings {
    AdvisorySettings {
        url,
        outgoing: outgoing(config),
        data_dir: config.data_dir.clone(),
        temp_dir: config.temp_dir.clone(),
        interval: config.advisory_interval,
        clock,
        network: network(config),
        program,
        upkeep: config.upkeep,
    }
}

/// What a subcommand needs to bring the advisory database up to date; `None` if it does not count. Must be called inside a
/// runtime.
pub(crate) fn advisory_refresh(config: &Config, clock: Clock) -> Option<AdvisorySettings> {
    let url = config.advisory_db_url.clone();
    let url = url.filter(|_| config.policy.settings.mode == Mode::Enforce)?;
    let program = GitProgram::new(config.search_path.clone());
    Some(advisory_settings(config, url, clock, program))
}

/// Whether the mirror may use the network.
fn network(config: &Config) -> Network {
    match config.download_mode {
        DownloadMode::Offline => Network::Forbidden,
        DownloadMode::Redirect | DownloadMode::Cache => Network::Allowed,
    }
}

/// What the follower of the index needs, without rules and without a git index.
pub(crate) fn follower_settings(config: &Config, clock: Clock) -> FollowerSettings {
    FollowerSettings {
        url: config.git_repo_url.clone(),
        outgoing: outgoing(config),
        data_dir: config.data_dir.clone(),
        interval: config.refresh_interval,
        clock,
        git_index: None,
        network: network(config),
        rules: Rules::default(),
        stored_files: None,
        index_files_of: None,
        policy_lookup: None,
        lock_wait_max: config.lock_wait_max,
        temp_dir: config.temp_dir.clone(),
        upkeep: config.upkeep,
    }
}
