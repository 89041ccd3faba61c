//! Decides what is shown of the index, and why: pure functions over index lines.
//!
//! [`Rules`] decide about the versions of a crate, from its index file and from [`Facts`]. [`apply()`] applies them to a
//! whole index file. A rule can hide a version or change its yanked flag. It never changes another byte. There is no
//! I/O and no clock here: the time is a fact. `app` provides the facts, and `index::view` builds views.
//!
//! [`PolicyFile`] is what the operator has written about single crates.

mod advisories;
mod age;
mod apply;
mod crate_policy;
mod decision;
mod file;
mod line;
mod report;
mod rules;
mod settings;
mod states;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod yank_guard;

pub(crate) use advisories::{ADVISORY_BYTES_MAX, Advisories, AdvisoryReader, TooLarge};
pub(crate) use age::Age;
pub(crate) use apply::{
    Counts, DecidedVersion, FileState, ShownFile, apply, decisions, version_instead,
};
pub(crate) use decision::{PolicyState, Reason};
pub(crate) use file::PolicyFile;
pub(crate) use line::Line;
pub(crate) use report::{AllVersions, OneVersion, VersionCounts, VersionReport};
pub(crate) use rules::{DECISIONS, Facts, Rule, Rules};
pub(crate) use settings::{HeldDownloads, Mode, Settings, UnknownAge};
pub(crate) use states::{States, Totals};
pub(crate) use yank_guard::SeenYanks;
