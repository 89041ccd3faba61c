//! What the policy is decided from while the mirror runs: the last good policy file, and the advisories.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::{ConfigError, PolicyConfig};
use crate::index::{PolicyFacts, PolicyLookup};
use crate::policy::{Advisories, PolicyFile};

/// The pause between the two readings of a file that has changed. Editors and `cp` write the largest policy file within
/// milliseconds.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What the policy is decided from. Each look-up, which is one for each refresh, reads the policy file again. The file
/// that was last good stays in force while the one on the disk is bad, empty, or still being written. The pause between
/// two readings is at most that between refreshes.
pub(crate) fn policy_in_force(
    policy: PolicyConfig,
    refresh_interval: Option<Duration>,
    advisories: impl Fn() -> Option<Arc<Advisories>> + Send + Sync + 'static,
) -> PolicyLookup {
    let pause = refresh_interval.map_or(PAUSE_MAX, |interval| interval.min(PAUSE_MAX));
    let in_force = Mutex::new(PolicyFacts {
        file: Arc::clone(&policy.file),
        ..PolicyFacts::default()
    });
    PolicyLookup::new(move || {
        let mut facts = in_force.lock();
        #[expect(
            clippy::disallowed_methods,
            reason = "look-ups are on a thread that may block"
        )]
        let changed = changed_file(&policy, &facts.file, || thread::sleep(pause));
        let error = match changed {
            Ok(Some(file)) => {
                tracing::info!("the policy file has changed");
                for warning in file.warnings(0) {
                    tracing::warn!("POLICY_FILE: {warning}");
                }
                facts.file = Arc::new(file);
                None
            }
            Ok(None) => None,
            Err(error) => Some(error.to_string()),
        };
        if error != facts.file_error {
            match &error {
                Some(error) => tracing::warn!(
                    error,
                    "the policy file cannot be used; the last good one stays in force"
                ),
                None => tracing::info!("the policy file can be used again"),
            }
            facts.file_error = error;
        }
        facts.advisories = advisories();
        facts.clone()
    })
}

/// Why a policy file does not take the place of the last good one.
#[derive(Debug, thiserror::Error)]
enum NotUsable {
    /// It cannot be read, or is no policy file.
    #[error(transparent)]
    Bad(#[from] ConfigError),
    /// It has no content. A disk that is full, or a program that ended between emptying and writing, leaves such a file.
    #[error(
        "POLICY_FILE: the file is empty, and was not before; write a comment into it if nothing is to be denied"
    )]
    Emptied,
    /// Two readings differ.
    #[error("POLICY_FILE: the file is being written")]
    BeingWritten,
}

/// The policy file, if it is not the one in force. The beginning of a policy file is often a valid one, with fewer
/// entries, so a new text counts only if it is still there after the pause.
fn changed_file(
    policy: &PolicyConfig,
    in_force: &PolicyFile,
    pause: impl FnOnce(),
) -> Result<Option<PolicyFile>, NotUsable> {
    let Some(file) = policy.read_file()? else {
        return Ok(None);
    };
    if file.digest == in_force.digest {
        return Ok(None);
    }
    pause();
    let again = policy.read_file()?;
    let Some(file) = again.filter(|again| again.digest == file.digest) else {
        return Err(NotUsable::BeingWritten);
    };
    if file.is_blank && !in_force.is_blank {
        return Err(NotUsable::Emptied);
    }
    Ok(Some(file))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;

    const DENIES: &str = "[bans]\ndeny = ['a']\n";

    /// What the second reading finds if the file has this text at the first one and that text at the second.
    fn found(first: &str, second: &str) -> Result<Option<PolicyFile>, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), DENIES).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        let config = Config::from_pairs([("POLICY_FILE".to_owned(), path)]).unwrap();
        fs::write(file.path(), first).unwrap();
        changed_file(&config.policy, &config.policy.file, || {
            fs::write(file.path(), second).unwrap();
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn a_policy_file_counts_when_two_readings_agree() {
        let more = "[bans]\ndeny = ['a', 'b']\n";
        assert!(found(DENIES, more).unwrap().is_none());
        let denies_b = |file: PolicyFile| file.denial("b", &"1.0.0".parse().unwrap()).is_some();
        assert!(found(more, more).unwrap().is_some_and(denies_b));
        for (first, second) in [("", more), ("[bans]\n", more), (more, "[bans]\n")] {
            let error = found(first, second).unwrap_err();
            assert!(error.ends_with("the file is being written"), "{error}");
        }
        assert!(found(more, "[bans").unwrap_err().contains("line 1: "));
        assert!(found("[bans", more).unwrap_err().contains("line 1: "));
    }

    #[test]
    fn a_policy_file_that_was_emptied_is_an_error_and_a_comment_is_not() {
        for blank in ["", " \n\n"] {
            let error = found(blank, blank).unwrap_err();
            assert!(
                error.contains("the file is empty, and was not before"),
                "{error}"
            );
        }
        let comment = "# nothing is denied\n";
        assert!(
            found(comment, comment)
                .unwrap()
                .is_some_and(|file| !file.can_refuse())
        );
    }
}
