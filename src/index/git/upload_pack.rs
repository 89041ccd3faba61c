//! Serves the git index and the advisory database: git's own `upload-pack` answers from a repository on disk.
//!
//! libgit2 cannot serve, so each request gets a `git` child process. HTTP, and the number of children, are decided
//! elsewhere (`http::git`).

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::task::{Context, Poll};

use git2::OdbLookupFlags;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use super::overlay::namespace;
use super::program::{GitProgram, Group, configure, trust};
use crate::index::ids::{CommitId, ObjectId};
use crate::index::source::clone_dir;
use crate::index::source::repository::Repository;

/// How many states before its own a client may ask for by their ids: those of a week, with a commit a minute.
const EARLIER_STATES_MAX: usize = 10_000;

/// The bytes of a child's stderr that are kept.
const STDERR_BYTES_MAX: u64 = 1_024;

/// The branch of a clone that is served as it is. RustSec's repository has the same.
pub(crate) const CLONE_BRANCH: &str = "refs/heads/main";

/// The settings of a child that serves a clone as it is. Clients see HEAD and [`CLONE_BRANCH`]; of several entries the
/// last one that matches decides.
const CLONE_SETTINGS: [&str; 3] = [
    "transfer.hideRefs=refs",
    "transfer.hideRefs=!refs/heads/main",
    // A client may ask for the commit that was listed before the upstream has rewritten its history. Version 2 of the
    // protocol allows that anyway.
    "uploadpack.allowAnySHA1InWant=true",
];

/// One state of the git index, or of a clone that is served as it is. As long as it exists, the mirror does not remove its
/// directory, nor the references of a state of the git index.
#[derive(Debug)]
pub(crate) struct GitIndex {
    /// The upstream commit that this state shows.
    pub(crate) commit: CommitId,
    /// The commit that clients get.
    pub(crate) tip: ObjectId,
    /// The references of this state; `None` for a clone that is served as it is.
    namespace: Option<String>,
    /// Keeps the clone, whose objects clients get.
    _repository: Arc<Repository>,
    /// Without symlinks, because git compares `safe.directory` to the resolved path.
    pub(crate) path: PathBuf,
    program: GitProgram,
    /// The states before this one, if a client has named one.
    earlier: Mutex<Option<HashSet<CommitId>>>,
}

/// A commit in a client's request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedCommit {
    /// Its id.
    pub(crate) commit: CommitId,
    /// Whether the client asks for it. Otherwise the client's history ends there.
    pub(crate) is_wanted: bool,
}

/// The states before this one. Clients may be about to fetch one of them.
fn earlier_states(git: &git2::Repository, tip: ObjectId) -> Result<HashSet<CommitId>, git2::Error> {
    let mut earlier = HashSet::new();
    let mut commit = git.find_commit(tip.to_oid()?)?;
    while earlier.len() < EARLIER_STATES_MAX && commit.parent_count() > 0 {
        commit = commit.parent(0)?;
        earlier.insert(CommitId(commit.id().into()));
    }
    Ok(earlier)
}

/// The protocol version in a client's request: `version=2`, possibly followed by more such pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GitProtocol(String);

impl GitProtocol {
    /// Parses the header `Git-Protocol`. A value that git does not send counts as no header. The value becomes an
    /// environment variable of a child, so only plain characters are allowed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let digit = parts.next()?.strip_prefix("version=")?;
        let is_digit = digit.len() == 1 && digit.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = |part: &str| {
            part.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'=' | b'-' | b'.'))
        };
        (is_digit && text.len() <= 64 && parts.all(is_plain)).then(|| Self(text.to_owned()))
    }
}

/// A client's request to the git index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GitRequest {
    /// The list of references or capabilities.
    Advertisement,
    /// The answer to a request body.
    Exchange,
}

impl GitIndex {
    /// Describes the git index of a clone at this state. Blocking.
    pub(crate) fn new(
        commit: CommitId,
        tip: ObjectId,
        repository: Arc<Repository>,
        program: GitProgram,
    ) -> Self {
        let path = clone_dir::git_index_path(repository.path());
        Self {
            tip,
            namespace: Some(namespace(tip)),
            path: path.canonicalize().unwrap_or(path),
            ..Self::of_clone(commit, repository, program)
        }
    }

    /// Describes a clone that is served as it is, with [`CLONE_BRANCH`] at this commit. Blocking.
    pub(crate) fn of_clone(
        commit: CommitId,
        repository: Arc<Repository>,
        program: GitProgram,
    ) -> Self {
        let path = repository.path().to_owned();
        Self {
            commit,
            tip: commit.0,
            namespace: None,
            path: path.canonicalize().unwrap_or(path),
            _repository: repository,
            program,
            earlier: Mutex::default(),
        }
    }

    /// The first of these commits that a client must not name, because it is no state of this git index. A history may end
    /// at commits that this machine does not have: git passes over them. Blocking.
    ///
    /// # Errors
    /// If the history of the git index cannot be read.
    pub(crate) fn refused_of(
        &self,
        named: &[NamedCommit],
    ) -> Result<Option<CommitId>, git2::Error> {
        let git = git2::Repository::open_bare(&self.path)?;
        let odb = git.odb()?;
        // One request looks the states up, and the others wait for it.
        let mut earlier = self.earlier.lock();
        let earlier = match &mut *earlier {
            Some(earlier) => earlier,
            unknown => unknown.insert(earlier_states(&git, self.tip)?),
        };
        for NamedCommit { commit, is_wanted } in named {
            if earlier.contains(commit) {
                continue;
            }
            if *is_wanted || odb.exists_ext(commit.0.to_oid()?, OdbLookupFlags::NO_REFRESH) {
                return Ok(Some(*commit));
            }
        }
        Ok(None)
    }

