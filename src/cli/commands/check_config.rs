//! `check-config`: prints the settings, and checks what they need of the machine, the store and the upstreams.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, join_all};
use serde::Serialize;
use tokio::time::Instant;
use url::Url;

use crate::app::{client_settings, outgoing};
use crate::cli::args::CheckConfigArguments;
use crate::cli::context::{Context, Failed, Outcome};
use crate::cli::terminal::Terminal;
use crate::config::{Config, DownloadMode, Origin, Setting};
use crate::index::{RemoteUrl, check_local_upstream, check_writable, has_clone, list_references};
use crate::outgoing::{Proxies, certificates, shown_proxy};
use crate::package::Timestamp;
use crate::policy::VersionCounts;
use crate::store::{Access, probe as probe_store};
use crate::upstream::{DownloadTemplate, check_answers};

/// The beginning of the name of a file that is written to test a directory, and removed at once.
const PROBE: &str = ".crates-io-mirror-check";

/// How long an upstream or the store may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// Everything that `check-config` reports.
#[derive(Serialize)]
struct Report<'s> {
    ok: bool,
    /// Each variable, by its name.
    settings: BTreeMap<&'static str, &'s Setting>,
    /// The clouds' own variables that the store uses.
    variables: BTreeMap<String, String>,
    /// The answers of the store and the upstreams. Absent if none was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstreams: Option<Vec<Answered>>,
    /// What the policy does with the index. Absent without a policy, and without an index.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyReport>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

/// What the policy does with the index that lies in the data directory.
#[derive(Serialize)]
struct PolicyReport {
    /// The time that decides about ages.
    policy_time: Option<Timestamp>,
    /// The commit of the advisory database; null without one.
    advisories: Option<String>,
    versions: VersionCounts,
}

/// How an upstream or the store has answered.
#[derive(Serialize)]
struct Answered {
    name: &'static str,
    target: String,
    ok: bool,
    milliseconds: u128,
    error: Option<String>,
}

/// Prints the JSON document for a setting with a bad value.
pub(crate) fn report_bad_setting(
    settings: &[Setting],
    why: String,
    terminal: &Terminal,
) -> Outcome {
    let report = Report {
        ok: false,
        settings: by_name(settings),
        variables: BTreeMap::new(),
        upstreams: None,
        policy: None,
        warnings: Vec::new(),
        errors: vec![why],
    };
    match print_json(&report, terminal) {
        Ok(()) => Outcome::Unusable,
        Err(_reported) => Outcome::Incomplete,
    }
}

/// Prints the settings, then the problems.
pub(crate) async fn check_config(
    arguments: CheckConfigArguments,
    settings: &[Setting],
    context: &Context,
) -> Outcome {
    let (config, terminal) = (&context.config, &context.terminal);
    let answered = ask(arguments.upstream, config).await;
    let mut errors = failures(config);
    for answer in &answered {
        if let Some(why) = &answer.error {
            errors.push(format!("{}: `{}`: {why}", answer.name, answer.target));
        }
    }
    let mut warnings = config.warnings();
    let policy = match count_by_policy(context, &mut warnings).await {
        Ok(policy) => policy,
        Err(failed) => {
            errors.extend(failed.why);
            None
        }
    };
    let report = Report {
        ok: errors.is_empty(),
        settings: by_name(settings),
        variables: cloud_variables(config),
        upstreams: arguments.upstream.then_some(answered),
        policy,
        warnings,
        errors,
    };
    let printed = if arguments.json {
        print_json(&report, terminal)
    } else {
        print_text(&report, settings, context)
    };
    if printed.is_ok() && report.ok {
        Outcome::Done
    } else {
        Outcome::Incomplete
    }
}

fn by_name(settings: &[Setting]) -> BTreeMap<&'static str, &Setting> {
    let named = settings.iter().map(|setting| (setting.name, setting));
    named.collect()
}

fn print_json(report: &Report<'_>, terminal: &Terminal) -> io::Result<()> {
    // On one line, because the terminal writes lines.
    terminal.result(&serde_json::to_string(report)?)
}

