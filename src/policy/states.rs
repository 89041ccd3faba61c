//! What the policy has found in each index file of a view.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::apply::FileState;

/// The number of shards. Of 10,000 files each has 40, so a copy of one is cheap.
const SHARDS: usize = 256;

/// The index files about which the policy has something to say, by the name of the file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "BTreeMap<Box<str>, FileState>")]
pub(crate) struct States {
    /// A refresh makes new states, and shares the shards that have not changed. A copy of one map of 10,000 files took a
    /// fifteenth of a refresh (`benches/compare/view.sh`).
    shards: Box<[Arc<Shard>]>,
    /// The sums.
    pub(crate) totals: Totals,
}

/// The files whose names have the same lowest byte in their hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shard {
    files: BTreeMap<Box<str>, FileState>,
    /// The first policy time at which a decision changes in one of them.
    next_change: Option<i64>,
}

impl Default for States {
    fn default() -> Self {
        Self {
            shards: vec![Arc::default(); SHARDS].into(),
            totals: Totals::default(),
        }
    }
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
        serializer.collect_map(self.shards.iter().flat_map(|shard| &shard.files))
    }
}

impl States {
    /// Replaces the state of a file. `None` for a file that is gone.
    pub(crate) fn set(&mut self, name: &str, state: Option<FileState>) {
        let state = state.filter(|state| *state != FileState::default());
        let Some(shard) = self.shards.get_mut(shard_of(name)) else {
            return;
        };
        let shard = Arc::make_mut(shard);
        let changes = state.as_ref().and_then(|state| state.next_change);
        let before = match state {
            Some(state) => {
                self.totals.add(name, &state);
                shard.files.insert(name.into(), state)
            }
            None => shard.files.remove(name),
        };
        if let Some(before) = &before {
            self.totals.subtract(name, before);
        }
        shard.next_change = match before.and_then(|before| before.next_change) {
            // It may have been the first one.
            Some(gone) if Some(gone) == shard.next_change => {
                let changes = shard.files.values().filter_map(|state| state.next_change);
                changes.min()
            }
            _ => shard.next_change.into_iter().chain(changes).min(),
        };
    }

    /// The number of files.
    pub(crate) fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.files.len()).sum()
    }

    /// The state of a file; `None` if the policy has nothing to say about it.
    pub(crate) fn of(&self, name: &str) -> Option<&FileState> {
        self.shards.get(shard_of(name))?.files.get(name)
    }

    /// The files in which a decision changes by itself at this policy time, or has changed since.
    pub(crate) fn due(&self, policy_time: i64) -> impl Iterator<Item = &str> {
        let is_due = move |next: Option<i64>| next.is_some_and(|next| next <= policy_time);
        let shards = self
            .shards
            .iter()
            .filter(move |shard| is_due(shard.next_change));
        let files = shards.flat_map(|shard| &shard.files);
        let due = files.filter(move |(_, state)| is_due(state.next_change));
        due.map(|(name, _)| &**name)
    }
}

/// The place of the shard with this file.
fn shard_of(name: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let [byte, ..] = hasher.finish().to_le_bytes();
    usize::from(byte) % SHARDS
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
