//! The index as the mirror serves it, without a view: for subcommands.
//!
//! The rules are applied to one index file at a time, with the facts that a mirror finds in the same data directory. So a
//! subcommand decides as the mirror does, beside it or without it, and writes nothing.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::policy_time::PolicyTime;
use super::settings::Network;
use super::tree_record::recorded_policy_time;
use super::yank_watch;
use crate::clock::Clock;
use crate::index::advisory_db::copy_on_disk::read_copy_on_disk;
use crate::index::limits::ReadError;
use crate::index::source::remote_url::RemoteUrl;
use crate::index::source::snapshot::Source;
use crate::package::{Checksum, CrateName, CrateVersion, Timestamp};
use crate::policy::{
    Advisories, Counts, DecidedVersion, Facts, PolicyFile, PolicyState, Reason, Rules, Settings,
    ShownFile, Totals, apply, decisions,
};

/// The largest number of threads that read index files. A mirror may serve requests at the same time.
const THREADS_MAX: usize = 4;

/// What the policy is, and where its facts are.
#[derive(Clone, Debug)]
pub(crate) struct ServedIndexSettings {
    /// The policy. Other rules are about views.
    pub(crate) rules: Rules,
    /// The policy file.
    pub(crate) file: Arc<PolicyFile>,
    /// The upstream of the advisory database.
    pub(crate) advisory_db: Option<RemoteUrl>,
    /// Whether a mirror with these settings may use the network. Nothing here does.
    pub(crate) network: Network,
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// The clock, for an index without a known fetch.
    pub(crate) clock: Clock,
}

/// The upstream's index, and the policy that it is served under. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct ServedIndex {
    /// The upstream's index.
    pub(crate) source: Arc<Source>,
    rules: Rules,
    facts: Facts,
    /// Why there are no advisories although there should be.
    no_advisories: Option<String>,
}

/// An index file as it is served.
#[derive(Debug)]
pub(crate) struct ServedFile<'a> {
    /// The lines that are served.
    pub(crate) content: Cow<'a, [u8]>,
    denied: Vec<DecidedVersion>,
}

impl ServedIndexSettings {
    /// Whether the policy may refuse the files of versions for good.
    pub(crate) fn may_deny(&self) -> bool {
        !self.rules.only_watch() && (self.file.can_refuse() || self.advisory_db.is_some())
    }
}

impl ServedIndex {
    /// Serves a source as it is.
    pub(crate) fn without_policy(source: Arc<Source>) -> Self {
        Self {
            source,
            rules: Rules::default(),
            facts: Facts::default(),
            no_advisories: None,
        }
    }

    /// Looks up the facts of the policy in the data directory. Blocking.
    pub(crate) fn of(source: Arc<Source>, settings: &ServedIndexSettings) -> Self {
        let Some(policy) = settings.rules.policy() else {
            return Self::without_policy(source);
        };
        let (advisories, no_advisories) = match advisories(settings) {
            Ok(advisories) => (advisories.map(Arc::new), None),
            Err(why) => (None, Some(why)),
        };
        // Without the file the guard knows no yanks. The same is true in a mirror.
        let yanks = match policy.yank_guard.is_zero() {
            true => Arc::default(),
            false => Arc::new(yank_watch::read(&settings.data_dir).unwrap_or_default()),
        };
        let mut policy_time = PolicyTime::default();
        policy_time.note_fetch(source.fetched());
        if let Some(recorded) = recorded_policy_time(source.repository().path()) {
            policy_time.note_last_view(recorded);
        }
        let facts = Facts {
            policy_time: policy_time.of(&source, &settings.clock),
            file: Arc::clone(&settings.file),
            advisories,
            yanks,
            ..Facts::default()
        };
        Self {
            source,
            rules: settings.rules.clone(),
            facts,
            no_advisories,
        }
    }

    /// The settings of the policy; `None` without one.
    pub(crate) fn policy(&self) -> Option<&Settings> {
        self.rules.policy()
    }

    /// The time that decides about ages.
    pub(crate) fn policy_time(&self) -> Option<Timestamp> {
        Timestamp::from_unix_seconds(self.facts.policy_time)
    }

    /// The commit of the advisory database; `None` without one.
    pub(crate) fn advisories_commit(&self) -> Option<&str> {
        let advisories = self.facts.advisories.as_ref();
        advisories.map(|advisories| advisories.commit.as_str())
    }

