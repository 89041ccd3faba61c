//! The rules, and their decisions about one version.
//!
//! To add a rule, add a variant to [`Rule`] and an arm to each `match` in this file. The compiler finds the places.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Deserialize;

use crate::package::Checksum;

/// How one version is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Unchanged.
    AsIs,
    /// With this yanked flag instead of the upstream's.
    #[cfg_attr(
        not(any(test, feature = "bench-rules")),
        expect(
            dead_code,
            reason = "only rules for tests and benchmarks need it so far"
        )
    )]
    Yanked(bool),
    /// Not at all.
    Hidden,
}

/// Why a version is hidden or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Its crate file is not stored, and the mirror cannot fetch it.
    NotStored,
    /// A rule for tests and benchmarks matches.
    #[cfg(any(test, feature = "bench-rules"))]
    Test,
}

/// The decision about one version. Without a reason no rule matches, and the version is shown unchanged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    pub(super) shown: Shown,
    pub(super) reason: Option<Reason>,
}

/// Facts for the rules, beside the index line.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The crate files that are stored. Empty unless a rule needs them ([`Rules::need_stored_files`]).
    pub(crate) stored: HashSet<Checksum>,
    /// The current time.
    pub(crate) now: SystemTime,
}

/// The fields of an index line that rules read. All other fields are skipped.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Line<'a> {
    #[serde(borrow, default)]
    cksum: Option<Cow<'a, str>>,
}

impl<'a> Line<'a> {
    /// Parses a line. A line that is not a JSON object has no known fields.
    pub(super) fn parse(line: &'a [u8]) -> Self {
        // serde also reads the fields from an array.
        if !line.trim_ascii_start().starts_with(b"{") {
            return Self::default();
        }
        serde_json::from_slice(line).unwrap_or_default()
    }

    fn checksum(&self) -> Option<Checksum> {
        self.cksum.as_ref()?.parse().ok()
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `INDEX_PRUNED`: only versions whose crate file is stored are shown.
    StoredOnly,
    /// Shows every third version as yanked, for tests and benchmarks.
    #[cfg(any(test, feature = "bench-rules"))]
    EveryThirdYanked,
    /// Hides everything until this time.
    #[cfg(test)]
    HiddenUntil(SystemTime),
}

/// All rules, in order. The first one that matches decides. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules(Arc<[Rule]>);

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
            #[cfg(any(test, feature = "bench-rules"))]
            Rule::EveryThirdYanked => false,
            #[cfg(test)]
            Rule::HiddenUntil(_) => true,
        })
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

    /// A text that changes whenever the rules could decide differently about the same line.
    pub(crate) fn fingerprint(&self, facts: &Facts) -> String {
        let mut parts = Vec::new();
        for rule in self.0.iter() {
            parts.push(match rule {
                Rule::StoredOnly => format!("stored-{}", fingerprint_of(&facts.stored)),
                #[cfg(any(test, feature = "bench-rules"))]
                Rule::EveryThirdYanked => "every-third-yanked".to_owned(),
                #[cfg(test)]
                Rule::HiddenUntil(until) => format!("hidden-{}", facts.now < *until),
            });
        }
        parts.join("+")
    }

    /// The next time at which the rules decide differently because of the time alone.
    pub(crate) fn next_change(&self, now: SystemTime) -> Option<SystemTime> {
        let changes = self.0.iter().filter_map(|rule| match rule {
            Rule::StoredOnly => None,
            #[cfg(any(test, feature = "bench-rules"))]
            Rule::EveryThirdYanked => None,
            #[cfg(test)]
            Rule::HiddenUntil(until) => Some(*until),
        });
        changes.filter(|change| *change > now).min()
    }

    /// Decides about one version of a crate.
    pub(super) fn decide(&self, line: &Line<'_>, facts: &Facts) -> Decision {
        // `find_map` ends at the first rule that matches, which gives the order its meaning.
        let decided = self.0.iter().find_map(|rule| rule.decide(line, facts));
        decided.map_or(
            Decision {
                shown: Shown::AsIs,
                reason: None,
            },
            |(shown, reason)| Decision {
                shown,
                reason: Some(reason),
            },
        )
    }
}

impl Rule {
    /// `None` leaves the decision to the next rule.
    fn decide(&self, line: &Line<'_>, facts: &Facts) -> Option<(Shown, Reason)> {
        match self {
            Self::StoredOnly => {
                // A line without a readable checksum counts as not stored: no file can be verified against it.
                let is_stored = line
                    .checksum()
                    .is_some_and(|checksum| facts.stored.contains(&checksum));
                (!is_stored).then_some((Shown::Hidden, Reason::NotStored))
            }
            #[cfg(any(test, feature = "bench-rules"))]
            Self::EveryThirdYanked => {
                let checksum = line.checksum()?.to_string();
                let digits = checksum.get(..4)?;
                let is_third = u32::from_str_radix(digits, 16).ok()? % 3 == 0;
                is_third.then_some((Shown::Yanked(true), Reason::Test))
            }
            #[cfg(test)]
            Self::HiddenUntil(until) => {
                (facts.now < *until).then_some((Shown::Hidden, Reason::Test))
            }
        }
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
mod tests {
    use std::time::Duration;

    use super::*;

    fn checksum(number: u8) -> Checksum {
        Checksum::from([number; 32])
    }

    fn facts(stored: &[u8]) -> Facts {
        Facts {
            stored: stored.iter().map(|number| checksum(*number)).collect(),
            now: SystemTime::UNIX_EPOCH,
        }
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

    #[test]
    fn the_first_rule_that_matches_decides() {
        let line = format!(r#"{{"cksum":"{}"}}"#, checksum(3));
        let line = Line::parse(line.as_bytes());
        let decide = |rules: Vec<Rule>, stored: &[u8]| {
            let decision = Rules::new(rules).decide(&line, &facts(stored));
            (decision.shown, decision.reason)
        };
        let (third, stored) = (Rule::EveryThirdYanked, Rule::StoredOnly);
        let yanked = (Shown::Yanked(true), Some(Reason::Test));
        let hidden = (Shown::Hidden, Some(Reason::NotStored));
        assert_eq!(decide(vec![third.clone(), stored.clone()], &[]), yanked);
        assert_eq!(decide(vec![stored.clone(), third.clone()], &[]), hidden);
        assert_eq!(decide(vec![stored.clone(), third], &[3]), yanked);
        assert_eq!(decide(vec![stored], &[3]), (Shown::AsIs, None));
    }

    #[test]
    fn the_next_change_is_the_nearest_one_in_the_future() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let rules = Rules::new(vec![
            Rule::HiddenUntil(at(20)),
            Rule::StoredOnly,
            Rule::HiddenUntil(at(10)),
        ]);
        assert_eq!(rules.next_change(at(5)), Some(at(10)));
        assert_eq!(rules.next_change(at(10)), Some(at(20)));
        assert_eq!(rules.next_change(at(20)), None);
    }
}
