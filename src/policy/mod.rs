//! What is shown of the index, and why: pure functions over index lines.
//!
//! [`Rules`] decide about one version at a time, from its line and from [`Facts`]. [`apply`] decides about a whole index
//! file. There is no I/O here and no clock: the time is a fact. A rule may hide a version or change its yanked flag, and
//! never touches another byte. What does not live here: where facts come from, and how a view of the index is made
//! (`index::view`).

mod apply;
mod rules;

pub(crate) use apply::{Counts, ShownFile, apply};
pub(crate) use rules::{Facts, Rule, Rules};