fn print_text(report: &Report<'_>, settings: &[Setting], context: &Context) -> io::Result<()> {
    let terminal = &context.terminal;
    for setting in settings {
        terminal.result(&line_of(setting))?;
    }
    for (name, value) in &report.variables {
        terminal.result(&format!("{name} = {value}"))?;
    }
    for answer in report.upstreams.iter().flatten() {
        terminal.result(&answer.line())?;
    }
    if let Some(policy) = &report.policy {
        terminal.result(&policy.line())?;
    }
    for warning in &report.warnings {
        terminal.note(&format!("warning: {warning}"));
    }
    for line in proxy_lines(&context.config) {
        terminal.note(&line);
    }
    for error in &report.errors {
        terminal.note(&format!("problem: {error}"));
    }
    if report.ok {
        terminal.note("the settings are good");
    }
    Ok(())
}

fn line_of(setting: &Setting) -> String {
    let (name, remark) = (setting.name, setting.remark);
    let value = setting.value.as_deref().unwrap_or_default();
    match setting.origin {
        Origin::Environment => format!("{name} = {value}"),
        Origin::Default => format!("{name} = {value} (default)"),
        Origin::NotSet => format!("{name} (not set: {remark})"),
    }
}

/// The clouds' own variables that the store uses.
fn cloud_variables(config: &Config) -> BTreeMap<String, String> {
    if config.download_mode == DownloadMode::Redirect {
        return BTreeMap::new();
    }
    let used = config.storage.used_variables().into_iter();
    used.map(|(name, value)| (name.to_owned(), value)).collect()
}

