//! The settings of the policy: what a company may use.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::table::RawEnv;
use super::{ConfigError, value};
use crate::policy::{HeldDownloads, Mode, PolicyFile, Settings, UnknownAge};

/// The policy: its settings and its file.
#[derive(Clone, Debug)]
pub(crate) struct PolicyConfig {
    /// Everything but the file.
    pub(crate) settings: Settings,
    /// Where the file is (`POLICY_FILE`).
    pub(crate) path: Option<PathBuf>,
    /// What was in the file when the settings were read.
    pub(crate) file: Arc<PolicyFile>,
}

impl PolicyConfig {
    pub(super) fn validate(raw: &RawEnv) -> Result<Self, ConfigError> {
        let path = raw.policy_file.as_ref().map(PathBuf::from);
        let file = path.as_deref().map(read).transpose()?;
        Ok(Self {
            settings: Settings {
                min_age: value::age("MIN_PUBLISH_AGE", &raw.min_publish_age)?,
                unknown_age: value::choice(
                    "MIN_PUBLISH_AGE_UNKNOWN",
                    &raw.min_publish_age_unknown,
                    "`allow` or `hold`",
                    &[("allow", UnknownAge::Allow), ("hold", UnknownAge::Hold)],
                )?,
                held_downloads: value::choice(
                    "HELD_DOWNLOADS",
                    &raw.held_downloads,
                    "`allow` or `deny`",
                    &[
                        ("allow", HeldDownloads::Allow),
                        ("deny", HeldDownloads::Deny),
                    ],
                )?,
                mode: value::choice(
                    "POLICY_MODE",
                    &raw.policy_mode,
                    "`enforce` or `audit`",
                    &[("enforce", Mode::Enforce), ("audit", Mode::Audit)],
                )?,
                yank_guard: value::age("YANK_GUARD", &raw.yank_guard)?,
            },
            path,
            file: Arc::new(file.unwrap_or_default()),
        })
    }

    /// Reads the file again, on a thread that may block. `None` if there is none.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read, or is no policy file. It is one line with the path and the place.
    pub(crate) fn read_file(&self) -> Result<Option<PolicyFile>, ConfigError> {
        self.path.as_deref().map(read).transpose()
    }
}

/// `POLICY_FILE`.
fn read(path: &Path) -> Result<PolicyFile, ConfigError> {
    let bad = |remedy: String| ConfigError::new("POLICY_FILE", &path.to_string_lossy(), remedy);
    let unreadable = |error| bad(format!("a file that can be read: {error}"));
    // Opening a named pipe waits for its other end.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(bad("a regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    // One byte too many shows that the file is too large.
    let most = u64::try_from(PolicyFile::BYTES_MAX).unwrap_or(u64::MAX);
    file.take(most + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() > PolicyFile::BYTES_MAX {
        return Err(bad(format!("a file of at most {most} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|_not_utf8| bad("a file in UTF-8".to_owned()))?;
    PolicyFile::parse(&text).map_err(|error| bad(format!("a policy file; {error}")))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;

    fn policy(pairs: &[(&str, &str)]) -> Result<PolicyConfig, ConfigError> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Config::from_pairs(pairs.iter().map(owned)).map(|config| config.policy)
    }

    #[test]
    fn by_default_nothing_is_held_and_nothing_denied() {
        let policy = policy(&[]).unwrap();
        assert!(policy.settings.min_age.is_zero() && policy.settings.yank_guard.is_zero());
        assert_eq!(policy.settings.unknown_age, UnknownAge::Allow);
        assert_eq!(policy.settings.held_downloads, HeldDownloads::Allow);
        assert_eq!(policy.settings.mode, Mode::Enforce);
        assert!(policy.path.is_none() && !policy.file.can_refuse());
        assert!(policy.read_file().unwrap().is_none());
    }

    #[test]
    fn a_bad_policy_file_is_refused_with_its_path_and_the_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("policy.toml");
        let setting = path.to_str().unwrap();
        let large = vec![b'#'; PolicyFile::BYTES_MAX + 1];
        let contents: [(&[u8], &str); 5] = [
            (
                b"[bans]\ndeny = ['a b']",
                "line 2: `a b` is not the name of a crate",
            ),
            (b"[mirror]\n\nexempted = []", "line 3: `exempted`"),
            (b"[bans", "line 1: "),
            (b"[bans]\ndeny = ['\xff']", "a file in UTF-8"),
            (&large, "a file of at most 1048576 bytes"),
        ];
        for (content, words) in contents {
            fs::write(&path, content).unwrap();
            let error = policy(&[("POLICY_FILE", setting)]).unwrap_err().to_string();
            let begin = format!("POLICY_FILE: `{setting}` is not usable; expected ");
            assert!(
                error.starts_with(&begin) && error.contains(words),
                "{error}"
            );
            assert!(!error.contains('\n'), "{error}");
        }
        for (path, words) in [
            (directory.path().join("missing"), "a file that can be read"),
            (directory.path().to_owned(), "a regular file"),
            (PathBuf::from("/dev/zero"), "a regular file"),
        ] {
            let setting = path.to_str().unwrap();
            let error = policy(&[("POLICY_FILE", setting)]).unwrap_err().to_string();
            assert!(error.contains(setting) && error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_at_the_start_and_again_when_it_is_asked_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "bans.deny = ['a']").unwrap();
        let policy = policy(&[("POLICY_FILE", file.path().to_str().unwrap())]).unwrap();
        assert!(policy.file.can_refuse());
        fs::write(file.path(), "bans.deny = []").unwrap();
        assert!(!policy.read_file().unwrap().unwrap().can_refuse());
        fs::write(file.path(), "bans.deny = [").unwrap();
        let error = policy.read_file().unwrap_err().to_string();
        assert!(
            error.starts_with("POLICY_FILE: ") && error.contains("line 1"),
            "{error}"
        );
    }
}
