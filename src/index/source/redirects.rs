//! A look-up for an upstream that redirects to another host. libgit2 would follow a redirect to any address, so it
//! follows none to another host. `app` decides which addresses are allowed.

use std::fmt;
use std::sync::Arc;

type Find = dyn Fn(&str) -> Result<String, String> + Send + Sync;

/// Finds the target of a redirect, or returns why it is not followed. Cheap to clone. Blocking.
#[derive(Clone)]
pub(crate) struct Redirects(Arc<Find>);

impl Redirects {
    /// A look-up through this function, which gets the address of a repository.
    pub(crate) fn new(
        find: impl Fn(&str) -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(find))
    }

    /// Returns the new address of this repository.
    pub(crate) fn find(&self, address: &str) -> Result<String, String> {
        (self.0)(address)
    }
}

impl fmt::Debug for Redirects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Redirects")
    }
}
