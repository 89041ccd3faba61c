//! What the policy says, as the documents of `/policy` and of `explain`.

use serde::Serialize;
use utoipa::ToSchema;

use super::apply::DecidedVersion;
use super::decision::{PolicyState, Reason};
use super::states::Totals;
use crate::package::Timestamp;

/// What the policy says about a version.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyOfVersion)]
pub(crate) struct VersionReport<'a> {
    /// The version as it was written.
    pub(crate) version: &'a str,
    /// `allowed`, `held`, `denied` or `frozen`.
    #[schema(value_type = String)]
    pub(crate) state: PolicyState,
    /// The rule that decides; null if none does.
    pub(crate) rule: Option<&'static str>,
    /// Why, in words.
    pub(crate) reason: Option<String>,
    /// When the state ends by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) until: Option<Timestamp>,
    /// When it was published, if the index says so.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub(crate) published: Option<&'a Timestamp>,
    /// Whether the upstream has yanked it.
    pub(crate) upstream_yanked: bool,
    /// Null for a version that is not served at all.
    pub(crate) served_yanked: Option<bool>,
}

impl<'a> VersionReport<'a> {
    /// The report about a version.
    pub(crate) fn of(decided: &'a DecidedVersion) -> Self {
        let reason = decided.reason.as_ref();
        let until = reason.and_then(Reason::until);
        Self {
            version: &decided.version,
            state: reason.map_or(PolicyState::Allowed, Reason::state),
            rule: reason.map(Reason::rule),
            reason: reason.map(|reason| reason.words(decided.published.as_ref())),
            until: until.and_then(Timestamp::from_unix_seconds),
            published: decided.published.as_ref(),
            upstream_yanked: decided.upstream_yanked,
            served_yanked: decided.served_yanked,
        }
    }
}

/// One version, with the name of its crate.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyOfOneVersion)]
pub(crate) struct OneVersion<'a> {
    #[serde(rename = "crate")]
    crate_name: &'a str,
    #[serde(flatten)]
    version: VersionReport<'a>,
}

impl<'a> OneVersion<'a> {
    /// The report about a version.
    pub(crate) fn of(decided: &'a DecidedVersion) -> Self {
        Self {
            crate_name: &decided.name,
            version: VersionReport::of(decided),
        }
    }
}

/// Versions of a crate, in the order of the index.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PolicyOfCrate)]
pub(crate) struct AllVersions<'a> {
    #[serde(rename = "crate")]
    crate_name: &'a str,
    versions: Vec<VersionReport<'a>>,
}

impl<'a> AllVersions<'a> {
    /// The report about these versions, which are of one crate.
    pub(crate) fn of(versions: impl IntoIterator<Item = &'a DecidedVersion>) -> Self {
        let mut versions = versions.into_iter().peekable();
        Self {
            crate_name: versions.peek().map_or("", |first| &first.name),
            versions: versions.map(VersionReport::of).collect(),
        }
    }
}

/// How many versions are in which state.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = PolicyTotals)]
pub(crate) struct VersionCounts {
    /// Versions that are held.
    pub(crate) held: u64,
    /// Versions that are denied.
    pub(crate) denied: u64,
    /// Versions that the yank guard keeps unyanked.
    pub(crate) frozen: u64,
    /// Lines that are left out, because they cannot be edited.
    pub(crate) left_out: u64,
    /// Lines without a publish time.
    pub(crate) without_publish_time: u64,
}

impl From<&Totals> for VersionCounts {
    fn from(totals: &Totals) -> Self {
        Self {
            held: totals.held,
            denied: totals.denied,
            frozen: totals.frozen,
            left_out: totals.left_out,
            without_publish_time: totals.without_time,
        }
    }
}
