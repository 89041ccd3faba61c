//! The background task that pushes the git index to another git host. So the classic set-up, an index repository with a
//! `config.json` of its own, stays up to date.
//!
//! The `git` program pushes. It gets the user's settings for ssh and proxies, and nothing else of the environment.
//! Nothing waits for a push: a push that fails or hangs only appears on `/readyz` and in the log.

use std::ffi::OsString;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};
use tokio_util::sync::CancellationToken;

use super::overlay::SERVED_BRANCH;
use super::program::{GitProgram, configure, trust};
use super::upload_pack::GitIndex;
use crate::index::handle::IndexHandle;
use crate::index::ids::ObjectId;
use crate::index::retry::backoff;
use crate::index::source::remote_url::RemoteUrl;
use crate::observability::LastFailure;

/// The longest time for one push. The first push sends the whole index.
const PUSH_TIME_MAX: Duration = Duration::from_secs(3_600);

/// The time after which the same state is pushed again, in case another user has moved the branch.
const PUSH_AGAIN_AFTER: Duration = Duration::from_secs(3_600);

/// The time for reading stderr after the child has ended.
const STDERR_WAIT_MAX: Duration = Duration::from_secs(1);

/// The bytes of git's stderr that are kept.
const STDERR_BYTES_MAX: u64 = 2_048;

/// Passes the credentials to git through its environment: every user of the machine can read a command line.
const CREDENTIAL_HELPER: &str = "credential.helper=!f() { test \"$1\" = get && \
    printf 'username=%s\\npassword=%s\\n' \"$MIRROR_PUSH_USER\" \"$MIRROR_PUSH_PASSWORD\"; }; f";

/// The protocols that git may use. Other protocols start programs that the address names.
const PROTOCOLS: &str = "file:git:http:https:ssh";

/// Environment variables for git. `Debug` shows only the names, because the address of a proxy may contain a password.
#[derive(Clone)]
pub(crate) struct PushEnvironment(Vec<(&'static str, OsString)>);

impl PushEnvironment {
    /// These variables.
    pub(crate) fn new(variables: Vec<(&'static str, OsString)>) -> Self {
        Self(variables)
    }
}

impl fmt::Debug for PushEnvironment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _secret)| name);
        formatter.debug_list().entries(names).finish()
    }
}

/// The settings of the push.
#[derive(Clone, Debug)]
pub(crate) struct PusherSettings {
    /// The target of the push.
    pub(crate) url: RemoteUrl,
    /// The git program.
    pub(crate) program: GitProgram,
    /// The environment of git, beside `PATH`.
    pub(crate) environment: PushEnvironment,
    /// The `User-Agent` for git hosts.
    pub(crate) user_agent: String,
}

/// Pushes each new state of the git index.
#[derive(Debug)]
pub(crate) struct Pusher {
    settings: PusherSettings,
    handle: IndexHandle,
    /// The commit that the remote has, as far as the mirror knows.
    pushed: Option<ObjectId>,
    /// What the log has told of.
    told: LastFailure,
}

impl Pusher {
    /// Makes a pusher for the views of `handle`. It does nothing until it runs.
    pub(crate) fn new(settings: PusherSettings, handle: IndexHandle) -> Self {
        let remote = settings.url.to_string();
        handle.note_push(|status| status.remote = remote);
        Self {
            settings,
            handle,
            pushed: None,
            told: LastFailure::default(),
        }
    }

