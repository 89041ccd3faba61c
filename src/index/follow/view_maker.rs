//! Makes the views of clones: looks up the facts, and makes the tree that the rules show of a source from the last one.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::error::RefreshError;
use super::last_stored;
use super::policy_facts::PolicyLookup;
use super::policy_time::PolicyTime;
use super::settings::FollowerSettings;
use super::stored_files::{IndexFilesOf, Stopping, StoredFiles};
use super::tree_record::{StatesOnDisk, TreeRecord, has_states, read_states, write_states};
use super::yank_watch::{Before, YankWatch};
use crate::clock::Clock;
use crate::index::handle::IndexHandle;
use crate::index::ids::ObjectId;
use crate::index::source::directory::Directory;
use crate::index::source::fetch::FetchError;
use crate::index::source::repository::Repository;
use crate::index::source::snapshot::Source;
use crate::index::source::visit_files::entries_of;
use crate::index::status::Phase;
use crate::index::view::View;
use crate::index::view::build::{Built, Earlier, ListedFiles, build};
use crate::index::view::policy::ViewPolicy;
use crate::memory::return_freed_blocks;
use crate::observability::LastFailure;
use crate::package::Checksum;
use crate::policy::{Facts, Rules, States};

/// The largest change of the stored files for which their index files are looked up: about a second. After a larger one
/// all index files are read.
const CHANGED_MAX: usize = 20_000;

/// Reading this many index files leaves memory that is worth returning to the system. That takes milliseconds, and more
/// when the memory is used again.
const MANY_FILES: usize = 1_000;

/// Makes the views of the clones that it is given.
#[derive(Debug)]
pub(crate) struct ViewMaker {
    handle: IndexHandle,
    rules: Rules,
    pub(super) stored_files: Option<StoredFiles>,
    index_files_of: Option<IndexFilesOf>,
    policy_lookup: Option<PolicyLookup>,
    yanks: YankWatch,
    policy_time: PolicyTime,
    /// What the last tree was made with, in memory.
    last: Option<LastFacts>,
    clock: Clock,
    /// Facts that were looked up in advance, before the data directory was locked.
    facts: Option<Result<Facts, RefreshError>>,
    /// What the log has told of look-ups that failed.
    pub(super) facts_told: LastFailure,
    /// The number of index files that were read for the last tree.
    #[cfg(test)]
    pub(crate) files_read: usize,
}

/// The facts that a tree through rules was made with, and its findings.
#[derive(Debug)]
struct LastFacts {
    fingerprint: String,
    facts: Facts,
    states: Arc<States>,
    /// The same on disk.
    on_disk: StatesOnDisk,
}

/// What the rules show of a source: a tree, and what it was decided from.
type Shown = (ObjectId, ViewPolicy);

impl ViewMaker {
    /// One without a view. It looks up nothing yet.
    pub(super) fn new(settings: &FollowerSettings, handle: IndexHandle) -> Self {
        Self {
            handle,
            rules: settings.rules.clone(),
            stored_files: settings.stored_files.clone(),
            index_files_of: settings.index_files_of.clone(),
            policy_lookup: settings.policy_lookup.clone(),
            yanks: YankWatch::new(
                settings.data_dir.clone(),
                settings
                    .rules
                    .policy()
                    .map_or(0, |policy| policy.yank_guard.seconds),
            ),
            policy_time: PolicyTime::default(),
            last: None,
            clock: settings.clock.clone(),
            facts: None,
            facts_told: LastFailure::default(),
            #[cfg(test)]
            files_read: 0,
        }
    }

    /// Whether there are rules, so views may change while the clone does not.
    pub(super) fn has_rules(&self) -> bool {
        !self.rules.are_empty()
    }

    /// Looks up the facts for the next view. That takes a while with a large store.
    pub(super) fn look_up_facts_in_advance(&mut self) {
        self.facts = Some(self.look_up_facts());
    }

    /// Drops facts that were not used.
    pub(super) fn forget_facts(&mut self) {
        self.facts = None;
    }

    /// Makes the view of a clone. `began` is when its last fetch began, if there was one since the last view: policy time. After
    /// a failure policy time is what it was, because the mirror shows something older.
    pub(super) fn view_of_fetch(
        &mut self,
        repository: &Arc<Repository>,
        began: Option<SystemTime>,
    ) -> Result<View, RefreshError> {
        let before = self.policy_time;
        self.policy_time.note_fetch(began);
        self.view(repository)
            .inspect_err(|_failed| self.policy_time = before)
    }

