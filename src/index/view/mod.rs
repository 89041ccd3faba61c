//! A view: a source seen through rules, together with its git index, behind one pointer.

pub(super) mod build;
pub(super) mod changes;
pub(super) mod large_files;
pub(super) mod listing;
pub(super) mod policy;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use self::policy::{PolicyId, ViewPolicy};
use super::git::upload_pack::GitIndex;
use super::ids::{BlobId, CommitId};
use super::limits::ReadError;
use super::source::directory::Directory;
use super::source::snapshot::Source;
use crate::package::{CrateName, IndexPath, Timestamp};
use crate::policy::{DecidedVersion, Facts, FileState, Mode, Rules, Settings, Totals, decisions};

/// One state of the index that the mirror shows.
///
/// Invariants: it never changes, except for its time. The sparse index, the git index, the API and downloads of one view show the same.
/// Without rules it shares the directories of its source.
#[derive(Debug)]
pub(crate) struct View {
    source: Arc<Source>,
    /// The shown directories. Every shown file is a blob in the clone of the source.
    root: Arc<Directory>,
    /// `None` without rules.
    policy: Option<Arc<ViewPolicy>>,
    git_index: Option<Arc<GitIndex>>,
    /// Policy time, in seconds since 1970. A refresh that finds nothing new makes it later.
    policy_time: AtomicI64,
}

impl View {
    /// Shows a source without changes.
    pub(super) fn without_rules(source: Arc<Source>, policy_time: i64) -> Self {
        Self {
            root: Arc::clone(source.root()),
            source,
            policy: None,
            git_index: None,
            policy_time: policy_time.into(),
        }
    }

    /// Shows `root`, which rules have made of a source.
    pub(super) fn through(
        source: Arc<Source>,
        policy: ViewPolicy,
        root: Arc<Directory>,
        policy_time: i64,
    ) -> Self {
        Self {
            source,
            root,
            policy: Some(Arc::new(policy)),
            git_index: None,
            policy_time: policy_time.into(),
        }
    }

    /// A copy of this view with this git index.
    pub(super) fn with_git_index(&self, git_index: Option<Arc<GitIndex>>) -> Self {
        Self {
            source: Arc::clone(&self.source),
            root: Arc::clone(&self.root),
            policy: self.policy.clone(),
            git_index,
            policy_time: self.seconds().into(),
        }
    }

    /// Takes the time of a view that shows the same: its decisions still hold at that time.
    pub(super) fn confirm(&self, same: &Self) {
        self.policy_time.store(same.seconds(), Ordering::Relaxed);
    }

    fn seconds(&self) -> i64 {
        self.policy_time.load(Ordering::Relaxed)
    }

    /// Policy time: when the last successful fetch of what this view shows began, in whole minutes. If that is unknown, the
    /// time of the upstream's commit, which is older.
    pub(crate) fn policy_time(&self) -> Option<Timestamp> {
        Timestamp::from_unix_seconds(self.seconds())
    }

