//! What the policy says about the versions of a crate, in memory for further requests.

use crate::http::bounded_cache::{BoundedCache, Weighed, bounded};
use crate::index::{BlobId, PolicyId};
use crate::package::Timestamp;
use crate::policy::{DecidedVersion, PolicyState, Reason, version_instead};

/// All tables together, in bytes.
const TABLES_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The number of tables for which the cache is made.
const TABLES_TYPICAL: usize = 2 * 1024;

/// Few parts, so that the largest table fits into one.
const TABLES_PARTS: usize = 2;

/// What a table takes besides its versions, with the name of its file.
const TABLE_BYTES: usize = 320;

/// What a version takes besides its texts.
const VERSION_BYTES: usize = size_of::<DecidedVersion>() + 64;

/// The decisions about all versions of a crate.
#[derive(Debug)]
pub(crate) struct DecisionTable {
    /// In the order of the index file.
    pub(crate) versions: Vec<DecidedVersion>,
}

/// Why the mirror does not let clients have a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Held or denied.
    pub(crate) state: PolicyState,
    /// The name of the rule.
    pub(crate) rule: &'static str,
    /// The text for people.
    pub(crate) detail: String,
    /// When the version is released, in seconds since 1970.
    pub(crate) until: Option<i64>,
}

impl DecisionTable {
    /// Why a version is held or denied; `None` if it is neither. If several lines have this version, the strictest decision
    /// counts: look-ups may take any of them.
    pub(crate) fn refusal(&self, version: &str) -> Option<Refusal> {
        let lines = self.versions.iter();
        let of_version = lines.filter(|decided| decided.version == version);
        let refusals = of_version.filter_map(|decided| self.refusal_of(decided));
        refusals.max_by_key(|refusal| refusal.state)
    }

    fn refusal_of(&self, decided: &DecidedVersion) -> Option<Refusal> {
        let reason = decided.reason.as_ref()?;
        let state = reason.state();
        let detail = match state {
            PolicyState::Held => self.held(decided, reason),
            PolicyState::Denied => blocked(decided, reason),
            PolicyState::Allowed | PolicyState::Frozen => return None,
        };
        Some(Refusal {
            state,
            rule: reason.rule(),
            detail,
            until: reason.until(),
        })
    }

    fn held(&self, decided: &DecidedVersion, reason: &Reason) -> String {
        let DecidedVersion { name, version, .. } = decided;
        let words = reason.words(decided.published.as_ref());
        let Some(until) = reason.until() else {
            return format!("{name} {version} is held by this mirror: {words}");
        };
        // Nothing is held beyond the year 9999 without being held for ever.
        let until = Timestamp::from_unix_seconds(until);
        let until = until.map_or_else(String::new, |until| format!(" until {until}"));
        let instead = version_instead(&self.versions, &decided.semver);
        let instead = instead.map_or_else(String::new, |instead| {
            format!(" Use: cargo update {name} --precise {instead}")
        });
        format!("{name} {version} is held by this mirror{until}: {words}.{instead}")
    }
}

impl Weighed for DecisionTable {
    fn bytes(&self) -> usize {
        let of = |decided: &DecidedVersion| {
            let reason = match &decided.reason {
                Some(Reason::DeniedByFile {
                    reason,
                    use_instead,
                }) => [reason, use_instead]
                    .into_iter()
                    .flatten()
                    .map(String::len)
                    .sum(),
                _ => 0,
            };
            VERSION_BYTES + decided.name.len() + decided.version.len() + reason
        };
        TABLE_BYTES + self.versions.iter().map(of).sum::<usize>()
    }
}

fn blocked(DecidedVersion { name, version, .. }: &DecidedVersion, reason: &Reason) -> String {
    let words = reason.words(None);
    let more = match reason {
        Reason::Malware { advisory } => {
            format!(". See https://rustsec.org/advisories/{advisory}.html")
        }
        Reason::DeniedByFile {
            use_instead: Some(instead),
            ..
        } => format!(". Use {instead} instead."),
        _ => String::new(),
    };
    format!("{name} {version} is blocked by this mirror: {words}{more}")
}

/// The decisions, and the upstream's index file with its name: the policy goes by that, and two files may be equal.
type TableKey = (Option<PolicyId>, BlobId, String);

/// Tables by all that they are made of, so no table ever goes stale.
pub(crate) type DecisionTables = BoundedCache<TableKey, DecisionTable>;

/// No tables yet.
pub(crate) fn no_decisions() -> DecisionTables {
    bounded(TABLES_BYTES_MAX, TABLES_TYPICAL, TABLES_PARTS)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::testing::{DAY, NOW, settings, time};
    use crate::policy::{AdvisoryReader, Facts, Rule, Rules, decisions};

    /// The table of an index file with a line for each of these times, all of the same version.
    fn table(published: &[i64]) -> DecisionTable {
        let mut reader = AdvisoryReader::default();
        // Malware of the 19th: what was published later is another file.
        let advisory = "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"a\"\ndate = \"2026-08-19\"\n\
            categories = [\"malicious\"]\n[versions]\npatched = [\"> 1.0.0\"]\nunaffected = [\"< 1.0.0\"]\n```\n\n# A title\n";
        assert_eq!(reader.add(advisory.as_bytes()).unwrap(), None);
        let facts = Facts {
            policy_time: NOW + 8 * DAY,
            advisories: Some(Arc::new(reader.finish("0".repeat(40)))),
            ..Facts::default()
        };
        let lines: String = published
            .iter()
            .map(|published| {
                let time = time(*published);
                format!("{{\"name\":\"a\",\"vers\":\"1.0.0\",\"pubtime\":\"{time}\"}}\n")
            })
            .collect();
        let rules = Rules::new(vec![Rule::Policy(settings())]);
        let versions = decisions(&rules, &facts, "a", lines.as_bytes());
        DecisionTable { versions }
    }

    #[test]
    fn of_several_lines_of_a_version_the_strictest_decision_counts() {
        let (denied, allowed, held) = (NOW - 1, NOW, NOW + 2 * DAY);
        let state = |published: &[i64]| {
            let refusal = table(published).refusal("1.0.0");
            refusal.map_or(PolicyState::Allowed, |refusal| refusal.state)
        };
        for (lines, expected) in [
            (&[denied][..], PolicyState::Denied),
            (&[allowed], PolicyState::Allowed),
            (&[held], PolicyState::Held),
            (&[denied, held], PolicyState::Denied),
            (&[held, denied], PolicyState::Denied),
            (&[allowed, held], PolicyState::Held),
            (&[held, allowed], PolicyState::Held),
            (&[allowed, held, denied], PolicyState::Denied),
        ] {
            assert_eq!(state(lines), expected, "{lines:?}");
        }
        assert!(table(&[held]).refusal("1.0.1").is_none());
    }

    #[test]
    fn a_table_of_thousands_of_versions_stays_in_memory() {
        let tables = no_decisions();
        let one = table(&[NOW]);
        // Real crates have some thousands at most.
        let versions = vec![one.versions[0].clone(); 8_000];
        assert!(one.bytes() * versions.len() > 2 * 1024 * 1024);
        let key = (None, BlobId::of(b"large"), "a".to_owned());
        tables.insert(key.clone(), Arc::new(DecisionTable { versions }));
        assert!(tables.get(&key).is_some());
    }
}