    /// Makes the view of a clone. It has no git index yet.
    fn view(&mut self, repository: &Arc<Repository>) -> Result<View, RefreshError> {
        let previous = self.handle.view();
        let previous = previous.as_deref();
        let stop = self.handle.stopping();
        let source = Source::read(repository, previous.map(|view| &**view.source()), stop)?;
        let source = Arc::new(source);
        if self.rules.are_empty() {
            let policy_time = self.policy_time.of(&source, &self.clock);
            return Ok(View::without_rules(source, policy_time));
        }
        let (mut tree, mut policy) = self.tree_through_rules(&source, previous)?;
        // Without an earlier view most directories are those of the source.
        let known = previous.map_or_else(|| source.root(), View::root);
        let read = |tree| source.read_tree(tree, Some(known), self.handle.stopping());
        let root = match read(tree) {
            // A record that leads nowhere, or to something else, is no reason to do without the clone.
            Err(error) if error.may_be_damage() && !error.is_the_systems() => {
                tracing::warn!(error = %error, "the shown index cannot be read and is made again");
                TreeRecord::remove(repository.path());
                self.last = None;
                (tree, policy) = self.tree_through_rules(&source, previous)?;
                source.read_tree(tree, Some(known), self.handle.stopping())?
            }
            root => root?,
        };
        // Of the facts: if there are no new ones, the decisions are those of an earlier time.
        let policy_time = match (self.rules.policy(), &policy.facts) {
            (Some(_policy), Some(facts)) => facts.policy_time,
            _ => self.policy_time.of(&source, &self.clock),
        };
        Ok(View::through(source, policy, root, policy_time))
    }

    /// Makes the tree that the rules show of a source. Starts from the last tree if it is known what has changed since.
    fn tree_through_rules(
        &mut self,
        source: &Arc<Source>,
        previous: Option<&View>,
    ) -> Result<Shown, RefreshError> {
        #[cfg(test)]
        {
            self.files_read = 0;
        }
        let repository = source.repository();
        let last = TreeRecord::find(repository);
        let last = last.filter(|last| last.rules == self.rules.names());
        self.watch_yanks(source, previous, last.as_ref())?;
        if let Some(last) = &last {
            self.policy_time.note_last_view(last.policy_time);
        }
        let facts = self.facts.take().unwrap_or_else(|| self.look_up_facts());
        let of_this_source = last
            .as_ref()
            .filter(|last| last.source == source.root().tree);
        let mut facts = match (facts, of_this_source, &self.last) {
            (Ok(facts), _, _) => facts,
            // Without facts the last tree of this source is still better than no view.
            (Err(_), Some(last), Some(known)) if known.fingerprint == last.fingerprint => {
                let (facts, states) = (known.facts.clone(), Arc::clone(&known.states));
                return Ok(self.shown(last.shown, facts, states));
            }
            (Err(_), Some(last), _) if self.rules.policy().is_none() => {
                return Ok(self.shown(last.shown, Facts::default(), Arc::default()));
            }
            (Err(error), _, _) => return Err(error),
        };
        facts.policy_time = self.policy_time.of(source, &self.clock);
        facts.yanks = Arc::clone(self.yanks.seen());
        let fingerprint = self.rules.fingerprint(&facts);
        // Without what the policy has found before, everything is looked at again.
        let last = last.and_then(|last| {
            let states = self.states_of(repository.path(), &last)?;
            let went_back = facts.policy_time < last.policy_time && self.rules.policy().is_some();
            (!went_back).then_some((last, states))
        });
        let same_facts = last
            .as_ref()
            .is_some_and(|(last, _)| last.fingerprint == fingerprint);
        if let Some((last, states)) = &last
            && same_facts
            && last.source == source.root().tree
            && states.due(facts.policy_time).next().is_none()
        {
            // Same source, same rules, same facts: the tree exists already. The facts may have been large.
            let on_disk = self.on_disk(&last.states);
            let on_disk = on_disk.unwrap_or_else(|| StatesOnDisk::of_record(last));
            self.remember(fingerprint, &facts, states, on_disk);
            return_freed_blocks();
            return Ok(self.shown(last.shown, facts, Arc::clone(states)));
        }
        if !repository.is_writable() {
            return Err(RefreshError::NowhereToBuild);
        }
        let before = last
            .as_ref()
            .and_then(|(last, _)| self.on_disk(&last.states));
        // Without an earlier state all files are read, which is always correct.
        let earlier = last.and_then(|(last, states)| {
            let affected = self.affected(source, &last, &states, &facts, same_facts)?;
            self.earlier(source, &last, states, affected, previous)
        });
        let progress = self.handle.begin(Phase::Pruning);
        let built = build(source, earlier.as_ref(), (&self.rules, &facts), &progress)?;
        // Before the record: its fingerprint then says that both belong together.
        if !same_facts && self.index_files_of.is_some() && self.rules.need_stored_files() {
            let written = last_stored::write(repository.path(), &facts.stored);
            if let Err(error) = written {
                tracing::debug!(error = %error, "the stored files of the shown index could not be written to DATA_DIR");
            }
        }
        drop(earlier);
        // After a restart all directories were read, too.
        if built.files_read > MANY_FILES || previous.is_none() {
            repository.close_idle_handles();
            return_freed_blocks();
        }
        #[cfg(test)]
        {
            self.files_read = built.files_read;
        }
        tracing::debug!(
            index.files_read = built.files_read,
            index.not_stored = built.counts.not_stored,
            index.yanked = built.counts.yanked,
            index.left_out = built.counts.left_out,
            "the rules were applied to the files that have changed"
        );
        let on_disk = self.write_states(repository.path(), &built, before);
        TreeRecord {
            source: source.root().tree,
            fingerprint: fingerprint.clone(),
            shown: built.tree,
            rules: self.rules.names(),
            policy_time: facts.policy_time,
            states: on_disk.id.clone(),
        }
        .write(repository.path());
        self.remember(fingerprint, &facts, &built.states, on_disk);
        Ok(self.shown(built.tree, facts, built.states))
    }

