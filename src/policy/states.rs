//! What the policy has found in each index file of a view.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::apply::FileState;

/// The index files about which the policy has something to say, by the name of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<Box<str>, FileState>")]
pub(crate) struct States {
    /// The names are shared, because every refresh makes a new map of nearly the same files.
    files: BTreeMap<Arc<str>, FileState>,
    /// The sums.
    pub(crate) totals: Totals,
}

/// Sums over all index files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Versions that are held.
    pub(crate) held: u64,
    /// Versions that are denied.
    pub(crate) denied: u64,
    /// Versions that the yank guard keeps unyanked.
    pub(crate) frozen: u64,
    /// Lines that are left out, because they cannot be edited.
    pub(crate) left_out: u64,
    /// Lines without a publish time.
    pub(crate) without_time: u64,
    /// Differs between different decisions.
    pub(crate) digest: u64,
}

impl From<BTreeMap<Box<str>, FileState>> for States {
    fn from(files: BTreeMap<Box<str>, FileState>) -> Self {
        let mut states = Self::default();
        for (name, state) in files {
            states.set(&name, Some(state));
        }
        states
    }
}

impl Serialize for States {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.files.iter().map(|(name, state)| (&**name, state)))
    }
}

impl States {
    /// Replaces the state of a file. `None` for a file that is gone.
    pub(crate) fn set(&mut self, name: &str, state: Option<FileState>) {
        let state = state.filter(|state| *state != FileState::default());
        let before = match &state {
            Some(state) => {
                self.totals.add(name, state);
                self.files.insert(name.into(), state.clone())
            }
            None => self.files.remove(name),
        };
        if let Some(before) = before {
            self.totals.subtract(name, &before);
        }
    }

    /// The number of files.
    pub(crate) fn count(&self) -> usize {
        self.files.len()
    }

    /// The state of a file; `None` if the policy has nothing to say about it.
    pub(crate) fn of(&self, name: &str) -> Option<&FileState> {
        self.files.get(name)
    }

    /// The files in which a decision changes by itself at this policy time, or has changed since.
    pub(crate) fn due(&self, policy_time: i64) -> impl Iterator<Item = &str> {
        let is_due =
            move |state: &FileState| state.next_change.is_some_and(|next| next <= policy_time);
        let due = self.files.iter().filter(move |(_, state)| is_due(state));
        due.map(|(name, _)| &**name)
    }
}

impl Totals {
    /// Adds what was found in a file.
    pub(crate) fn add(&mut self, name: &str, state: &FileState) {
        self.held += u64::from(state.held);
        self.denied += u64::from(state.denied);
        self.frozen += u64::from(state.frozen);
        self.left_out += u64::from(state.left_out);
        self.without_time += u64::from(state.without_time);
        self.digest = self.digest.wrapping_add(digest_of(name, state));
    }

    fn subtract(&mut self, name: &str, state: &FileState) {
        self.held -= u64::from(state.held);
        self.denied -= u64::from(state.denied);
        self.frozen -= u64::from(state.frozen);
        self.left_out -= u64::from(state.left_out);
        self.without_time -= u64::from(state.without_time);
        self.digest = self.digest.wrapping_sub(digest_of(name, state));
    }
}

/// Sums of these do not depend on the order, so they can follow changes.
fn digest_of(name: &str, state: &FileState) -> u64 {
    // No decision: only counts, and the time.
    if state.digest == 0 && state.left_out == 0 {
        return 0;
    }
    let mut hasher = DefaultHasher::new();
    (name, state.digest, state.left_out).hash(&mut hasher);
    hasher.finish()
}
