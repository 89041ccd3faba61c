//! The rules, and their decisions about one version.
//!
//! To add a rule, add a variant to [`Rule`] and a [`Reason`]. The compiler finds most places. `Rules::policy`,
//! `Rule::only_watches` and `apply::decide` have a default, so check these yourself.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::advisories::Advisories;
use super::decision::Reason;
use super::file::PolicyFile;
use super::file::names::CrateMatch;
use super::line::Line;
use super::settings::{Mode, Settings};
use super::yank_guard::SeenYanks;
use crate::package::{Checksum, canonical};

/// Counts up when the same rules and facts lead to other decisions than in an earlier version of the mirror: what that one
/// has decided must not be served.
pub(crate) const DECISIONS: u32 = 1;

/// Facts for the rules, beside the index line. By default nothing is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// The crate files that are stored. Empty unless a rule needs them ([`Rules::need_stored_files`]).
    pub(crate) stored: Arc<HashSet<Checksum>>,
    /// Policy time: when the last successful fetch of the index began, in whole minutes, as seconds since 1970. Holds end by this
    /// time, so they cannot end while the mirror is cut off from what the upstream has deleted or yanked.
    pub(crate) policy_time: i64,
    /// The policy file.
    pub(crate) file: Arc<PolicyFile>,
    /// The advisories; `None` without a database.
    pub(crate) advisories: Option<Arc<Advisories>>,
    /// The yanks that the guard has seen.
    pub(crate) yanks: Arc<SeenYanks>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `INDEX_PRUNED`: only versions whose crate file is stored are shown.
    StoredOnly,
    /// What the company allows: see [`crate_policy`](super::crate_policy).
    Policy(Settings),
    /// Shows every third version as yanked, for tests and benchmarks.
    #[cfg(any(test, feature = "bench-rules"))]
    EveryThirdYanked,
}

/// All rules, in order. The first one that matches decides. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(pub(super) Arc<[Rule]>);

impl Rules {
    /// Makes a list of these rules.
    pub(crate) fn new(rules: Vec<Rule>) -> Self {
        Self(rules.into())
    }

    /// Whether there are no rules, so everything is shown unchanged.
    pub(crate) fn are_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the rules may hide a version.
    pub(crate) fn may_hide(&self) -> bool {
        self.0.iter().any(|rule| match rule {
            Rule::StoredOnly => true,
            // It leaves out lines that cannot be edited, which nobody needs to look for at the upstream.
            Rule::Policy(_) => false,
            #[cfg(any(test, feature = "bench-rules"))]
            Rule::EveryThirdYanked => false,
        })
    }

    /// The settings of the policy, if there is one.
    pub(crate) fn policy(&self) -> Option<&Settings> {
        self.0.iter().find_map(|rule| match rule {
            Rule::Policy(settings) => Some(settings),
            _ => None,
        })
    }

    /// Whether the rules change nothing that is shown: they only find out what they would change.
    pub(crate) fn only_watch(&self) -> bool {
        self.0.iter().all(Rule::only_watches)
    }

    /// Whether a rule needs [`Facts::stored`].
    pub(crate) fn need_stored_files(&self) -> bool {
        // The look-up lists the whole store, so it is skipped unless a rule needs it.
        self.0.contains(&Rule::StoredOnly)
    }

    /// The rules without their facts. A tree that other rules have made must never be shown.
    pub(crate) fn names(&self) -> String {
        format!("{:?}", self.0)
    }

    /// A text that changes whenever the rules could decide differently about the same line, except for the policy time:
    /// what that changes is known for each crate.
    pub(crate) fn fingerprint(&self, facts: &Facts) -> String {
        let mut parts = Vec::new();
        for rule in self.0.iter() {
            parts.push(match rule {
                Rule::StoredOnly => format!("stored-{}", fingerprint_of(&facts.stored)),
                Rule::Policy(_) => {
                    let advisories = facts.advisories.as_ref();
                    let advisories = advisories.map_or("none", |advisories| &advisories.commit);
                    let mut hasher = DefaultHasher::new();
                    facts.yanks.hash(&mut hasher);
                    let yanks = hasher.finish();
                    format!(
                        "policy-{DECISIONS}-{}-{advisories}-{yanks:016x}",
                        facts.file.digest
                    )
                }
                #[cfg(any(test, feature = "bench-rules"))]
                Rule::EveryThirdYanked => "every-third-yanked".to_owned(),
            });
        }
        parts.join("+")
    }
}

