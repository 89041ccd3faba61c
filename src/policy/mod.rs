//! Decides what is shown of the index, and why: pure functions over index lines.
//!
//! [`Rules`] decide about one version at a time, from its index line and from [`Facts`]. [`apply()`] applies them to a
//! whole index file. A rule can hide a version or change its yanked flag. It never changes another byte. There is no
//! I/O and no clock here: the time is a fact. `app` provides the facts, and `index::view` builds views. [`Advisories`] are
//! read from the files of a database.

mod advisories;
mod age;
mod apply;
mod rules;

pub(crate) use advisories::{
    ADVISORY_BYTES_MAX, Advisories, AdvisoryReader, CrateAdvisory, TooLarge,
};
pub(crate) use age::Age;
pub(crate) use apply::{Counts, ShownFile, apply};
pub(crate) use rules::{Facts, Rule, Rules};
