//! `check-config`: prints the settings, and checks what they need of the machine and the store.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use url::Url;

use crate::cli::context::{Context, Outcome};
use crate::config::{Config, DownloadMode, Origin, Setting};
use crate::index::{check_local_upstream, check_writable, has_clone};
use crate::outgoing::{Proxies, certificates, shown_proxy};
use crate::store::{Access, probe as probe_store};
use crate::upstream::DownloadTemplate;

/// The beginning of the name of a file that is written to test a directory, and removed at once.
const PROBE: &str = ".crates-io-mirror-check";

/// Prints the settings, then the problems. Blocks for a few files on a disk.
pub(crate) async fn check_config(settings: &[Setting], context: &Context) -> Outcome {
    let (config, terminal) = (&context.config, &context.terminal);
    let lines = settings.iter().map(line_of).chain(cloud_lines(config));
    for line in lines {
        if terminal.result(&line).is_err() {
            return Outcome::Incomplete;
        }
    }
    for warning in config.warnings() {
        terminal.note(&format!("warning: {warning}"));
    }
    for line in proxy_lines(config) {
        terminal.note(&line);
    }
    let mut failures = failures(config);
    failures.extend(store_failure(config).await);
    for failure in &failures {
        terminal.note(&format!("problem: {failure}"));
    }
    if !failures.is_empty() {
        return Outcome::Incomplete;
    }
    terminal.note("the settings are good");
    Outcome::Done
}

fn line_of(setting: &Setting) -> String {
    let Setting {
        name,
        value,
        origin,
    } = setting;
    match origin {
        Origin::Environment => format!("{name} = {value}"),
        Origin::Default => format!("{name} = {value} (default)"),
        Origin::NotSet => format!("{name} (not set: {value})"),
    }
}

/// The clouds' own variables that the store uses.
fn cloud_lines(config: &Config) -> Vec<String> {
    if config.download_mode == DownloadMode::Redirect {
        return Vec::new();
    }
    let used = config.storage.used_variables().into_iter();
    used.map(|(name, value)| format!("{name} = {value}"))
        .collect()
}

/// Why the mirror cannot use its store.
async fn store_failure(config: &Config) -> Option<String> {
    let access = match config.download_mode {
        DownloadMode::Redirect => return None,
        DownloadMode::Cache => Access::Write,
        DownloadMode::Offline => Access::Read,
    };
    let error = probe_store(&config.storage, access).await.err()?;
    let why = config.storage.redact(&error.to_string());
    Some(format!("STORAGE_URL: `{}`: {why}", config.storage))
}

/// Why the mirror would not work.
fn failures(config: &Config) -> Vec<String> {
    let mut failures = Vec::new();
    // Offline a directory that cannot be written to is good enough.
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
    if config.follows_the_index()
        && !has_clone(&config.data_dir)
        && let Err(why) = check_local_upstream(&config.git_repo_url)
    {
        failures.push(format!("GIT_REPO_URL: {why}"));
    }
    if config.public_url.is_some() && !is_on_path("git", &config.search_path) {
        failures.push(
            "PUBLIC_URL: there is no `git` program in PATH, and the git index needs one".to_owned(),
        );
    }
    failures
}

/// The upstreams of the mirror itself, with their variables.
fn upstreams(config: &Config) -> Vec<(&'static str, Url)> {
    let index = config
        .follows_the_index()
        .then(|| Url::parse(config.git_repo_url.address()).ok())
        .flatten();
    let mut upstreams: Vec<(&str, Url)> =
        index.into_iter().map(|url| ("GIT_REPO_URL", url)).collect();
    if config.download_mode == DownloadMode::Cache {
        let urls = config.downloads.iter().filter_map(DownloadTemplate::origin);
        upstreams.extend(urls.map(|url| ("DOWNLOAD_URL", url)));
    }
    upstreams
}

fn asked_by_https(config: &Config) -> Vec<&'static str> {
    let upstreams = upstreams(config).into_iter();
    let mut names: Vec<&str> = upstreams
        .filter(|(_name, url)| url.scheme() == "https")
        .map(|(name, _url)| name)
        .collect();
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
    upstreams(config)
        .into_iter()
        .filter(|(_name, url)| url.has_host())
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
        let outcome = runtime.block_on(check_config(&settings, &context));
        (outcome, written.results(), written.notes())
    }

    #[test]
    fn prints_every_variable_and_leaves_nothing_behind() {
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
    fn a_doubtful_setting_is_a_warning_and_no_failure() {
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