impl Rule {
    /// Whether it changes nothing that is shown.
    pub(super) fn only_watches(&self) -> bool {
        matches!(self, Self::Policy(settings) if settings.mode == Mode::Audit)
    }

    /// Decides about a line by itself. `None` leaves the decision to the next rule.
    pub(super) fn decide(&self, line: Option<&Line<'_>>, facts: &Facts) -> Option<Reason> {
        match self {
            Self::StoredOnly => {
                // A line without a readable checksum counts as not stored: no file can be verified against it.
                let checksum = line.and_then(|line| line.checksum);
                let is_stored = checksum.is_some_and(|checksum| facts.stored.contains(&checksum));
                (!is_stored).then_some(Reason::NotStored)
            }
            // It looks at all versions of a crate together.
            Self::Policy(_) => None,
            #[cfg(any(test, feature = "bench-rules"))]
            Self::EveryThirdYanked => {
                let checksum = line?.checksum?.to_string();
                let digits = checksum.get(..4)?;
                let is_third = u32::from_str_radix(digits, 16).ok()? % 3 == 0;
                is_third.then_some(Reason::Test)
            }
        }
    }
}

impl Facts {
    /// Whether decisions about a crate may differ between these facts and later ones, as far as the policy goes. Policy
    /// time counts only for what the policy file lets expire: see [`FileState::next_change`](super::apply::FileState).
    pub(crate) fn may_differ(&self, later: &Self) -> Differing {
        let mut names: BTreeSet<String> =
            later.yanks.differing(&self.yanks).map(canonical).collect();
        let none = Advisories::default();
        let before = self.advisories.as_deref().unwrap_or(&none);
        let after = later.advisories.as_deref().unwrap_or(&none);
        names.extend(after.differences(before).into_iter().map(str::to_owned));
        // Whether an advisory is ignored is in the policy file: the crates of such advisories differ, too.
        if self.file.digest != later.file.digest {
            names.extend(after.names().map(str::to_owned));
        }
        let file = self
            .file
            .may_differ(self.policy_time, &later.file, later.policy_time);
        Differing { names, file }
    }
}

/// The crates about which the policy may decide differently.
#[derive(Debug)]
pub(crate) struct Differing {
    /// Canonical names.
    names: BTreeSet<String>,
    file: CrateMatch,
}

impl Differing {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.file.is_empty()
    }

    /// Whether this crate is among them.
    pub(crate) fn contains(&self, name: &str) -> bool {
        let name = canonical(name);
        self.names.contains(&name) || self.file.matches(&name)
    }
}

/// A text that differs between sets. It adds up the hashes of all checksums, because the order of a set differs from
/// run to run.
fn fingerprint_of(stored: &HashSet<Checksum>) -> String {
    let sum = |seed: u8| {
        stored.iter().fold(0_u64, |sum, checksum| {
            // `DefaultHasher::new` has fixed keys, so the fingerprint is the same after a restart.
            let mut hasher = DefaultHasher::new();
            (seed, checksum).hash(&mut hasher);
            sum.wrapping_add(hasher.finish())
        })
    };
    format!("{}-{:016x}{:016x}", stored.len(), sum(0), sum(1))
}

#[cfg(test)]
impl Facts {
    /// Only stored files.
    pub(crate) fn of_stored_files(stored: HashSet<Checksum>) -> Self {
        Self {
            stored: Arc::new(stored),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checksum(number: u8) -> Checksum {
        Checksum::from([number; 32])
    }

    fn facts(stored: &[u8]) -> Facts {
        Facts::of_stored_files(stored.iter().map(|number| checksum(*number)).collect())
    }

    #[test]
    fn the_fingerprint_tells_sets_of_stored_files_apart() {
        let rules = Rules::new(vec![Rule::StoredOnly]);
        let fingerprint = |numbers: &[u8]| rules.fingerprint(&facts(numbers));
        assert_eq!(fingerprint(&[1, 2, 3]), fingerprint(&[3, 1, 2]));
        for other in [[].as_slice(), &[1, 2], &[1, 2, 4], &[1, 2, 3, 4]] {
            assert_ne!(fingerprint(other), fingerprint(&[1, 2, 3]));
        }
    }
}
