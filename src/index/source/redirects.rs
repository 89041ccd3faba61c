//! Where an upstream that has moved to another host is now. libgit2 would follow it anywhere, so it follows nothing of
//! that kind by itself; who composes the mirror knows which addresses are allowed.

use std::fmt;
use std::sync::Arc;

type Find = dyn Fn(&str) -> Result<String, String> + Send + Sync;

/// Finds the address that a redirect leads to, or says why it is not followed. Cheap to clone; finding blocks.
#[derive(Clone)]
pub(crate) struct Redirects(Arc<Find>);

impl Redirects {
    /// Found by this, which gets the address of a repository.
    pub(crate) fn new(
        find: impl Fn(&str) -> Result<String, String> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(find))
    }

    /// Where this repository is now.
    pub(crate) fn find(&self, address: &str) -> Result<String, String> {
        (self.0)(address)
    }
}

impl fmt::Debug for Redirects {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Redirects")
    }
}