    /// Starts a child that answers a request.
    ///
    /// # Errors
    /// `NotFound` if there is no `git` program.
    pub(crate) fn answer(
        self: &Arc<Self>,
        request: GitRequest,
        protocol: Option<&GitProtocol>,
    ) -> io::Result<GitChild> {
        let mut command = self.program.command();
        // No settings of users or of the system.
        command
            .env("HOME", "/nonexistent")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null");
        trust(&mut command, &self.path);
        match &self.namespace {
            // The client sees the references of this state alone, whatever happens to the others meanwhile.
            Some(namespace) => {
                command.env("GIT_NAMESPACE", namespace);
            }
            None => configure(&mut command, &CLONE_SETTINGS),
        }
        command.args(["upload-pack", "--strict", "--stateless-rpc"]);
        if request == GitRequest::Advertisement {
            command.arg("--advertise-refs");
        }
        command.arg(&self.path);
        if let Some(GitProtocol(version)) = protocol {
            command.env("GIT_PROTOCOL", version);
        }
        GitChild::start(command, Arc::clone(self))
    }
}

/// A running `git upload-pack`. Dropping it kills the process and its children.
#[derive(Debug)]
pub(crate) struct GitChild {
    group: Group,
    /// The input, for the request body. Dropping it ends the input.
    pub(crate) stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: Option<ChildStderr>,
    /// Keeps the repository on disk.
    index: Arc<GitIndex>,
}

impl GitChild {
    fn start(mut command: Command, index: Arc<GitIndex>) -> io::Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut group = index.program.start(&mut command)?;
        let child = &mut group.child;
        let missing = || io::Error::other("a pipe to git is missing");
        Ok(Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().ok_or_else(missing)?,
            stderr: child.stderr.take(),
            group,
            index,
        })
    }

    /// The upstream commit of the answer.
    pub(crate) fn commit(&self) -> CommitId {
        self.index.commit
    }

    /// Waits for the end of a child after its answer. Returns its status and the beginning of its stderr.
    pub(crate) async fn finish(&mut self) -> io::Result<(ExitStatus, String)> {
        let mut message = Vec::new();
        if let Some(stderr) = self.stderr.take() {
            stderr
                .take(STDERR_BYTES_MAX)
                .read_to_end(&mut message)
                .await?;
        }
        let status = self.group.child.wait().await?;
        Ok((status, String::from_utf8_lossy(&message).trim().to_owned()))
    }
}

/// Reads the answer.
impl AsyncRead for GitChild {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stdout).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::follow::settings::GitIndexSettings;
    use crate::index::testing::TestIndex;

    /// What git finds in the namespace is checked by reading it. Starting git here would disturb tests that lock files: a
    /// new process has a copy of every lock until its program runs.
    #[test]
    fn a_view_keeps_its_references_while_the_next_views_are_made() {
        let mut index = TestIndex::new(&[("1/a", "1")]);
        index.settings_mut(|settings| {
            settings.git_index = Some(GitIndexSettings {
                config: "{}".to_owned(),
                program: GitProgram::new("/nonexistent".into()),
            });
        });
        index.refresh();
        let served = |index: &TestIndex| {
            let view = index.handle.view().unwrap();
            Arc::clone(view.git_index().unwrap())
        };
        let first = served(&index);
        for content in ["2", "3", "4"] {
            index.commit(&[("1/a", content)]);
            index.refresh();
        }
        let newest = served(&index);
        assert_ne!(first.tip, newest.tip);
        let git = git2::Repository::open_bare(&newest.path).unwrap();
        for state in [&first, &newest] {
            let namespace = format!("refs/namespaces/{}", namespace(state.tip));
            let head = git.find_reference(&format!("{namespace}/HEAD")).unwrap();
            let branch = format!("{namespace}/refs/heads/master");
            assert_eq!(head.symbolic_target().unwrap(), Some(branch.as_str()));
            let tip = git.refname_to_id(&branch).unwrap();
            assert_eq!(ObjectId::from(tip), state.tip);
        }
        // The one before the newest was in use when the newest was made. Nobody reads the one before that.
        let namespaces = std::fs::read_dir(newest.path.join("refs/namespaces"));
        assert_eq!(namespaces.unwrap().count(), 3);
    }

    #[test]
    fn only_values_that_git_sends_are_protocol_versions() {
        for good in [
            "version=2",
            "version=1",
            "version=2:agent=git",
            "version=0:a",
        ] {
            assert!(GitProtocol::parse(good).is_some(), "{good}");
        }
        let long = format!("version=2:{}", "a".repeat(60));
        for bad in [
            "",
            "2",
            "version=",
            "version=22",
            "version=x",
            "version=2:a b",
            "version=2:$(x)",
            "version=2\n",
            &long,
        ] {
            assert!(GitProtocol::parse(bad).is_none(), "{bad:?}");
        }
    }
}
