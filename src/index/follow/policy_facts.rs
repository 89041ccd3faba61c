//! The look-up of what the policy is decided from. `app` connects it to the policy file and to the advisories.

use std::fmt;
use std::sync::Arc;

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

type Ask = dyn Fn() -> PolicyFacts + Send + Sync;

/// Looks up what the policy is decided from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct PolicyLookup(Arc<Ask>);

impl PolicyLookup {
    /// A look-up through this function, which may read a file.
    pub(crate) fn new(ask: impl Fn() -> PolicyFacts + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Looks it up. Blocking.
    pub(super) fn ask(&self) -> PolicyFacts {
        (self.0)()
    }
}

impl fmt::Debug for PolicyLookup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PolicyLookup")
    }
}