    /// What works, but is probably not what the operator means, one line each.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let advisories = self.no_advisories.iter();
        let advisories = advisories.map(|why| format!("advisories do not count: {why}"));
        let of_file = self.facts.file.warnings(self.facts.policy_time).into_iter();
        advisories
            .chain(of_file.map(|warning| format!("POLICY_FILE: {warning}")))
            .collect()
    }

    /// Reads a crate's index file as it is served. The name may have any spelling. `read` gets `None` if there is no such
    /// crate. Blocking.
    pub(crate) fn index_file(
        &self,
        name: &CrateName,
        mut read: impl FnMut(Option<&ServedFile<'_>>),
    ) -> Result<(), ReadError> {
        let found = self.source.index_file(name, |file_name, content| {
            read(Some(&self.served(file_name, content)));
        })?;
        if found.is_none() {
            read(None);
        }
        Ok(())
    }

    /// The decisions about the versions of a crate. The name may have any spelling. `None` if there is no such crate.
    /// Blocking.
    pub(crate) fn decisions(
        &self,
        name: &CrateName,
    ) -> Result<Option<Vec<DecidedVersion>>, ReadError> {
        self.source.index_file(name, |file_name, content| {
            decisions(&self.rules, &self.facts, file_name, content)
        })
    }

    /// Passes every index file to `visit` as it is served, one at a time, until `visit` breaks off. Blocking.
    pub(crate) fn for_each_file(
        &self,
        visit: impl FnMut(&CrateName, &ServedFile<'_>) -> ControlFlow<()> + Send,
    ) -> Result<(), ReadError> {
        // One thread is fast enough for what the visitors do. The source asks for `Fn`, hence the lock.
        let (threads, visit) = (NonZeroUsize::MIN, Mutex::new(visit));
        let visited = self.source.for_each_index_file(threads, |name, content| {
            let mut visit = visit.lock();
            match visit(name, &self.served(name.as_str(), content)) {
                ControlFlow::Continue(()) => Ok(()),
                // An end without an error.
                ControlFlow::Break(()) => Err(None),
            }
        });
        match visited {
            Ok(()) | Err(None) => Ok(()),
            Err(Some(error)) => Err(error),
        }
    }

    /// Counts what the policy holds, denies and keeps unyanked. Blocking.
    pub(crate) fn totals(&self) -> Result<Totals, ReadError> {
        let totals = Mutex::new(Totals::default());
        self.source
            .for_each_index_file(threads(), |name, content| {
                let mut counts = Counts::default();
                let (_file, state) = apply(
                    &self.rules,
                    &self.facts,
                    name.as_str(),
                    content,
                    &mut counts,
                );
                let mut totals = totals.lock();
                totals.add(name.as_str(), &state);
                Ok::<(), ReadError>(())
            })?;
        Ok(totals.into_inner())
    }

    /// Finds the crate files that only denied versions have, among the wanted ones. Each comes with such a version and the
    /// reason. Blocking.
    pub(crate) fn denied_files(
        &self,
        is_wanted: impl Fn(&Checksum) -> bool + Sync,
    ) -> Result<BTreeMap<Checksum, String>, ReadError> {
        let has_denials = self.facts.file.can_refuse() || self.facts.advisories.is_some();
        if self.rules.only_watch() || !has_denials {
            return Ok(BTreeMap::new());
        }
        let found = Mutex::new((BTreeMap::new(), HashSet::new()));
        self.source
            .for_each_index_file(threads(), |name, content| {
                for version in decisions(&self.rules, &self.facts, name.as_str(), content) {
                    let Some(checksum) = version.checksum.filter(&is_wanted) else {
                        continue;
                    };
                    let mut found = found.lock();
                    match denial(&version) {
                        Some(why) => {
                            let text = format!("{} {}: {why}", version.name, version.version);
                            found.0.insert(checksum, text);
                        }
                        None => {
                            found.1.insert(checksum);
                        }
                    }
                }
                Ok::<(), ReadError>(())
            })?;
        let (mut denied, served) = found.into_inner();
        denied.retain(|checksum, _why| !served.contains(checksum));
        Ok(denied)
    }

    fn served<'a>(&self, name: &str, content: &'a [u8]) -> ServedFile<'a> {
        if self.rules.only_watch() {
            return content.into();
        }
        let mut counts = Counts::default();
        let (shown, state) = apply(&self.rules, &self.facts, name, content, &mut counts);
        // Few files have denied versions, so few are read twice.
        let mut denied = match state.denied {
            0 => Vec::new(),
            _ => decisions(&self.rules, &self.facts, name, content),
        };
        denied.retain(|version| denial(version).is_some());
        ServedFile {
            content: match shown {
                ShownFile::Hidden => Cow::Borrowed(&[]),
                ShownFile::AsIs => Cow::Borrowed(content),
                ShownFile::Edited(content) => Cow::Owned(content),
            },
            denied,
        }
    }
}

impl<'a> From<&'a [u8]> for ServedFile<'a> {
    /// A file that is served as it is.
    fn from(content: &'a [u8]) -> Self {
        Self {
            content: Cow::Borrowed(content),
            denied: Vec::new(),
        }
    }
}

impl ServedFile<'_> {
    /// Whether the policy denies a version, or has changed or left out lines.
    pub(crate) fn is_affected(&self) -> bool {
        // A version that the upstream has yanked can be denied without a change of its line.
        matches!(self.content, Cow::Owned(_)) || !self.denied.is_empty()
    }

    /// Why the file of this version is refused; `None` if it is not denied.
    pub(crate) fn denial(&self, version: &CrateVersion) -> Option<String> {
        let mut denied = self.denied.iter();
        denial(denied.find(|denied| denied.version == version.as_str())?)
    }
}

/// Why a version is denied, in words.
fn denial(version: &DecidedVersion) -> Option<String> {
    let reason = version.reason.as_ref();
    let denies = |reason: &&Reason| reason.state() == PolicyState::Denied;
    Some(reason.filter(denies)?.words(version.published.as_ref()))
}

/// Reads the advisories, or says why there are none.
fn advisories(settings: &ServedIndexSettings) -> Result<Option<Advisories>, String> {
    let Some(url) = &settings.advisory_db else {
        return Ok(None);
    };
    let advisories = read_copy_on_disk(&settings.data_dir, url, settings.network)?;
    let missing = || "there is no copy of the advisory database in DATA_DIR".to_owned();
    advisories.map(Some).ok_or_else(missing)
}

fn threads() -> NonZeroUsize {
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    threads.min(NonZeroUsize::new(THREADS_MAX).unwrap_or(NonZeroUsize::MIN))
}
