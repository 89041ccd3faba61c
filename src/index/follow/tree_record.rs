//! What a clone remembers of its last tree through rules: a record of what the tree was made from, and what the policy has
//! found.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::index::ids::ObjectId;
use crate::index::source::clone_dir::write_atomically;
use crate::index::source::repository::Repository;
use crate::policy::{Rule, Rules, States};

/// The file in a clone that records its last tree through rules. Its name and its keys are those of older versions.
const RECORD: &str = "pruned.json";

/// The file in a clone with what the policy has found in the index files of the last tree.
const STATES: &str = "policy-states.json";

/// The input of a tree through rules, and its id.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct TreeRecord {
    /// The upstream's tree.
    pub(super) source: ObjectId,
    /// The fingerprint of the rules.
    #[serde(rename = "held")]
    pub(super) fingerprint: String,
    /// The resulting tree.
    #[serde(rename = "pruned")]
    pub(super) shown: ObjectId,
    /// The rules without their facts. Earlier versions had one rule, and did not write it.
    #[serde(default = "stored_only")]
    pub(super) rules: String,
    /// Policy time, in seconds since 1970.
    #[serde(default)]
    pub(super) policy_time: i64,
    /// The id of the file with the states; empty without a policy.
    #[serde(default)]
    pub(super) states: String,
}

fn stored_only() -> String {
    Rules::new(vec![Rule::StoredOnly]).names()
}

/// The policy time of the last view of this clone, if one was recorded.
pub(super) fn recorded_policy_time(clone: &Path) -> Option<i64> {
    TreeRecord::read(clone).map(|record| record.policy_time)
}

impl TreeRecord {
    /// The record of a clone, if the clone has both trees.
    pub(super) fn find(repository: &Repository) -> Option<Self> {
        let record = Self::read(repository.path())?;
        (repository.has(record.source) && repository.has(record.shown)).then_some(record)
    }

    fn read(clone: &Path) -> Option<Self> {
        let text = std::fs::read(clone.join(RECORD)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    pub(super) fn remove(clone: &Path) {
        if let Err(error) = std::fs::remove_file(clone.join(RECORD)) {
            tracing::debug!(error = %error, "the record of the shown index could not be removed");
        }
    }

    /// Writes the record. A failure only means that the tree is made again.
    pub(super) fn write(&self, clone: &Path) {
        let written = serde_json::to_vec(self)
            .map_err(Into::into)
            .and_then(|text| write_atomically(clone, RECORD, &text));
        if let Err(error) = written {
            tracing::warn!(error = %error, "the record of the shown index could not be written to DATA_DIR");
        }
    }
}

/// The content of the file with the states.
#[derive(Deserialize, Serialize)]
struct StatesFile<S> {
    id: String,
    states: S,
}

/// Reads what the policy had found for the tree with this id of the states; `None` if that is not known any more.
pub(super) fn read_states(clone: &Path, id: &str) -> Option<States> {
    let text = std::fs::read(clone.join(STATES)).ok()?;
    let file: StatesFile<States> = serde_json::from_slice(&text).ok()?;
    (file.id == id).then_some(file.states)
}

/// Whether there is a file with states.
pub(super) fn has_states(clone: &Path) -> bool {
    clone.join(STATES).exists()
}

/// Writes what the policy has found, and returns the id of the file.
pub(super) fn write_states(clone: &Path, states: &States) -> String {
    // A file by another id is no use to the record, so both are never mixed up.
    let id = format!("{:016x}", fastrand::u64(..));
    let file = StatesFile {
        id: id.clone(),
        states,
    };
    let written = serde_json::to_vec(&file)
        .map_err(Into::into)
        .and_then(|text| write_atomically(clone, STATES, &text));
    if let Err(error) = written {
        tracing::warn!(error = %error, "the decisions of the policy could not be written to DATA_DIR; a restart makes them again");
    }
    id
}
