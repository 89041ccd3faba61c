//! The yank guard: a mass yank of old versions beside a fresh release may be an attack that leads resolvers to the fresh
//! one.

use std::collections::{BTreeMap, HashSet};

use semver::{Comparator, Op, VersionReq};
use serde::{Deserialize, Serialize};

use super::line::{Line, versions_in};

/// How old a version must be for its yank to be suspicious, in seconds: broken releases are yanked sooner.
const OLD_SECONDS: i64 = 30 * 86_400;

/// When yanks were seen: by crate (the name of its index file) and version, in seconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub(crate) struct SeenYanks {
    crates: BTreeMap<String, BTreeMap<String, i64>>,
}

impl SeenYanks {
    /// Notes that a version went from unyanked to yanked.
    pub(crate) fn note(&mut self, crate_name: &str, version: &str, at: i64) {
        let versions = self.crates.entry(crate_name.to_owned()).or_default();
        // Seen before, in a refresh that failed later: the first time counts.
        versions.entry(version.to_owned()).or_insert(at);
    }

    /// Notes that a version is not yanked any more, or gone.
    pub(crate) fn forget(&mut self, crate_name: &str, version: &str) {
        if let Some(versions) = self.crates.get_mut(crate_name) {
            versions.remove(version);
            if versions.is_empty() {
                self.crates.remove(crate_name);
            }
        }
    }

    /// Whether there are yanks that cannot matter any more.
    pub(crate) fn has_old_ones(&self, guard: i64, now: i64) -> bool {
        let mut all = self.crates.values();
        all.any(|versions| is_over(versions, guard, now))
    }

    /// Drops the yanks that cannot matter any more.
    pub(crate) fn prune(&mut self, guard: i64, now: i64) {
        self.crates
            .retain(|_name, versions| !is_over(versions, guard, now));
    }

    /// The yanks of a crate.
    pub(super) fn of(&self, crate_name: &str) -> Option<&BTreeMap<String, i64>> {
        self.crates.get(crate_name)
    }

    /// The crates with other yanks than in `other`.
    pub(super) fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a str> {
        let names = self.crates.keys().chain(other.crates.keys());
        let differs = |name: &&String| self.of(name) != other.of(name);
        names.filter(differs).map(String::as_str)
    }
}

/// Whether no yank of a crate can matter any more. A freeze counts from the first yank of a series. So the yanks of a crate
/// stay together: without its first yank a series would end at another time.
fn is_over(versions: &BTreeMap<String, i64>, guard: i64, now: i64) -> bool {
    let newest = versions.values().max();
    newest.is_none_or(|seen| seen.saturating_add(guard) < now)
}

/// A crate that is frozen.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Freeze {
    /// When it ends, in seconds since 1970.
    pub(super) until: i64,
    /// Old versions that stay unyanked: places in the list of lines.
    pub(super) old: HashSet<usize>,
    /// Fresh versions that are held: places in the list of lines.
    pub(super) fresh: HashSet<usize>,
}

