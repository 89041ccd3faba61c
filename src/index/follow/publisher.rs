//! The publisher of views: makes the view of a clone, with its git index, and swaps the pointer that requests read.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::error::RefreshError;
use super::last_stored;
use super::policy_facts::{PolicyFacts, PolicyLookup};
use super::policy_time::PolicyTime;
use super::settings::{FollowerSettings, GitIndexSettings};
use super::stored_files::{IndexFilesOf, Stopping, StoredFiles};
use super::yank_watch::{Before, YankWatch};
use crate::clock::Clock;
use crate::index::git::damage_check::{Damage, DamageChecks};
use crate::index::git::overlay::{self, ShownTree};
use crate::index::git::upload_pack::GitIndex;
use crate::index::handle::IndexHandle;
use crate::index::ids::ObjectId;
use crate::index::retry::Repairs;
use crate::index::source::clone_dir::write_atomically;
use crate::index::source::directory::Directory;
use crate::index::source::fetch::FetchError;
use crate::index::source::repository::Repository;
use crate::index::source::snapshot::Source;
use crate::index::source::visit_files::entries_of;
use crate::index::status::Phase;
use crate::index::view::View;
use crate::index::view::build::{Earlier, ListedFiles, build};
use crate::index::view::large_files::LargeFiles;
use crate::index::view::policy::ViewPolicy;
use crate::memory::return_freed_blocks;
use crate::observability::LastFailure;
use crate::package::Checksum;
use crate::policy::{Facts, Rule, Rules, States};

/// The file in a clone that records its last tree through rules. Its name and its keys are those of older versions.
const RECORD: &str = "pruned.json";

/// The largest change of the stored files for which their index files are looked up: about a second. After a larger one
/// all index files are read.
const CHANGED_MAX: usize = 20_000;

/// The file in a clone with what the policy has found in the index files of the last tree.
const STATES: &str = "policy-states.json";

/// The owner of the pointer that requests read.
#[derive(Debug)]
pub(crate) struct Publisher {
    handle: IndexHandle,
    rules: Rules,
    pub(super) stored_files: Option<StoredFiles>,
    index_files_of: Option<IndexFilesOf>,
    policy_lookup: Option<PolicyLookup>,
    yanks: YankWatch,
    policy_time: PolicyTime,
    /// What the last tree was made with, in memory.
    last: Option<LastFacts>,
    git_index: Option<GitIndexSettings>,
    /// The states of the git index that requests may still read.
    git_indexes: Vec<Weak<GitIndex>>,
    /// What the log has told of a git index that could not be made.
    git_index_told: LastFailure,
    clock: Clock,
    /// Facts that were looked up in advance, before the data directory was locked.
    facts: Option<Result<Facts, RefreshError>>,
    /// Whether the last look-up of facts succeeded. So the log reports each change once.
    pub(super) facts_are_known: bool,
    large_files: LargeFiles,
    /// The damage checks of the git index. Clients can trigger them.
    damage_checks: DamageChecks,
    /// The repairs of the git index. The clone has separate pauses.
    repairs: Repairs,
    /// The number of index files that were read for the last tree.
    #[cfg(test)]
    pub(crate) files_read: usize,
}

/// The facts that a tree through rules was made with, and its findings.
#[derive(Debug)]
struct LastFacts {
    fingerprint: String,
    facts: Facts,
    states_id: String,
    states: Arc<States>,
}

/// What the rules show of a source.
struct Shown {
    tree: ObjectId,
    facts: Facts,
    states: Arc<States>,
}

/// The content of the file with the states.
#[derive(Deserialize, Serialize)]
struct StatesFile<S> {
    id: String,
    states: S,
}

/// The input of a tree through rules, and its id.
#[derive(Debug, Deserialize, Serialize)]
struct TreeRecord {
    /// The upstream's tree.
    source: String,
    /// The fingerprint of the rules.
    #[serde(rename = "held")]
    fingerprint: String,
    /// The resulting tree.
    #[serde(rename = "pruned")]
    shown: String,
    /// The rules without their facts. Earlier versions had one rule, and did not write it.
    #[serde(default = "stored_only")]
    rules: String,
    /// Policy time, in seconds since 1970.
    #[serde(default)]
    policy_time: i64,
    /// The id of the file with the states; empty without a policy.
    #[serde(default)]
    states: String,
}

