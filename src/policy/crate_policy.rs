//! What the policy says about the versions of one crate.
//!
//! The order is fixed, and the first match decides: denied by the policy file, malware, not on the allow list, exempt, a
//! suspicious yank, too new.

use std::collections::HashMap;

use super::advisories::CrateAdvisory;
use super::decision::Reason;
use super::line::{Line, versions_in};
use super::rules::Facts;
use super::settings::{Settings, UnknownAge};
use super::yank_guard::{Freeze, freeze};
use crate::package::canonical;

/// The policy for one crate.
#[derive(Debug)]
pub(super) struct CratePolicy<'a> {
    settings: &'a Settings,
    facts: &'a Facts,
    /// Canonical.
    name: String,
    /// Without those that the policy file ignores.
    advisories: Vec<&'a CrateAdvisory>,
    /// The places of the lowest versions that fix vulnerabilities, each with its advisory.
    fixes: HashMap<usize, &'a CrateAdvisory>,
    freeze: Freeze,
}

impl<'a> CratePolicy<'a> {
    /// The policy for a crate. `name` is that of its index file, and `lines` are its lines: `None` for one
    /// that is no version.
    pub(super) fn new(
        settings: &'a Settings,
        facts: &'a Facts,
        name: &str,
        lines: &[Option<Line<'_>>],
    ) -> Self {
        let canonical = canonical(name);
        let advisories = facts.advisories.as_ref();
        let advisories = advisories.map_or(&[][..], |advisories| advisories.of(&canonical));
        let file = &facts.file;
        let advisories: Vec<&CrateAdvisory> = advisories
            .iter()
            .filter(|advisory| !file.ignores(&advisory.id))
            .collect();
        let mut policy = Self {
            settings,
            facts,
            name: canonical,
            fixes: fixes(&advisories, lines),
            advisories,
            freeze: Freeze::default(),
        };
        let guard = i64::try_from(settings.yank_guard.seconds).unwrap_or(i64::MAX);
        if let Some(seen) = facts.yanks.of(name).filter(|_| guard > 0) {
            let is_honest = |old: &Line<'_>, fresh: &Line<'_>| policy.is_honest(old, fresh);
            let found = freeze(lines, seen, (guard, facts.policy_time), is_honest);
            policy.freeze = found.unwrap_or_default();
        }
        policy
    }

    /// Whether an old version may be yanked beside this fresh one.
    fn is_honest(&self, old: &Line<'_>, fresh: &Line<'_>) -> bool {
        let file = &self.facts.file;
        let exemption = file.exemption(&self.name, &fresh.version, self.facts.policy_time);
        let is_fixed = |advisory: &&CrateAdvisory| {
            !advisory.is_malware()
                && !advisory.is_withdrawn()
                && advisory.affects(&old.version)
                && advisory.lists_as_patched(&fresh.version)
        };
        exemption.is_some() || self.advisories.iter().any(is_fixed)
    }

    /// Why a version is not shown as the upstream lists it, or is exempt from that. `place` is its place in the lines.
    pub(super) fn reason(&self, place: usize, line: &Line<'_>) -> Option<Reason> {
        let file = &self.facts.file;
        if let Some(denial) = file.denial(&self.name, &line.version) {
            return Some(Reason::DeniedByFile {
                reason: denial.reason.clone(),
                use_instead: denial.use_instead.clone(),
            });
        }
        let published = line.published.as_ref();
        let malware = self
            .advisories
            .iter()
            .find(|advisory| advisory.blocks(&line.version, published));
        if let Some(advisory) = malware {
            return Some(Reason::Malware {
                advisory: advisory.id.clone(),
            });
        }
        if !file.is_allowed(&self.name, &line.version) {
            return Some(Reason::NotOnAllowList);
        }
        if let Some(exemption) = file.exemption(&self.name, &line.version, self.facts.policy_time) {
            return Some(Reason::ExemptByFile {
                reason: exemption.reason.clone(),
            });
        }
        if let Some(advisory) = self.fixes.get(&place) {
            return Some(Reason::SecurityFix {
                advisory: advisory.id.clone(),
            });
        }
        let until = self.freeze.until;
        if self.freeze.old.contains(&place) {
            return Some(Reason::SuspiciousYank { until });
        }
        if self.freeze.fresh.contains(&place) {
            return Some(Reason::FreshBesideYank { until });
        }
        let min_age = file
            .min_age(&self.name, &line.version)
            .unwrap_or(&self.settings.min_age);
        if min_age.is_zero() {
            return None;
        }
        match published {
            Some(published) => {
                let seconds = i64::try_from(min_age.seconds).unwrap_or(i64::MAX);
                let until = published.unix_seconds().saturating_add(seconds);
                (until > self.facts.policy_time).then(|| Reason::TooNew {
                    until,
                    min_age: min_age.to_string(),
                })
            }
            None => (self.settings.unknown_age == UnknownAge::Hold).then_some(Reason::UnknownAge),
        }
    }

    /// The next policy time at which a decision about the crate may change by itself, besides the ends in the reasons.
    pub(super) fn next_expiry(&self) -> Option<i64> {
        let file = &self.facts.file;
        file.next_expiry(&self.name, self.facts.policy_time)
    }
}

/// The versions that are not held, because they fix a vulnerability: for each requirement of an advisory the lowest stable
/// version that meets it, and no other. `>= 1.2.3` would otherwise exempt every later release.
fn fixes<'a>(
    advisories: &[&'a CrateAdvisory],
    lines: &[Option<Line<'_>>],
) -> HashMap<usize, &'a CrateAdvisory> {
    let mut fixes = HashMap::new();
    for advisory in advisories
        .iter()
        .filter(|advisory| advisory.exempts_fixes())
    {
        for requirement in &advisory.patched {
            let meets =
                |line: &Line<'_>| line.version.pre.is_empty() && requirement.matches(&line.version);
            let lowest = versions_in(lines)
                .filter(|(_, line)| meets(line))
                .min_by(|(_, left), (_, right)| left.version.cmp(&right.version));
            if let Some((place, _)) = lowest {
                fixes.entry(place).or_insert(*advisory);
            }
        }
    }
    fixes
}
