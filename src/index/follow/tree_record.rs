//! What a clone remembers of its last tree through rules: a record of what the tree was made from, and what the policy has
//! found.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::index::ids::ObjectId;
use crate::index::source::clone_dir::write_atomically;
use crate::index::source::repository::Repository;
use crate::policy::{FileState, Rule, Rules, States};

/// The file in a clone that records its last tree through rules. Its name and its keys are those of older versions.
const RECORD: &str = "pruned.json";

/// The file in a clone with what the policy has found in the index files of the last trees.
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
    /// The id of the line with the states; empty without a policy.
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

/// A line of the file with the states. The first line has the states of all files. Each further line has the states that
/// the next tree has changed; `None` for files without a state.
#[derive(Deserialize, Serialize)]
struct StatesLine<S> {
    id: String,
    /// The id of the line before; nothing in the first one.
    #[serde(default)]
    after: String,
    states: S,
}

/// What is known of the states on disk.
#[derive(Clone, Debug)]
pub(super) struct StatesOnDisk {
    /// The id of the last line; empty without a policy.
    pub(super) id: String,
    /// How many changes follow the first line; `None` if this run of the mirror has not written that line. After a crash
    /// more lines may follow than this run has read.
    changes: Option<usize>,
    /// Whether they could be written.
    pub(super) are_on_disk: bool,
}

impl StatesOnDisk {
    /// Those that a record names.
    pub(super) fn of_record(record: &TreeRecord) -> Self {
        Self {
            id: record.states.clone(),
            changes: None,
            are_on_disk: true,
        }
    }

    /// Without a policy there are none.
    pub(super) fn none() -> Self {
        Self {
            id: String::new(),
            changes: None,
            are_on_disk: true,
        }
    }
}

/// Reads what the policy had found for the tree with this id of the states; `None` if that is not known any more.
pub(super) fn read_states(clone: &Path, id: &str) -> Option<States> {
    let text = std::fs::read(clone.join(STATES)).ok()?;
    let mut lines = text.split(|byte| *byte == b'\n');
    let whole: StatesLine<States> = serde_json::from_slice(lines.next()?).ok()?;
    let (mut last, mut states) = (whole.id, whole.states);
    // A crash can leave a line of a tree that has no record.
    while last != id {
        let line: StatesLine<BTreeMap<String, Option<FileState>>> =
            serde_json::from_slice(lines.next()?).ok()?;
        if line.after != last {
            return None;
        }
        for (name, state) in line.states {
            states.set(&name, state);
        }
        last = line.id;
    }
    Some(states)
}

/// Whether there is a file with states.
pub(super) fn has_states(clone: &Path) -> bool {
    clone.join(STATES).exists()
}

/// Writes what the policy has found. `before`: the states on disk, and the names of the files whose state differs from them.
pub(super) fn write_states(
    clone: &Path,
    states: &States,
    before: Option<(&StatesOnDisk, &[String])>,
) -> StatesOnDisk {
    // The record names the id. States with another id are not read.
    let id = format!("{:016x}", fastrand::u64(..));
    // So the file takes at most twice as long to read.
    if let Some((before, changed)) = before
        && let Some(changes) = before.changes.map(|changes| changes + changed.len())
        && changes <= states.count()
        && add_line(clone, (&before.id, &id), states, changed).is_ok()
    {
        return StatesOnDisk {
            id,
            changes: Some(changes),
            are_on_disk: true,
        };
    }
    let line = StatesLine {
        id: id.clone(),
        after: String::new(),
        states,
    };
    let written = text_of(&line).and_then(|text| write_atomically(clone, STATES, &text));
    if let Err(error) = &written {
        tracing::warn!(error = %error, "the decisions of the policy could not be written to DATA_DIR; a restart makes them again");
    }
    StatesOnDisk {
        id,
        changes: written.is_ok().then_some(0),
        are_on_disk: written.is_ok(),
    }
}

/// Adds a line to the file with the states. An error can leave half a line: the caller then writes the whole file.
fn add_line(
    clone: &Path,
    (after, id): (&str, &str),
    states: &States,
    changed: &[String],
) -> io::Result<()> {
    let changed: BTreeMap<_, _> = changed.iter().map(|name| (name, states.of(name))).collect();
    let line = StatesLine {
        id: id.to_owned(),
        after: after.to_owned(),
        states: changed,
    };
    let mut file = File::options().append(true).open(clone.join(STATES))?;
    file.write_all(&text_of(&line)?)?;
    file.sync_data()
}

/// The line with its line break, so that an incomplete next line does not damage it.
fn text_of(line: &StatesLine<impl Serialize>) -> io::Result<Vec<u8>> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(versions: u32) -> Option<FileState> {
        Some(FileState {
            held: versions,
            ..FileState::default()
        })
    }

    #[test]
    fn changed_states_are_added_to_the_file_until_they_are_more_than_all() {
        let directory = tempfile::TempDir::new().unwrap();
        let clone = directory.path();
        let lines = || {
            let text = std::fs::read_to_string(clone.join(STATES)).unwrap();
            text.lines().count()
        };
        let mut states = States::default();
        for number in 0..4 {
            states.set(&format!("crate-{number}"), held(1));
        }
        let mut stored = write_states(clone, &states, None);
        let mut all = vec![(stored.id.clone(), states.clone())];
        // The last change removes a state, so only three are left.
        for (number, state, lines_then) in [(0, held(2), 2), (1, held(3), 3), (2, None, 4)] {
            let name = format!("crate-{number}");
            states.set(&name, state);
            stored = write_states(clone, &states, Some((&stored, &[name])));
            assert_eq!(lines(), lines_then);
            all.push((stored.id.clone(), states.clone()));
        }
        for (id, states) in &all {
            assert_eq!(read_states(clone, id).as_ref(), Some(states));
        }
        let name = "crate-3".to_owned();
        states.set(&name, held(9));
        stored = write_states(clone, &states, Some((&stored, &[name])));
        assert_eq!(lines(), 1);
        assert_eq!(read_states(clone, &stored.id), Some(states));
        assert_eq!(read_states(clone, &all[0].0), None);
    }

    #[test]
    fn states_are_not_added_to_those_of_another_run_and_an_incomplete_line_is_not_read() {
        let directory = tempfile::TempDir::new().unwrap();
        let (clone, name) = (directory.path(), "serde".to_owned());
        let mut states = States::default();
        states.set(&name, held(1));
        let first = write_states(clone, &states, None);
        let before = states.clone();
        states.set(&name, held(2));
        let names = std::slice::from_ref(&name);
        let second = write_states(clone, &states, Some((&first, names)));
        let whole = std::fs::read(clone.join(STATES)).unwrap();
        std::fs::write(clone.join(STATES), &whole[..whole.len() - 2]).unwrap();
        assert_eq!(read_states(clone, &first.id), Some(before));
        assert_eq!(read_states(clone, &second.id), None);
        // A line after another one than the last: the file was replaced.
        let other = "{\"id\":\"other\",\"states\":{}}\n";
        std::fs::write(clone.join(STATES), other).unwrap();
        let third = write_states(clone, &states, Some((&first, names)));
        assert_eq!(read_states(clone, &third.id), None);
        let of_another_run = StatesOnDisk {
            changes: None,
            ..third
        };
        let last = write_states(clone, &states, Some((&of_another_run, names)));
        assert_eq!(read_states(clone, &last.id), Some(states));
    }
}