    /// Pushes until the mirror stops. A stop kills the current push.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // Dropping the future kills the child, if there is one.
        stop.run_until_cancelled(self.push_loop()).await;
    }

    async fn push_loop(&mut self) -> ! {
        let mut failures = 0_u32;
        let mut changes = self.handle.view_changes();
        loop {
            // Before the look at the view: a change after it must not be missed.
            changes.mark_unchanged();
            let view = self.handle.view();
            match view.and_then(|view| view.git_index().cloned()) {
                Some(index) if self.pushed != Some(index.tip) => match self.push(&index).await {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        tokio::time::sleep(self.failed(&error, failures)).await;
                    }
                },
                _ => {
                    // The sender cannot be gone: this task has a handle.
                    if tokio::time::timeout(PUSH_AGAIN_AFTER, changes.changed())
                        .await
                        .is_err()
                    {
                        self.pushed = None;
                    }
                }
            }
        }
    }

    async fn push(&mut self, index: &Arc<GitIndex>) -> io::Result<()> {
        tokio::time::timeout(PUSH_TIME_MAX, self.run_git(index))
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        self.pushed = Some(index.tip);
        // The event of each push says that it works again.
        self.told.note_success();
        let commit = index.commit.to_string();
        tracing::info!(index.commit = commit, index.remote = %self.settings.url, "the index was pushed");
        self.handle.note_push(|status| {
            status.pushes += 1;
            status.commit = Some(commit);
            status.last_error = None;
        });
        Ok(())
    }

    /// Notes a failure, and returns the pause before the next attempt.
    fn failed(&self, error: &io::Error, in_a_row: u32) -> Duration {
        let error = match error.kind() {
            io::ErrorKind::NotFound => "there is no git program on this machine".to_owned(),
            _ => self.settings.url.redact(&error.to_string()),
        };
        let pause = backoff(in_a_row, Duration::ZERO);
        if self.told.note_failure(&error) {
            tracing::warn!(
                index.remote = %self.settings.url,
                retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                error,
                "the index could not be pushed; serving goes on"
            );
        }
        self.handle.note_push(|status| {
            status.failures += 1;
            status.last_error = Some(error);
        });
        pause
    }

    async fn run_git(&self, index: &GitIndex) -> io::Result<()> {
        let mut group = self.settings.program.start(&mut self.command(index))?;
        let stderr = group.child.stderr.take();
        let mut message = Vec::new();
        let status = {
            let mut reading = pin!(read_stderr(stderr, &mut message));
            tokio::select! {
                status = group.child.wait() => {
                    // With a time-out: ssh may leave a process for the next connection, which keeps the pipe open.
                    let _ended = tokio::time::timeout(STDERR_WAIT_MAX, &mut reading).await;
                    status?
                }
                () = &mut reading => group.child.wait().await?,
            }
        };
        if status.success() {
            return Ok(());
        }
        let message = String::from_utf8_lossy(&message);
        let lines: Vec<&str> = message.split('\n').map(str::trim).collect();
        Err(io::Error::other(format!(
            "git push: {status}: {}",
            lines.join(" ").trim()
        )))
    }

    fn command(&self, index: &GitIndex) -> Command {
        let mut command = self.settings.program.command();
        command
            .envs(self.settings.environment.0.iter().cloned())
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_TERMINAL_PROMPT", "0");
        let user_agent = format!("http.userAgent={}", self.settings.user_agent);
        configure(
            &mut command,
            &[
                &user_agent,
                // Ends a push to an unresponsive host.
                "http.lowSpeedLimit=100",
                "http.lowSpeedTime=60",
                "core.askPass=",
            ],
        );
        if let Some(credentials) = self.settings.url.credentials() {
            command
                .env("MIRROR_PUSH_USER", &credentials.user)
                .env("MIRROR_PUSH_PASSWORD", &credentials.password);
            // A redirect to another host must not get the credentials.
            configure(
                &mut command,
                &[
                    "credential.helper=",
                    CREDENTIAL_HELPER,
                    "http.followRedirects=false",
                ],
            );
        }
        trust(&mut command, &index.path);
        command
            .arg("--git-dir")
            .arg(&index.path)
            .args(["push", "--quiet", "--no-verify", "--"])
            .arg(self.settings.url.address())
            .arg(format!("+{SERVED_BRANCH}:{SERVED_BRANCH}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

/// Keeps the beginning of a child's stderr. Also reads the rest: the child would block if the pipe were full.
async fn read_stderr(stderr: Option<ChildStderr>, message: &mut Vec<u8>) {
    if let Some(stderr) = stderr {
        let mut beginning = stderr.take(STDERR_BYTES_MAX);
        // After an error the message is what was read before it.
        let _unreadable = beginning.read_to_end(message).await;
        let _unreadable =
            tokio::io::copy(&mut beginning.into_inner(), &mut tokio::io::sink()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_values_of_variables() {
        let proxy = ("https_proxy", "http://b0b:s3cret@proxy".into());
        let environment = PushEnvironment::new(vec![proxy]);
        assert_eq!(format!("{environment:?}"), r#"["https_proxy"]"#);
    }
}