fn stored_only() -> String {
    Rules::new(vec![Rule::StoredOnly]).names()
}

impl Publisher {
    /// Makes a publisher. It looks up and publishes nothing yet.
    pub(crate) fn new(settings: &FollowerSettings, handle: IndexHandle) -> Self {
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
                    .map_or(0, |policy| policy.yank_guard.seconds()),
            ),
            policy_time: PolicyTime::default(),
            last: None,
            git_index: settings.git_index.clone(),
            git_indexes: Vec::new(),
            clock: settings.clock.clone(),
            facts: None,
            facts_are_known: true,
            large_files: LargeFiles::default(),
            git_index_told: LastFailure::default(),
            damage_checks: DamageChecks::default(),
            repairs: Repairs::default(),
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

    /// Notes the time of the last successful fetch, before the view of what it has fetched is made. Policy time is this
    /// time in whole minutes.
    pub(crate) fn note_fetch(&mut self, at: Option<SystemTime>) {
        self.policy_time.note_fetch(at);
    }

    /// Drops facts that were not used.
    pub(super) fn forget_facts(&mut self) {
        self.facts = None;
    }

    /// Makes the view of a clone. It has no git index yet.
    pub(crate) fn view(&mut self, repository: &Arc<Repository>) -> Result<View, RefreshError> {
        let previous = self.handle.view();
        let previous = previous.as_deref();
        let stop = self.handle.stopping();
        let source = Source::read(repository, previous.map(|view| &**view.source()), stop)?;
        let source = Arc::new(source);
        if self.rules.are_empty() {
            return Ok(View::without_rules(source));
        }
        let mut shown = self.tree_through_rules(&source, previous)?;
        // Without an earlier view most directories are those of the source.
        let known = previous.map_or_else(|| source.root(), View::root);
        let read = |tree| source.read_tree(tree, Some(known), self.handle.stopping());
        let root = match read(shown.tree) {
            // A record that leads nowhere, or to something else, is no reason to do without the clone.
            Err(error) if error.may_be_damage() && !error.is_the_systems() => {
                tracing::warn!(error = %error, "the shown index cannot be read and is made again");
                TreeRecord::remove(repository.path());
                self.last = None;
                shown = self.tree_through_rules(&source, previous)?;
                source.read_tree(shown.tree, Some(known), self.handle.stopping())?
            }
            root => root?,
        };
        let Shown {
            tree,
            facts,
            states,
        } = shown;
        let policy = ViewPolicy::new(self.rules.clone(), Some(facts), states, tree);
        Ok(View::through(source, policy, root))
    }

    /// Publishes the view of a clone, if it differs from the current one.
    pub(crate) fn show(&mut self, repository: &Arc<Repository>) -> Result<(), RefreshError> {
        let view = self.view(repository);
        // The handles have read the whole index. Closing them frees that memory.
        repository.close_idle_handles();
        let previous = self.handle.view();
        match (view, previous) {
            (Ok(view), Some(previous)) if previous.shows_the_same_as(&view) => {
                self.bring_git_index_up_to_date(&previous);
            }
            (Ok(view), _) => self.publish(view, "the index has changed"),
            // The current view stays: most files that were stored a moment ago still are. `look_up_facts` has logged
            // this.
            (Err(RefreshError::StoredFiles(_)), Some(_previous)) => {}
            (Err(error), _) => return Err(error),
        }
        Ok(())
    }

    /// Publishes a view with its git index.
    pub(crate) fn publish(&mut self, view: View, message: &str) {
        tracing::info!(index.commit = %view.commit(), index.crates = view.crate_count(), "{message}");
        // First the git index, then the pointer: a request never sees a view whose git index shows an older state.
        let git_index = self.git_index_of(&view);
        let view = Arc::new(view.with_git_index(git_index));
        let previous = self.handle.view();
        self.handle.publish(Arc::clone(&view));
        // After the publication: reading the sizes of a whole new index can take seconds.
        let followed = self.large_files.follow(
            (view.source().repository(), view.source().root()),
            previous
                .as_deref()
                .map(|previous| &**previous.source().root()),
            self.handle.stopping(),
        );
        if let Err(error) = followed {
            tracing::debug!(error = %error, "the sizes of index files could not be read");
        }
        self.handle.warn(self.large_files.warnings());
    }

