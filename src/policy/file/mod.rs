//! `POLICY_FILE`: what the operator denies, allows and exempts.
//!
//! The file is TOML. cargo-deny's `deny.toml` is a valid file: `[bans] deny`, `[bans] allow` and `[advisories] ignore` are
//! read, and `[mirror]` is our own. `read` reads the text, `spec` one crate in it, `entries` is a list with a quick look-up,
//! and `names` are sets of crates.

mod entries;
pub(super) mod names;
mod read;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use semver::Version;

use self::entries::Entries;
use self::names::CrateMatch;
use super::age::Age;
use crate::package::Timestamp;

/// The number of warnings of a file. One more says how many others there are.
const WARNINGS_MAX: usize = 20;

/// What a policy file says.
///
/// Without a file, which is the default, nothing is denied and everything is allowed.
///
/// Names of crates are canonical in all questions: in lower case, with `_` for `-` ([`crate::package::canonical`]). A
/// question reads one entry of a hash map, and one for each length of the patterns in the list.
#[derive(Debug, Default)]
pub(crate) struct PolicyFile {
    /// `[bans] deny`
    denials: Entries<Denial>,
    /// `[bans] allow`; `None` if the list is empty or `use-bans-allow` is off.
    allowed: Option<Entries<()>>,
    /// `[mirror] exempt`
    exemptions: Entries<Exemption>,
    /// `[mirror] age`
    ages: Entries<Age>,
    /// `[advisories] ignore`: ids of advisories.
    ignored: BTreeSet<String>,
    /// The first ones of reading the file.
    warnings: Vec<String>,
    /// How many there were in all.
    warnings_count: usize,
    /// The SHA-256 of its text; empty without a file.
    pub(crate) digest: String,
    /// Whether its text is only white space: there is a file, and nothing in it, not even a comment.
    pub(crate) is_blank: bool,
}

/// An entry of `[bans] deny`. Both texts are short, and on one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Denial {
    /// Why the crate is denied.
    pub(crate) reason: Option<String>,
    /// What to use instead: a crate or a URL.
    pub(crate) use_instead: Option<String>,
}

/// An entry of `[mirror] exempt`: versions that are never held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exemption {
    /// Why they are exempt: a short text on one line.
    pub(crate) reason: Option<String>,
    /// From when on they no longer are, in seconds since 1970.
    pub(crate) expires: Option<i64>,
}

/// Why a text is no policy file. The message is one short line without control characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PolicyFileError {
    /// The text is too large.
    #[error("it has more than {} bytes", PolicyFile::BYTES_MAX)]
    TooLarge,
    /// Something in it is wrong.
    #[error("line {line}: {what}")]
    Wrong {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        what: String,
    },
}

impl PolicyFile {
    /// The size of a policy file.
    pub(crate) const BYTES_MAX: usize = 1 << 20;

    /// What works, but is probably not what the operator means, one line each: entries that are passed over, and
    /// exemptions that have expired at this time. Bounded.
    pub(crate) fn warnings(&self, policy_time: i64) -> Vec<String> {
        let mut warnings = self.warnings.clone();
        let mut count = self.warnings_count;
        for (spec, exemption) in self.exemptions.iter() {
            let expired = exemption
                .expires
                .filter(|_| !exemption.is_valid(policy_time));
            let Some(expires) = expired else { continue };
            count += 1;
            if warnings.len() < WARNINGS_MAX {
                let expires = Timestamp::from_unix_seconds(expires);
                let expires = expires.unwrap_or_else(Timestamp::epoch);
                warnings.push(format!(
                    "the exemption of `{spec}` has expired at {expires}"
                ));
            }
        }
        if count > warnings.len() {
            warnings.push(format!("{} more warnings", count - warnings.len()));
        }
        warnings
    }

    /// The entry that denies this version.
    pub(crate) fn denial(&self, name: &str, version: &Version) -> Option<&Denial> {
        self.denials.first(name, version, |_| true)
    }

    /// Whether the allow list has this version. Without a list it has every version.
    pub(crate) fn is_allowed(&self, name: &str, version: &Version) -> bool {
        let listed = |list: &Entries<()>| list.first(name, version, |()| true).is_some();
        self.allowed.as_ref().is_none_or(listed)
    }

    /// The first entry that exempts this version and has not expired at this time.
    pub(crate) fn exemption(
        &self,
        name: &str,
        version: &Version,
        policy_time: i64,
    ) -> Option<&Exemption> {
        let is_valid = |exemption: &Exemption| exemption.is_valid(policy_time);
        self.exemptions.first(name, version, is_valid)
    }

    /// The minimum publish age of the first entry for this version.
    pub(crate) fn min_age(&self, name: &str, version: &Version) -> Option<&Age> {
        self.ages.first(name, version, |_| true)
    }

    /// Whether the advisory with this id denies nothing.
    pub(crate) fn ignores(&self, advisory_id: &str) -> bool {
        self.ignored.contains(advisory_id)
    }

    /// Whether an entry may deny a version, or the allow list may.
    pub(crate) fn can_refuse(&self) -> bool {
        !self.denials.is_empty() || self.allowed.is_some()
    }

    /// Whether an entry has a minimum publish age above 0.
    pub(crate) fn can_hold(&self) -> bool {
        self.ages.iter().any(|(_spec, age)| !age.is_zero())
    }

    /// The crates about which this file at the time `from` and another one at the time `to` may say different things.
    /// Times are in seconds since 1970. The answer may have too many crates, never too few. It does not have those of
    /// ignored advisories: only the advisories know which crates they are about.
    pub(crate) fn may_differ(&self, from: i64, other: &Self, to: i64) -> CrateMatch {
        let mut crates = CrateMatch::default();
        self.denials.add_differing(&other.denials, &mut crates);
        self.exemptions
            .add_differing(&other.exemptions, &mut crates);
        self.ages.add_differing(&other.ages, &mut crates);
        match (&self.allowed, &other.allowed) {
            (None, None) => {}
            (Some(list), Some(others)) => list.add_differing(others, &mut crates),
            (Some(_), None) | (None, Some(_)) => crates.add_all(),
        }
        for (spec, exemption) in self.exemptions.iter() {
            if exemption.is_valid(from) != exemption.is_valid(to) {
                crates.add(&spec.names);
            }
        }
        crates
    }

    /// The next time, in seconds since 1970, at which an exemption that could be about this crate expires.
    pub(crate) fn next_expiry(&self, name: &str, policy_time: i64) -> Option<i64> {
        let exemptions = self.exemptions.about(name);
        let expiries = exemptions.filter_map(|exemption| exemption.expires);
        expiries.filter(|expires| *expires > policy_time).min()
    }
}

impl Exemption {
    fn is_valid(&self, policy_time: i64) -> bool {
        self.expires.is_none_or(|expires| policy_time < expires)
    }
}
