//! The look-up of what the policy is decided from. `app` connects it to the policy file and to the advisories.

use std::sync::Arc;

use crate::index::look_up::LookUp;
use crate::policy::{Advisories, PolicyFile};

/// What the policy is decided from, beside the index.
#[derive(Clone, Debug, Default)]
pub(crate) struct PolicyFacts {
    /// The policy file: the last good one.
    pub(crate) file: Arc<PolicyFile>,
    /// Why the file on the disk is not the one in force.
    pub(crate) file_error: Option<String>,
    /// The advisories; `None` without a database.
    pub(crate) advisories: Option<Arc<Advisories>>,
}

/// Looks up what the policy is decided from.
pub(crate) type PolicyLookup = LookUp<dyn Fn() -> PolicyFacts + Send + Sync>;