    /// The time until the next damage check of the git index is allowed.
    pub(super) fn wait_for_damage_check(&self) -> Duration {
        self.damage_checks.wait(Instant::now())
    }

    /// Checks the git index, and makes it again if it is damaged. Reports a damaged clone to the owner of the clones,
    /// which checks it again.
    pub(super) fn check_git_index(&mut self) {
        let Some(view) = self.handle.view() else {
            return;
        };
        let repository = view.source().repository();
        if self.git_index.is_none() || !repository.is_writable() {
            return;
        }
        let tip = view.git_index().map(|git_index| git_index.tip());
        let found = self
            .damage_checks
            .check(repository, tip, self.handle.stopping());
        match found {
            Ok(Some(Damage::GitIndex(why))) => self.repair_git_index(&view, &why),
            Ok(Some(Damage::Clone(object))) => {
                repository.note_unreadable(object);
                repository.suspect();
                self.handle.report_damage();
            }
            // There is no git index, perhaps because making it failed. Now nothing is damaged, so try again.
            Ok(None) if tip.is_none() => self.bring_git_index_up_to_date(&view),
            Ok(None) => {}
            // No result: the operating system refused, or the mirror is stopping.
            Err(error) => {
                tracing::debug!(error = %error, "the git index could not be checked");
                self.ask_again_without_git_index();
            }
        }
    }

    fn repair_git_index(&mut self, view: &View, why: &str) {
        let now = Instant::now();
        if !self.repairs.allowed(now) {
            self.ask_again_without_git_index();
            return;
        }
        self.repairs.note(now);
        tracing::warn!(error = why, "the git index is damaged; it is made again");
        if let Err(error) = overlay::remove(view.source().repository().path()) {
            tracing::warn!(error = %error, "the damaged git index could not be removed");
        }
        self.bring_git_index_up_to_date(view);
    }

    /// Requests another check while there is no git index: no client can run into the damage, and report it.
    fn ask_again_without_git_index(&self) {
        let view = self.handle.view();
        if view.is_some_and(|view| view.git_index().is_none()) {
            self.handle.request_damage_check();
        }
    }

    /// Brings the git index of the published view up to date, and publishes the view again if the git index has
    /// changed.
    fn bring_git_index_up_to_date(&mut self, view: &View) {
        let tip = |index: Option<&Arc<GitIndex>>| index.map(|index| index.tip());
        let git_index = self.git_index_of(view);
        if tip(git_index.as_ref()) != tip(view.git_index()) {
            let view = view.without_git_index().with_git_index(git_index);
            self.handle.publish(Arc::new(view));
        }
    }