    /// Whether another view has the same commit, the same files and the same decisions.
    pub(super) fn shows_the_same_as(&self, other: &Self) -> bool {
        let has_same_policy = match (&self.policy, &other.policy) {
            (Some(ours), Some(theirs)) => ours.is_the_same_as(theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        };
        self.commit() == other.commit() && self.root.tree == other.root.tree && has_same_policy
    }

    /// The source: the upstream's index.
    pub(crate) fn source(&self) -> &Arc<Source> {
        &self.source
    }

    /// The root of the shown directories.
    pub(super) fn root(&self) -> &Arc<Directory> {
        &self.root
    }

    /// The git index of this view. `None` if it is off, or could not be made.
    pub(crate) fn git_index(&self) -> Option<&Arc<GitIndex>> {
        self.git_index.as_ref()
    }

    /// Whether the mirror may write to the data directory, in which this view lies.
    pub(crate) fn may_write_beside(&self) -> bool {
        self.source.repository().has_data_dir()
    }

    /// The upstream commit of this view.
    pub(crate) fn commit(&self) -> CommitId {
        self.source.commit()
    }

    /// When the upstream commit was made, as the commit says. It may be ahead of the clock.
    pub(crate) fn commit_time(&self) -> SystemTime {
        self.source.commit_time
    }

    /// Whether the rules may hide versions that upstream lists.
    pub(crate) fn may_hide(&self) -> bool {
        self.policy
            .as_ref()
            .is_some_and(|policy| policy.rules.may_hide())
    }

    /// Whether there is a policy.
    pub(crate) fn has_policy(&self) -> bool {
        self.policy_settings().is_some()
    }

    /// The settings of the policy; `None` without one.
    pub(crate) fn policy_settings(&self) -> Option<&Settings> {
        self.policy.as_ref()?.rules.policy()
    }

    /// What the policy was decided from; `None` without a policy.
    pub(crate) fn policy_facts(&self) -> Option<&Facts> {
        self.policy.as_ref()?.facts.as_ref()
    }

    /// Whether rules change what is shown.
    pub(crate) fn is_ruled(&self) -> bool {
        let policy = self.policy.as_ref();
        policy.is_some_and(|policy| !policy.rules.only_watch())
    }

    /// The name of the decisions that this view shows; `None` if no rule changes anything that is shown, and in audit mode:
    /// what is only noted must not look like another state, whatever other rules there are.
    pub(crate) fn policy_id(&self) -> Option<PolicyId> {
        let is_audit = |settings: &Settings| settings.mode == Mode::Audit;
        let is_named = self.is_ruled() && !self.policy_settings().is_some_and(is_audit);
        self.decisions_id().filter(|_| is_named)
    }

    /// The name of the decisions, also of those that are only noted.
    pub(crate) fn decisions_id(&self) -> Option<PolicyId> {
        Some(self.policy.as_ref()?.id())
    }

    /// How many versions the policy has decided about; `None` without a policy.
    pub(crate) fn policy_totals(&self) -> Option<&Totals> {
        self.policy_settings()?;
        Some(&self.policy.as_ref()?.states.totals)
    }

    /// What the policy has found in the index file of this crate (the name of the file); `None` for nothing.
    pub(crate) fn policy_state(&self, file_name: &str) -> Option<&FileState> {
        self.policy.as_ref()?.states.of(file_name)
    }

    /// The upstream's index file of a crate, whatever the spelling of the name: its name and its id.
    pub(crate) fn source_file(&self, name: &CrateName) -> Option<(&str, BlobId)> {
        let (path, source) = (IndexPath::from(name), self.source.root());
        let mut found = source.find_named(&path);
        // A strange index has two spellings of one name, and only the other one is shown. Look-ups read that one, so the
        // decisions must be about it. A file that could not be read is no reason to look at another one.
        if let (Some((file, _)), Some((shown, _))) = (found, self.root.find_named(&path))
            && file != shown
            && !self.policy_state(file).is_some_and(|state| state.is_unread)
        {
            let shown = CrateName::try_from(shown.to_owned()).ok()?;
            found = source.find_named(&IndexPath::from(&shown));
        }
        found.map(|(file, blob)| (file, BlobId(blob)))
    }

    /// The decisions about the versions in an index file of the upstream, see `source_file`. Without a policy all are
    /// allowed.
    pub(crate) fn decisions(&self, file_name: &str, content: &[u8]) -> Vec<DecidedVersion> {
        let policy = self.policy.as_ref();
        match policy.and_then(|policy| Some((policy, policy.facts.as_ref()?))) {
            Some((policy, facts)) => decisions(&policy.rules, facts, file_name, content),
            None => decisions(&Rules::default(), &Facts::default(), file_name, content),
        }
    }

    /// The number of crates in this view.
    pub(crate) fn crate_count(&self) -> usize {
        self.root.count
    }

    /// Finds the index file at exactly this path, as cargo requests it.
    pub(crate) fn find_exactly(&self, path: &IndexPath) -> Option<BlobId> {
        self.root.find_exactly(path).map(BlobId)
    }

    /// Finds the index file of a crate by any spelling of its name.
    pub(crate) fn find(&self, name: &CrateName) -> Option<BlobId> {
        self.root.find(&IndexPath::from(name)).map(BlobId)
    }

    /// The size of an index file in bytes. Blocking, and much faster than reading the file.
    pub(crate) fn blob_bytes(&self, blob: BlobId) -> Result<u64, ReadError> {
        self.source.repository().blob_bytes(blob.0)
    }

    /// Reads an index file that this view lists. Blocking.
    pub(crate) fn read_blob<T>(
        &self,
        blob: BlobId,
        read: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ReadError> {
        self.source.repository().read_blob(blob.0, read)
    }
}
