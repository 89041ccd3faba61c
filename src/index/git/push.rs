//! The background task that pushes the rewritten index to another git host, so that the classic set-up (an index
//! repository with a `config.json` of one's own) needs nobody to keep it up to date.
//!
//! It is done by the `git` program, with whatever its user has set up for ssh and proxies, and nothing else of the
//! environment. Nothing waits for it: a push that fails or hangs changes nothing but what `/readyz` and the log say of it.

use std::ffi::OsString;
use std::pin::pin;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStderr, Command};
use tokio_util::sync::CancellationToken;

use super::overlay::SERVED_BRANCH;
use super::upload_pack::{GitIndex, GitProgram, configure, kill_group, trust};
use crate::index::handle::IndexHandle;
use crate::index::ids::ObjectId;
use crate::index::retry::backoff;
use crate::index::source::remote_url::RemoteUrl;

/// The longest that one push may take. The first one sends the whole index.
const PUSH_TIME_MAX: Duration = Duration::from_secs(3_600);

/// How often to push what was pushed already, in case somebody has moved the branch.
const PUSH_AGAIN_AFTER: Duration = Duration::from_secs(3_600);

/// How long to listen to a child that has ended.
const STDERR_WAIT_MAX: Duration = Duration::from_secs(1);

/// How much of what git says is kept.
const STDERR_BYTES_MAX: u64 = 2_048;

/// Gives the credentials to git, which asks for them; on a command line everybody could read them.
const CREDENTIAL_HELPER: &str = "credential.helper=!f() { test \"$1\" = get && \
    printf 'username=%s\\npassword=%s\\n' \"$MIRROR_PUSH_USER\" \"$MIRROR_PUSH_PASSWORD\"; }; f";

/// The ways to another host. Others start programs that an address names.
const PROTOCOLS: &str = "file:git:http:https:ssh";

/// Variables with their values. The address of a proxy may contain a password, so only the names are shown.
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

/// What the task needs to know.
#[derive(Clone, Debug)]
pub(crate) struct PusherSettings {
    /// Where to push to.
    pub(crate) url: RemoteUrl,
    /// What pushes.
    pub(crate) program: GitProgram,
    /// What it gets of the environment beside `PATH`.
    pub(crate) environment: PushEnvironment,
    /// What git hosts see as `User-Agent`.
    pub(crate) user_agent: String,
}

/// Pushes each new state of the git index.
#[derive(Debug)]
pub(crate) struct Pusher {
    settings: PusherSettings,
    handle: IndexHandle,
    /// What the other side has, as far as we know.
    pushed: Option<ObjectId>,
}

impl Pusher {
    /// A pusher of what `handle` publishes. Does nothing until it runs.
    pub(crate) fn new(settings: PusherSettings, handle: IndexHandle) -> Self {
        let remote = settings.url.to_string();
        handle.note_push(|status| status.remote = remote);
        Self {
            settings,
            handle,
            pushed: None,
        }
    }

    /// Pushes until told to stop; a push that is under way then is killed.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        // Dropping the work kills the child, if there is one.
        stop.run_until_cancelled(self.push_loop()).await;
    }

    async fn push_loop(&mut self) -> ! {
        let mut failures = 0_u32;
        loop {
            let view = self.handle.view();
            match view.and_then(|view| view.git_index().cloned()) {
                Some(index) if self.pushed != Some(index.tip()) => match self.push(&index).await {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        failures = failures.saturating_add(1);
                        tokio::time::sleep(self.failed(&error, failures)).await;
                    }
                },
                _ => {
                    let changed = self.handle.view_changed();
                    if tokio::time::timeout(PUSH_AGAIN_AFTER, changed)
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
        self.pushed = Some(index.tip());
        let commit = index.commit().to_string();
        tracing::info!(index.commit = commit, index.remote = %self.settings.url, "the index was pushed");
        self.handle.note_push(|status| {
            status.pushes += 1;
            status.commit = Some(commit);
            status.last_error = None;
        });
        Ok(())
    }

    /// Notes a failure, and returns the pause before the next try.
    fn failed(&self, error: &io::Error, in_a_row: u32) -> Duration {
        let error = match error.kind() {
            io::ErrorKind::NotFound => "there is no git program on this machine".to_owned(),
            _ => self.settings.url.redact(&error.to_string()),
        };
        let pause = backoff(in_a_row, Duration::ZERO);
        tracing::warn!(
            index.remote = %self.settings.url,
            retry_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            error = error,
            "the index could not be pushed; serving goes on"
        );
        self.handle.note_push(|status| {
            status.failures += 1;
            status.last_error = Some(error);
        });
        pause
    }

    async fn run_git(&self, index: &GitIndex) -> io::Result<()> {
        let mut child = Group(self.command(index).spawn()?);
        let stderr = child.0.stderr.take();
        let mut said = Vec::new();
        let status = {
            let mut listening = pin!(listen(stderr, &mut said));
            tokio::select! {
                status = child.0.wait() => {
                    // What ssh leaves behind for the next connection may keep the other end of the pipe.
                    let _ended = tokio::time::timeout(STDERR_WAIT_MAX, &mut listening).await;
                    status?
                }
                () = &mut listening => child.0.wait().await?,
            }
        };
        if status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&said);
        let lines: Vec<&str> = said.split('\n').map(str::trim).collect();
        Err(io::Error::other(format!(
            "git push: {status}: {}",
            lines.join(" ").trim()
        )))
    }

    fn command(&self, index: &GitIndex) -> Command {
        let mut command = self.settings.program.command();
        command
            .envs(
                self.settings
                    .environment
                    .0
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .env("GIT_ALLOW_PROTOCOL", PROTOCOLS)
            .env("GIT_TERMINAL_PROMPT", "0");
        let user_agent = format!("http.userAgent={}", self.settings.user_agent);
        configure(
            &mut command,
            &[
                &user_agent,
                // A host that falls silent is given up on.
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
        trust(&mut command, index.path());
        command
            .arg("--git-dir")
            .arg(index.path())
            .args(["push", "--quiet", "--no-verify", "--"])
            .arg(self.settings.url.address())
            .arg(format!("+{SERVED_BRANCH}:{SERVED_BRANCH}"))
            .process_group(0)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command
    }
}

/// Keeps the beginning of what a child says. The rest is read, too, or the child would wait for a reader.
async fn listen(stderr: Option<ChildStderr>, said: &mut Vec<u8>) {
    if let Some(stderr) = stderr {
        let mut beginning = stderr.take(STDERR_BYTES_MAX);
        // What cannot be read was not said.
        let _unreadable = beginning.read_to_end(said).await;
        let _unreadable =
            tokio::io::copy(&mut beginning.into_inner(), &mut tokio::io::sink()).await;
    }
}

/// A child and its own children, which end together.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        kill_group(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_variables_are_not_shown() {
        let proxy = ("https_proxy", "http://b0b:s3cret@proxy".into());
        let environment = PushEnvironment::new(vec![proxy]);
        assert_eq!(format!("{environment:?}"), r#"["https_proxy"]"#);
    }
}