impl Answered {
    /// Waits for an answer.
    async fn when<F>(name: &'static str, target: String, asking: F) -> Self
    where
        F: Future<Output = Result<(), String>>,
    {
        let began = Instant::now();
        let answer = tokio::time::timeout(ANSWER_TIME_MAX, asking).await;
        let answer = answer.unwrap_or_else(|_elapsed| Err("it did not answer in time".to_owned()));
        Self {
            name,
            target,
            ok: answer.is_ok(),
            milliseconds: began.elapsed().as_millis(),
            error: answer.err(),
        }
    }

    fn line(&self) -> String {
        let (name, target, took) = (self.name, &self.target, self.milliseconds);
        match &self.error {
            None => format!("{name}: {target}: ok, {took} ms"),
            Some(why) => format!("{name}: {target}: failed after {took} ms: {why}"),
        }
    }
}

/// Counts what the policy does with the index in the data directory. `None` without a policy, and without an index.
async fn count_by_policy(
    context: &Context,
    warnings: &mut Vec<String>,
) -> Result<Option<PolicyReport>, Failed> {
    if !context.has_policy() {
        return Ok(None);
    }
    let Some(index) = context.open_index_on_disk().await? else {
        return Ok(None);
    };
    for warning in index.warnings() {
        // Those that do not depend on policy time are known from the settings.
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    let counting = index.clone();
    let totals = context.blocking(move || counting.totals()).await??;
    Ok(Some(PolicyReport {
        policy_time: index.policy_time(),
        advisories: index.advisories_commit().map(str::to_owned),
        versions: VersionCounts::from(&totals),
    }))
}

impl PolicyReport {
    fn line(&self) -> String {
        let VersionCounts {
            held,
            denied,
            frozen,
            left_out,
            without_publish_time,
        } = &self.versions;
        let time = self.policy_time.as_ref();
        let time = time.map_or_else(|| "unknown".to_owned(), ToString::to_string);
        format!(
            "policy: {held} versions held, {denied} denied, {frozen} frozen, {left_out} left out, \
             {without_publish_time} without a publish time; policy time {time}"
        )
    }
}

/// Asks the store and, if wanted, the upstreams, all at the same time.
async fn ask(upstreams: bool, config: &Config) -> Vec<Answered> {
    let mut asking: Vec<BoxFuture<'_, Answered>> = Vec::new();
    if upstreams {
        let repositories = repositories(config).into_iter();
        asking.extend(repositories.map(|(variable, url)| ask_git(variable, url, config).boxed()));
    }
    if upstreams && config.download_mode != DownloadMode::Offline {
        for template in config.downloads.iter() {
            asking.push(ask_crate_files(config, template).boxed());
        }
    }
    let access = match config.download_mode {
        DownloadMode::Redirect => None,
        DownloadMode::Cache => Some(Access::Write),
        DownloadMode::Offline => Some(Access::Read),
    };
    if let Some(access) = access {
        asking.push(ask_store(config, access).boxed());
    }
    join_all(asking).await
}

async fn ask_git(variable: &'static str, url: &RemoteUrl, config: &Config) -> Answered {
    let (target, url, outgoing) = (url.to_string(), url.clone(), outgoing(config));
    let name = format!(
        "{PROBE}-git-{}-{:08x}",
        std::process::id(),
        fastrand::u32(..)
    );
    let scratch = config.temp_dir.join(name);
    let listing = tokio::task::spawn_blocking(move || list_references(&scratch, &url, &outgoing));
    let asking = async {
        let listed = listing.await.map_err(|panic| panic.to_string())?;
        listed.map_err(|error| error.to_string())
    };
    Answered::when(variable, target, asking).await
}

async fn ask_crate_files(config: &Config, template: &DownloadTemplate) -> Answered {
    let settings = client_settings(config);
    let origin = template.origin.origin().ascii_serialization();
    let asking = check_answers(&settings, template);
    Answered::when("DOWNLOAD_URL", origin, asking).await
}

async fn ask_store(config: &Config, access: Access) -> Answered {
    let asking = async {
        let probed = probe_store(&config.storage, access).await;
        probed.map_err(|error| config.storage.redact(&error.to_string()))
    };
    Answered::when("STORAGE_URL", config.storage.to_string(), asking).await
}

/// Why the mirror would not work.
fn failures(config: &Config) -> Vec<String> {
    let mut failures = Vec::new();
    // Offline, a data directory that is only readable is enough.
    let must_write = config.follows_the_index() || !config.data_dir.is_dir();
    if must_write && let Err((place, error)) = probe(&config.data_dir) {
        failures.push(format!(
            "DATA_DIR: cannot write to `{}`: {error}",
            place.display()
        ));
    }
    let upstreams = asked_by_https(config);
    if !upstreams.is_empty() && certificates::are_missing() {
        let upstreams = upstreams.join(", ");
        failures.push(format!("{upstreams}: {}", certificates::MISSING));
    }
    for (variable, url) in repositories(config) {
        let is_here = variable == "GIT_REPO_URL" && has_clone(&config.data_dir);
        if !is_here && let Err(why) = check_local_upstream(url) {
            failures.push(format!("{variable}: {why}"));
        }
    }
    if config.public_url.is_some() && !is_on_path("git", &config.search_path) {
        failures.push(
            "PUBLIC_URL: there is no `git` program in PATH, and the git index needs one".to_owned(),
        );
    }
    failures
}

/// The repositories that the mirror fetches, with their variables.
fn repositories(config: &Config) -> Vec<(&'static str, &RemoteUrl)> {
    let index = config
        .follows_the_index()
        .then_some(("GIT_REPO_URL", &config.git_repo_url));
    let advisories = config.advisory_db_url.as_ref();
    let advisories = advisories.filter(|_| config.follows_advisories());
    let advisories = advisories.map(|url| ("ADVISORY_DB_URL", url));
    index.into_iter().chain(advisories).collect()
}

/// The upstreams of the mirror itself, with their variables.
fn upstreams(config: &Config) -> Vec<(&'static str, Url)> {
    let repositories = repositories(config).into_iter();
    let mut upstreams: Vec<(&str, Url)> = repositories
        .filter_map(|(name, url)| Some((name, Url::parse(url.address()).ok()?)))
        .collect();
    if config.download_mode == DownloadMode::Cache {
        let urls = config
            .downloads
            .iter()
            .map(|template| template.origin.clone());
        upstreams.extend(urls.map(|url| ("DOWNLOAD_URL", url)));
    }
    upstreams
}

fn asked_by_https(config: &Config) -> Vec<&'static str> {
    let mut upstreams = upstreams(config);
    upstreams.retain(|(_name, url)| url.scheme() == "https");
    let mut names: Vec<&str> = upstreams.into_iter().map(|(name, _url)| name).collect();
    names.dedup();
    names
}

/// How upstreams are reached, if there are proxies.
fn proxy_lines(config: &Config) -> Vec<String> {
    if config.proxies == Proxies::default() {
        return Vec::new();
    }
    let line = |(name, url): (&str, Url)| {
        let host = url.host_str().unwrap_or_default();
        match config.proxies.of(&url) {
            Some(proxy) => format!("{name}: {host} is reached through {}", shown_proxy(proxy)),
            None => format!("{name}: {host} is reached directly"),
        }
    };
    let upstreams = upstreams(config).into_iter();
    upstreams
        .filter(|(_, url)| url.has_host())
        .map(line)
        .collect()
}

/// Tries to write to the data directory, or to the directory that it would be made in. Leaves nothing behind.
fn probe(data_dir: &Path) -> Result<(), (PathBuf, io::Error)> {
    let mut place = data_dir;
    while !place.exists() {
        place = match place.parent() {
            None => break,
            // A relative path ends here.
            Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
            Some(parent) => parent,
        };
    }
    let file = place.join(format!("{PROBE}-{}", std::process::id()));
    let create = OpenOptions::new().write(true).create_new(true).open(&file);
    create
        .and_then(|_file| std::fs::remove_file(&file))
        .map_err(|error| (place.to_owned(), error))?;
    // The index may belong to another user, even if the directory does not. A mirror that ran here left its lock.
    let index = data_dir.join("index");
    if index.exists() {
        check_writable(data_dir).map_err(|error| (index, error))?;
    }
    Ok(())
}

fn is_on_path(program: &str, search_path: &OsStr) -> bool {
    std::env::split_paths(search_path).any(|directory| {
        directory
            .join(program)
            .metadata()
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::context;

    fn checked(pairs: &[(&str, &str)], search_path: &str) -> (Outcome, String, String) {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings = Config::describe_pairs(pairs.iter().map(owned));
        let (mut context, written) = context(pairs);
        context.config.search_path = search_path.into();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let outcome = runtime.block_on(check_config(
            CheckConfigArguments::default(),
            &settings,
            &context,
        ));
        (outcome, written.results(), written.notes())
    }

    #[test]
    fn the_check_prints_every_variable_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("a/b");
        let settings = [
            ("DATA_DIR", data_dir.to_str().unwrap()),
            ("GIT_REPO_URL", "https://b0b:s3cret@git.example/index"),
        ];
        let (outcome, results, notes) = checked(&settings, "");
        assert_eq!(
            (outcome, notes.as_str()),
            (Outcome::Done, "the settings are good\n")
        );
        assert!(results.contains("GIT_REPO_URL = https://***@git.example/index\n"));
        assert!(results.contains("PORT = 8080 (default)\n"));
        assert!(results.contains("CONTACT (not set: "));
        assert_eq!(results.lines().count(), crate::VARIABLES.len());
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn an_obstacle_to_the_mirror_is_a_problem() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        let below_a_file = file.join("data");
        let (outcome, _, notes) = checked(&[("DATA_DIR", below_a_file.to_str().unwrap())], "");
        assert_eq!(outcome, Outcome::Incomplete);
        assert!(
            notes.starts_with("problem: DATA_DIR: cannot write to `"),
            "{notes}"
        );
        let public = [
            ("DATA_DIR", directory.path().to_str().unwrap()),
            ("PUBLIC_URL", "https://mirror.example"),
        ];
        let search_path = directory.path().to_str().unwrap();
        let (outcome, _, notes) = checked(&public, search_path);
        assert_eq!(outcome, Outcome::Incomplete);
        assert!(notes.contains("no `git` program"), "{notes}");
        let git = directory.path().join("git");
        std::fs::write(&git, "").unwrap();
        std::fs::set_permissions(&git, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(checked(&public, search_path).0, Outcome::Done);
    }

    #[test]
    fn a_doubtful_setting_is_a_warning_and_not_a_failure() {
        let directory = tempfile::tempdir().unwrap();
        let settings = [
            ("DATA_DIR", directory.path().to_str().unwrap()),
            ("REFRESH_INTERVAL_SECS", "60"),
            ("MAX_STALENESS_SECS", "60"),
        ];
        let (outcome, _, notes) = checked(&settings, "");
        assert_eq!(outcome, Outcome::Done);
        assert!(notes.starts_with("warning: MAX_STALENESS_SECS"), "{notes}");
    }

    #[test]
    fn a_query_that_clients_will_see_is_a_warning_that_does_not_show_it() {
        let directory = tempfile::tempdir().unwrap();
        for (mode, warned) in [("redirect", true), ("cache", false)] {
            for url in [
                "https://h.example/{crate}?sig=s3cret",
                "https://h.example/{crate}#s3cret",
            ] {
                let settings = [
                    ("DATA_DIR", directory.path().to_str().unwrap()),
                    ("DOWNLOAD_MODE", mode),
                    ("DOWNLOAD_URL", url),
                ];
                let (outcome, results, notes) = checked(&settings, "");
                assert_eq!(outcome, Outcome::Done);
                assert_eq!(notes.contains("warning: DOWNLOAD_URL"), warned, "{notes}");
                assert!(!notes.contains("s3cret") && !results.contains("s3cret"));
            }
        }
    }
}