    fn shown(&self, tree: ObjectId, facts: Facts, states: Arc<States>) -> Shown {
        let policy = ViewPolicy::new(self.rules.clone(), Some(facts), states, tree);
        (tree, policy)
    }

    /// Notes the yanks between the last source and this one.
    fn watch_yanks(
        &mut self,
        source: &Source,
        previous: Option<&View>,
        last: Option<&TreeRecord>,
    ) -> Result<(), RefreshError> {
        if self.rules.policy().is_none() {
            return Ok(());
        }
        self.yanks.load();
        let stop = self.handle.stopping();
        // After a restart the last source is in the clone.
        let recorded = match (previous, last) {
            (None, Some(last)) => source
                .read_tree(last.source, Some(source.root()), stop)
                .ok(),
            _ => None,
        };
        let before = match (previous, &recorded) {
            (Some(view), _) => Before {
                root: view.source().root(),
                repository: view.source().repository(),
            },
            (None, Some(root)) => Before {
                root,
                repository: source.repository(),
            },
            (None, None) => return Ok(()),
        };
        let at = self.policy_time.of(source, &self.clock);
        let may_write = source.repository().has_data_dir();
        let changes = self.yanks.follow(&before, source, at, (may_write, stop))?;
        self.handle.checksum_changes().inc_by(changes);
        Ok(())
    }

    /// What the policy had found for the last tree; `None` if that is not known any more.
    fn states_of(&self, clone: &Path, last: &TreeRecord) -> Option<Arc<States>> {
        if self.rules.policy().is_none() {
            return Some(Arc::default());
        }
        let known = self
            .last
            .as_ref()
            .filter(|known| known.on_disk.id == last.states);
        if let Some(known) = known {
            return Some(Arc::clone(&known.states));
        }
        read_states(clone, &last.states).map(Arc::new)
    }

    /// What is on disk of the states with this id, if this run of the mirror has written or read them.
    fn on_disk(&self, id: &str) -> Option<StatesOnDisk> {
        let known = self.last.as_ref().map(|known| &known.on_disk);
        known.filter(|on_disk| on_disk.id == id).cloned()
    }

    /// Writes what the policy has found, if it is something new. `before` is what is on disk of the states that the tree was
    /// made from.
    fn write_states(
        &self,
        clone: &Path,
        built: &Built,
        before: Option<StatesOnDisk>,
    ) -> StatesOnDisk {
        if self.rules.policy().is_none() {
            return StatesOnDisk::none();
        }
        match (before, &built.changed_states) {
            (Some(before), Some(changed))
                if changed.is_empty() && before.are_on_disk && has_states(clone) =>
            {
                before
            }
            (Some(before), Some(changed)) => {
                write_states(clone, &built.states, Some((&before, changed)))
            }
            (None, _) | (_, None) => write_states(clone, &built.states, None),
        }
    }

    /// Keeps what the last tree was made with. Without a policy nobody asks for it.
    fn remember(
        &mut self,
        fingerprint: String,
        facts: &Facts,
        states: &Arc<States>,
        on_disk: StatesOnDisk,
    ) {
        self.last = self.rules.policy().map(|_policy| LastFacts {
            fingerprint,
            facts: facts.clone(),
            states: Arc::clone(states),
            on_disk,
        });
    }