    /// Makes the git index of a view. After a failure the view has none: git clients must not see another index than
    /// other clients, so they get 503.
    fn git_index_of(&mut self, view: &View) -> Option<Arc<GitIndex>> {
        let settings = self.git_index.as_ref()?;
        let repository = view.source().repository();
        if !repository.is_writable() {
            // `open_read_only` has logged this.
            return None;
        }
        let shown = ShownTree {
            commit: view.commit(),
            tree: view.root().tree(),
        };
        self.git_indexes.retain(|index| index.strong_count() > 0);
        let in_use = self.git_indexes.iter().filter_map(Weak::upgrade);
        let in_use = in_use.map(|index| index.tip()).collect();
        let made = overlay::bring_up_to_date(repository.path(), shown, &settings.config, &in_use);
        if let Some(error) = self.git_index_told.news_of(&made) {
            tracing::warn!(
                error,
                "the git index could not be brought up to date; git clients get 503 until it can"
            );
        }
        match made {
            Ok(tip) => {
                let index = Arc::new(GitIndex::new(
                    view.commit(),
                    tip,
                    Arc::clone(repository),
                    settings.program.clone(),
                ));
                self.git_indexes.push(Arc::downgrade(&index));
                Some(index)
            }
            Err(_logged) => {
                // The git index may be damaged.
                self.handle.request_damage_check();
                None
            }
        }
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
        let last = TreeRecord::read(repository.path()).and_then(|last| last.find(repository));
        let last = last.filter(|last| last.rules == self.rules.names());
        self.watch_yanks(source, previous, last.as_ref())?;
        if let Some(last) = &last {
            self.policy_time.note_last_view(last.policy_time);
        }
        let facts = self.facts.take().unwrap_or_else(|| self.look_up_facts());
        let of_this_source = last
            .as_ref()
            .filter(|last| last.source == source.root().tree());
        let mut facts = match (facts, of_this_source, &self.last) {
            (Ok(facts), _, _) => facts,
            // Without facts the last tree of this source is still better than no view.
            (Err(_), Some(last), Some(known)) if known.fingerprint == last.fingerprint => {
                return Ok(Shown {
                    tree: last.shown,
                    facts: known.facts.clone(),
                    states: Arc::clone(&known.states),
                });
            }
            (Err(_), Some(last), _) if self.rules.policy().is_none() => {
                return Ok(Shown {
                    tree: last.shown,
                    facts: self.facts_of(Arc::default(), PolicyFacts::default()),
                    states: Arc::default(),
                });
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
            && last.source == source.root().tree()
            && states.due(facts.policy_time).next().is_none()
        {
            // Same source, same rules, same facts: the tree exists already.
            let (tree, states, states_id) = (last.shown, Arc::clone(states), last.states.clone());
            self.remember(fingerprint, &facts, &states, states_id);
            return_freed_blocks();
            return Ok(Shown {
                tree,
                facts,
                states,
            });
        }
        if !repository.is_writable() {
            return Err(RefreshError::NowhereToBuild);
        }
        // Without an earlier state all files are read, which is always correct.
        let earlier = last.and_then(|(last, states)| {
            let affected = self.affected(source, &last, &states, &facts, same_facts)?;
            self.earlier(source, &last, states, affected, previous)
        });
        let progress = self.handle.begin(Phase::Pruning);
        let built = build(source, earlier.as_ref(), (&self.rules, &facts), &progress)?;
        repository.close_idle_handles();
        // Before the record: its fingerprint then says that both belong together.
        if !same_facts && self.index_files_of.is_some() && self.rules.need_stored_files() {
            let written = last_stored::write(repository.path(), &facts.stored);
            if let Err(error) = written {
                tracing::debug!(error = %error, "the stored files of the shown index could not be written to DATA_DIR");
            }
        }
        drop(earlier);
        return_freed_blocks();
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
        let states_id = self.write_states(repository.path(), &built.states);
        TreeRecord {
            source: source.root().tree().to_string(),
            fingerprint: fingerprint.clone(),
            shown: built.tree.to_string(),
            rules: self.rules.names(),
            policy_time: facts.policy_time,
            states: states_id.clone(),
        }
        .write(repository.path());
        self.remember(fingerprint, &facts, &built.states, states_id);
        Ok(Shown {
            tree: built.tree,
            facts,
            states: built.states,
        })
    }

    /// Notes the yanks between the last source and this one.
    fn watch_yanks(
        &mut self,
        source: &Source,
        previous: Option<&View>,
        last: Option<&LastTree>,
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
    fn states_of(&self, clone: &Path, last: &LastTree) -> Option<Arc<States>> {
        if self.rules.policy().is_none() {
            return Some(Arc::default());
        }
        let known = self
            .last
            .as_ref()
            .filter(|known| known.states_id == last.states);
        if let Some(known) = known {
            return Some(Arc::clone(&known.states));
        }
        let text = std::fs::read(clone.join(STATES)).ok()?;
        let file: StatesFile<States> = serde_json::from_slice(&text).ok()?;
        (file.id == last.states).then(|| Arc::new(file.states))
    }

    /// Writes what the policy has found, if it is something new, and returns the id of the file.
    fn write_states(&self, clone: &Path, states: &Arc<States>) -> String {
        if self.rules.policy().is_none() {
            return String::new();
        }
        let known = self
            .last
            .as_ref()
            .filter(|known| Arc::ptr_eq(&known.states, states));
        if let Some(known) = known.filter(|_| clone.join(STATES).exists()) {
            return known.states_id.clone();
        }
        // A file by another id is no use to the record, so both are never mixed up.
        let id = format!("{:016x}", fastrand::u64(..));
        let file = StatesFile {
            id: id.clone(),
            states: &**states,
        };
        let written = serde_json::to_vec(&file)
            .map_err(Into::into)
            .and_then(|text| write_atomically(clone, STATES, &text));
        if let Err(error) = written {
            tracing::warn!(error = %error, "the decisions of the policy could not be written to DATA_DIR; a restart makes them again");
        }
        id
    }

    /// Keeps what the last tree was made with. Without a policy nobody asks for it.
    fn remember(
        &mut self,
        fingerprint: String,
        facts: &Facts,
        states: &Arc<States>,
        states_id: String,
    ) {
        self.last = self.rules.policy().map(|_policy| LastFacts {
            fingerprint,
            facts: facts.clone(),
            states_id,
            states: Arc::clone(states),
        });
    }

    /// Finds the index files about which the rules may decide differently than for the last tree. `None` if that is not
    /// known.
    fn affected(
        &self,
        source: &Arc<Source>,
        last: &LastTree,
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
                            .filter(|entry| differing.contains(entry.name()));
                        names.extend(named.map(|entry| entry.name().to_owned()));
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
        last: &LastTree,
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

    /// Looks up the facts that the rules need. Logs the first failure, and the first success after it.
    fn look_up_facts(&mut self) -> Result<Facts, RefreshError> {
        let lookup = self.stored_files.as_ref();
        let found = match lookup.filter(|_| self.rules.need_stored_files()) {
            Some(lookup) => lookup.ask(),
            None => Ok(HashSet::new()),
        };
        if found.as_ref().is_err_and(|error| error.is::<Stopping>()) {
            return Err(FetchError::Stopped.into());
        }
        let were_known = std::mem::replace(&mut self.facts_are_known, found.is_ok());
        match (&found, were_known) {
            (Err(error), true) => tracing::warn!(
                error = %error,
                "the stored crate files are unknown; the index shows those that were stored before"
            ),
            (Ok(_), false) => {
                tracing::info!("the stored crate files are known again");
            }
            _ => {}
        }
        let stored = found.map_err(|error| RefreshError::StoredFiles(error.to_string()))?;
        let policy = self.policy_lookup.as_ref().map(PolicyLookup::ask);
        let policy = policy.unwrap_or_default();
        self.handle.note_policy_file(policy.file_error.clone());
        Ok(self.facts_of(Arc::new(stored), policy))
    }

    /// These facts, without what is known only when the source is known.
    fn facts_of(&self, stored: Arc<HashSet<Checksum>>, policy: PolicyFacts) -> Facts {
        Facts {
            stored,
            policy_time: 0,
            file: policy.file,
            advisories: policy.advisories,
            yanks: Arc::clone(self.yanks.seen()),
        }
    }
}

/// The policy time of the last view of this clone, if one was recorded.
pub(super) fn recorded_policy_time(clone: &Path) -> Option<i64> {
    TreeRecord::read(clone).map(|record| record.policy_time)
}

/// The last tree through rules of a clone. The clone has both trees.
struct LastTree {
    source: ObjectId,
    fingerprint: String,
    shown: ObjectId,
    rules: String,
    policy_time: i64,
    states: String,
}

impl TreeRecord {
    fn read(clone: &Path) -> Option<Self> {
        let text = std::fs::read(clone.join(RECORD)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn find(self, repository: &Repository) -> Option<LastTree> {
        Some(LastTree {
            source: repository.find_tree(&self.source)?,
            shown: repository.find_tree(&self.shown)?,
            fingerprint: self.fingerprint,
            rules: self.rules,
            policy_time: self.policy_time,
            states: self.states,
        })
    }

    fn remove(clone: &Path) {
        if let Err(error) = std::fs::remove_file(clone.join(RECORD)) {
            tracing::debug!(error = %error, "the record of the shown index could not be removed");
        }
    }

    /// Writes the record. A failure only means that the tree is made again.
    fn write(&self, clone: &Path) {
        let written = serde_json::to_vec(self)
            .map_err(Into::into)
            .and_then(|text| write_atomically(clone, RECORD, &text));
        if let Err(error) = written {
            tracing::warn!(error = %error, "the record of the shown index could not be written to DATA_DIR");
        }
    }
}
