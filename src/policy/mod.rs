//! Decides what is shown of the index, and why: pure functions over index lines.
//!
//! [`Rules`] decide about one version at a time, from its index line and from [`Facts`]. [`apply()`] applies them to a
//! whole index file. A rule can hide a version or change its yanked flag. It never changes another byte. There is no
//! I/O and no clock here: the time is a fact. `app` provides the facts, and `index::view` builds views.
//!
//! [`PolicyFile`] is what the operator has written about single crates.

mod age;
mod apply;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "no rule and no setting reads it yet")
)]
mod file;
mod rules;
mod settings;

pub(crate) use age::Age;
pub(crate) use apply::{Counts, ShownFile, apply};
pub(crate) use file::PolicyFile;
#[expect(unused_imports, reason = "for rules")]
pub(crate) use file::names::CrateMatch;
#[expect(unused_imports, reason = "for rules")]
pub(crate) use file::{Denial, Exemption, PolicyFileError};
pub(crate) use rules::{Facts, Rule, Rules};
pub(crate) use settings::{HeldDownloads, Mode, Settings, UnknownAge};