    /// Finds the index files about which the rules may decide differently than for the last tree. `None` if that is not
    /// known.
    fn affected(
        &self,
        source: &Arc<Source>,
        last: &TreeRecord,
        states: &States,
        facts: &Facts,
        same_facts: bool,
    ) -> Option<Vec<ListedFiles>> {
        let mut affected = Vec::new();
        let mut names: BTreeSet<String> =
            states.due(facts.policy_time).map(str::to_owned).collect();
        if !same_facts {
            let known = self
                .last
                .as_ref()
                .filter(|known| known.fingerprint == last.fingerprint);
            match known {
                Some(known) => {
                    let differing = known.facts.may_differ(facts);
                    if !differing.is_empty() {
                        let all = entries_of(source.root());
                        let named = all
                            .into_iter()
                            .filter(|entry| differing.contains(entry.name));
                        names.extend(named.map(|entry| entry.name.to_owned()));
                    }
                    if known.facts.stored != facts.stored {
                        affected.push(
                            self.affected_by_stored_files(&known.facts.stored, &facts.stored)?,
                        );
                    }
                }
                None if self.rules.policy().is_some() => return None,
                None => {
                    let before = Arc::new(last_stored::read(source.repository().path())?);
                    let facts_before = Facts {
                        stored: Arc::clone(&before),
                        ..facts.clone()
                    };
                    // If the set is that of the last tree, and nothing but the set has changed, it explains the last
                    // fingerprint.
                    if self.rules.fingerprint(&facts_before) != last.fingerprint {
                        return None;
                    }
                    affected.push(self.affected_by_stored_files(&before, &facts.stored)?);
                }
            }
        }
        if !names.is_empty() {
            affected.push(ListedFiles {
                source: Arc::clone(source),
                names,
            });
        }
        Some(affected)
    }

    /// Finds the index files that list crate files that were stored or removed. `None` if they are too many, or not known.
    fn affected_by_stored_files(
        &self,
        before: &HashSet<Checksum>,
        after: &HashSet<Checksum>,
    ) -> Option<ListedFiles> {
        let lookup = self.index_files_of.as_ref()?;
        let changed = after.symmetric_difference(before);
        let changed: Vec<_> = changed.take(CHANGED_MAX + 1).copied().collect();
        if changed.len() > CHANGED_MAX {
            return None;
        }
        let found = lookup.ask(&changed);
        found
            .inspect_err(|error| {
                tracing::debug!(error = %error, "all index files are read, because those of the changed files are not known");
            })
            .ok()
    }

    /// Reads the last state with the same rules, if all of it can be read.
    fn earlier(
        &self,
        source: &Source,
        last: &TreeRecord,
        states: Arc<States>,
        affected: Vec<ListedFiles>,
        previous: Option<&View>,
    ) -> Option<Earlier> {
        let read = |tree, known: Option<&Arc<Directory>>| {
            source.read_tree(tree, known, self.handle.stopping()).ok()
        };
        Some(Earlier {
            source: read(last.source, previous.map(|view| view.source().root()))?,
            shown: read(last.shown, previous.map(View::root))?,
            states,
            affected,
        })
    }

    /// Looks up the facts that the rules need.
    fn look_up_facts(&mut self) -> Result<Facts, RefreshError> {
        let lookup = self.stored_files.as_ref();
        let found = match lookup.filter(|_| self.rules.need_stored_files()) {
            Some(lookup) => lookup.ask(),
            None => Ok(HashSet::new()),
        };
        if found.as_ref().is_err_and(|error| error.is::<Stopping>()) {
            return Err(FetchError::Stopped.into());
        }
        let stored = match found {
            Ok(stored) => stored,
            Err(error) => {
                let error = error.to_string();
                if self.facts_told.note_failure(&error) {
                    tracing::warn!(
                        error,
                        "the stored crate files are unknown; the index shows those that were stored before"
                    );
                }
                return Err(RefreshError::StoredFiles(error));
            }
        };
        if self.facts_told.note_success() {
            tracing::info!("the stored crate files are known again");
        }
        let policy = self.policy_lookup.as_ref().map(PolicyLookup::ask);
        let policy = policy.unwrap_or_default();
        self.handle.note_policy_file(policy.file_error);
        Ok(Facts {
            stored: Arc::new(stored),
            file: policy.file,
            advisories: policy.advisories,
            // The rest is known when the source is known.
            ..Facts::default()
        })
    }
}