/// Looks for a suspicious mass yank. `guard` is its length in seconds. `is_honest` says of an old and a fresh version that
/// this yank is all right.
pub(super) fn freeze(
    lines: &[Option<Line<'_>>],
    seen: &BTreeMap<String, i64>,
    (guard, now): (i64, i64),
    is_honest: impl Fn(&Line<'_>, &Line<'_>) -> bool,
) -> Option<Freeze> {
    let first_seen = seen.values().min()?;
    // Few versions are as fresh as that, so the pairs below are few, too.
    let fresh: Vec<(usize, &Line<'_>, i64)> = versions_in(lines)
        .filter(|(_, line)| !line.yanked)
        .filter_map(|(place, line)| {
            let published = line.published.as_ref()?.unix_seconds();
            (published >= first_seen.saturating_sub(guard)).then_some((place, line, published))
        })
        .collect();
    // When the yank was seen, the old version, the fresh one.
    let mut pairs: Vec<(i64, usize, usize)> = Vec::new();
    for (old_place, old) in versions_in(lines).filter(|(_, line)| line.yanked) {
        let Some(seen) = seen.get(&*old.text) else {
            continue;
        };
        // Only lines that crates.io has not touched for long have no publish time.
        let published = old.published.as_ref().map(|time| time.unix_seconds());
        if published.is_some_and(|published| seen.saturating_sub(published) < OLD_SECONDS) {
            continue;
        }
        let range = caret(&old.version);
        for (fresh_place, fresh, published) in &fresh {
            let is_higher = fresh.version > old.version && range.matches(&fresh.version);
            let is_fresh = *published >= seen.saturating_sub(guard);
            if is_higher && is_fresh && !is_honest(old, fresh) {
                pairs.push((*seen, old_place, *fresh_place));
            }
        }
    }
    pairs.sort_unstable();
    // The freeze counts from its first yank. A yank after its end begins a new one.
    let mut began = pairs.first()?.0;
    for (seen, ..) in &pairs {
        if *seen >= began.saturating_add(guard) {
            began = *seen;
        }
    }
    let until = began.saturating_add(guard);
    if now >= until {
        return None;
    }
    let current = pairs.iter().filter(|(seen, ..)| *seen >= began);
    Some(Freeze {
        until,
        old: current.clone().map(|(_, old, _)| *old).collect(),
        fresh: current.map(|(_, _, fresh)| *fresh).collect(),
    })
}

/// The versions that cargo takes for compatible updates of this one.
pub(super) fn caret(version: &semver::Version) -> VersionReq {
    VersionReq {
        comparators: vec![Comparator {
            op: Op::Caret,
            major: version.major,
            minor: Some(version.minor),
            patch: Some(version.patch),
            pre: version.pre.clone(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400;
    /// 2026-08-20T00:00:00Z.
    const NOW: i64 = 1_787_184_000;

    fn file(rows: &[(&str, i64, bool)]) -> String {
        let line = |(version, days, yanked): &(&str, i64, bool)| {
            let time = crate::package::Timestamp::from_unix_seconds(NOW - days * DAY).unwrap();
            format!(r#"{{"name":"a","vers":"{version}","yanked":{yanked},"pubtime":"{time}"}}"#)
        };
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn found(
        rows: &[(&str, i64, bool)],
        seen: &[(&str, i64)],
        now: i64,
    ) -> Option<(i64, usize, usize)> {
        let file = file(rows);
        let lines: Vec<_> = file
            .lines()
            .map(|line| Line::parse(line.as_bytes()))
            .collect();
        let seen = seen
            .iter()
            .map(|(version, at)| ((*version).to_owned(), *at))
            .collect();
        let freeze = freeze(&lines, &seen, (3 * DAY, now), |_, _| false)?;
        Some((freeze.until, freeze.old.len(), freeze.fresh.len()))
    }

    #[test]
    fn a_mass_yank_beside_a_fresh_release_freezes_the_crate_for_a_while() {
        let rows = [
            ("0.3.5", 900, true),
            ("0.3.9", 400, true),
            ("0.3.10", 0, false),
        ];
        let seen = [("0.3.5", NOW), ("0.3.9", NOW + 60)];
        let until = NOW + 3 * DAY;
        assert_eq!(found(&rows, &seen, NOW + 60), Some((until, 2, 1)));
        assert_eq!(found(&rows, &seen, until - 1), Some((until, 2, 1)));
        assert_eq!(found(&rows, &seen, until), None);
        assert_eq!(found(&rows, &[], NOW), None);
        let later = [("0.3.5", NOW), ("0.3.9", until)];
        let rows = [
            ("0.3.5", 900, true),
            ("0.3.9", 400, true),
            ("0.3.10", -3, false),
        ];
        assert_eq!(found(&rows, &later, until), Some((until + 3 * DAY, 1, 1)));
    }

    #[test]
    fn honest_yanks_pass() {
        let seen = [("1.0.0", NOW)];
        for rows in [
            // A retired crate has no fresh release.
            [("1.0.0", 900, true), ("1.1.0", 4, false)],
            // A broken release is yanked after its fix.
            [("1.0.0", 29, true), ("1.0.1", 0, false)],
            // The fresh release is no update of the old one.
            [("1.0.0", 900, true), ("2.0.0", 0, false)],
            [("1.0.0", 900, true), ("0.9.0", 0, false)],
            [("1.0.0", 900, true), ("1.1.0-rc.1", 0, false)],
            // It is yanked, too; the yank was undone.
            [("1.0.0", 900, true), ("1.1.0", 0, true)],
            [("1.0.0", 900, false), ("1.1.0", 0, false)],
        ] {
            assert_eq!(found(&rows, &seen, NOW), None, "{rows:?}");
        }
        let rows = [("1.0.0", 30, true), ("1.1.0", 3, false)];
        assert_eq!(
            found(&rows, &seen, NOW),
            Some((NOW + 3 * DAY, 1, 1)),
            "at the limits"
        );
    }

    #[test]
    fn the_yanks_of_a_crate_are_forgotten_together() {
        let mut seen = SeenYanks::default();
        let at = [
            ("1.0.0", NOW),
            ("1.1.0", NOW + 2 * DAY),
            ("1.2.0", NOW + 4 * DAY),
        ];
        for (version, at) in at {
            seen.note("a", version, at);
        }
        seen.note("b", "1.0.0", NOW);
        // The third yank began a new freeze. Without the first one it would continue that of the second one.
        let rows = [
            ("1.0.0", 900, true),
            ("1.1.0", 800, true),
            ("1.2.0", 700, true),
            ("1.3.0", -3, false),
        ];
        let until = NOW + 7 * DAY;
        for now in [NOW + 6 * DAY, until - 1, until] {
            seen.prune(3 * DAY, now);
            let of_a: Vec<_> = seen
                .of("a")
                .unwrap()
                .iter()
                .map(|(text, at)| (text.as_str(), *at))
                .collect();
            assert_eq!(of_a, at);
            assert!(seen.of("b").is_none());
            let is_frozen = found(&rows, &of_a, now).is_some();
            assert_eq!(is_frozen, now < until);
        }
        assert!(!seen.has_old_ones(3 * DAY, until) && seen.has_old_ones(3 * DAY, until + 1));
        seen.prune(3 * DAY, until + 1);
        assert_eq!(seen, SeenYanks::default());
    }
}
