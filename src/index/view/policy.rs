//! What the rules have decided in a view, and what they decided it from.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::index::ids::ObjectId;
use crate::policy::{DECISIONS, Facts, Rules, States};

/// Names the decisions of a view: the same commit and the same id mean the same bytes in every answer.
///
/// It differs if the settings, the policy file, the advisories or any decision differ. It does not contain the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PolicyId([u8; 6]);

impl PolicyId {
    /// 12 hexadecimal digits.
    pub(crate) fn hex(self) -> [u8; 12] {
        let mut hex = [0; 12];
        crate::package::write_hex(&self.0, &mut hex);
        hex
    }
}

impl fmt::Display for PolicyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.hex()))
    }
}

/// The rules of a view, with their facts and their findings.
#[derive(Debug)]
pub(crate) struct ViewPolicy {
    pub(super) rules: Rules,
    /// `None` without a policy: the facts of the other rules are large, and nobody asks for them later.
    pub(in crate::index) facts: Option<Facts>,
    pub(super) states: Arc<States>,
    id: PolicyId,
}

impl ViewPolicy {
    /// The rules have made the tree `shown` from these facts.
    pub(crate) fn new(
        rules: Rules,
        facts: Option<Facts>,
        states: Arc<States>,
        shown: ObjectId,
    ) -> Self {
        let facts = facts.filter(|_| rules.policy().is_some());
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            // The length keeps the parts apart.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        };
        add(&DECISIONS.to_be_bytes());
        add(rules.names().as_bytes());
        add(shown.as_bytes());
        add(&states.totals.digest.to_be_bytes());
        if let Some(facts) = &facts {
            add(facts.file.digest.as_bytes());
            let advisories = facts.advisories.as_ref();
            add(advisories
                .map_or("", |advisories| &advisories.commit)
                .as_bytes());
        }
        let hash: [u8; 32] = hash.finalize().into();
        let [a, b, c, d, e, f, ..] = hash;
        let id = [a, b, c, d, e, f];
        Self {
            rules,
            facts,
            states,
            id: PolicyId(id),
        }
    }

    /// The name of these decisions.
    pub(crate) fn id(&self) -> PolicyId {
        self.id
    }

    /// Whether requests can tell the two apart.
    pub(super) fn is_the_same_as(&self, other: &Self) -> bool {
        self.id == other.id && self.states == other.states
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::policy::testing::{databases, policy_files};
    use crate::policy::{FileState, PolicyFile, Rule};

    #[test]
    fn the_name_differs_with_all_that_decides_and_not_with_the_time() {
        let id = |facts: &Facts, states: &States, shown: u8| {
            let rules = Rules::new(vec![Rule::Policy(crate::policy::testing::settings())]);
            let shown = git2::Oid::from_bytes(&[shown; 20]).unwrap().into();
            ViewPolicy::new(rules, Some(facts.clone()), Arc::new(states.clone()), shown).id()
        };
        let facts = Facts {
            file: Arc::clone(&policy_files()[1]),
            advisories: Some(Arc::clone(&databases()[1])),
            ..Facts::default()
        };
        let states = States::default();
        let first = id(&facts, &states, 1);
        let later = Facts {
            policy_time: 60,
            ..facts.clone()
        };
        let mut next = States::default();
        let change = FileState {
            next_change: Some(60),
            ..FileState::default()
        };
        next.set("a", Some(change));
        assert_eq!([id(&later, &states, 1), id(&facts, &next, 1)], [first; 2]);
        let with = |digest, name| {
            let mut states = States::default();
            let state = FileState {
                digest,
                ..FileState::default()
            };
            states.set(name, Some(state));
            states
        };
        let comment = Facts {
            file: Arc::new(PolicyFile::parse("# a comment").unwrap()),
            ..facts.clone()
        };
        let other = Facts {
            advisories: Some(Arc::clone(&databases()[2])),
            ..facts.clone()
        };
        let all = [
            first,
            id(&facts, &states, 2),
            id(&facts, &with(1, "a"), 1),
            id(&facts, &with(3, "a"), 1),
            id(&facts, &with(3, "b"), 1),
            id(&comment, &states, 1),
            id(&other, &states, 1),
        ];
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    }
}
