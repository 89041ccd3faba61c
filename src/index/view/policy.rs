//! What the rules have decided in a view, and what they decided it from.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::index::ids::ObjectId;
use crate::policy::{Facts, Rules, States};

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
    pub(super) facts: Option<Facts>,
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
        add(rules.names().as_bytes());
        add(shown.as_bytes());
        add(&states.totals().digest.to_be_bytes());
        if let Some(facts) = &facts {
            add(facts.file.digest().as_bytes());
            let advisories = facts.advisories.as_ref();
            add(advisories
                .map_or("", |advisories| advisories.commit())
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
