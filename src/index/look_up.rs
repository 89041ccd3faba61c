//! Look-ups of what `index` must not know by itself. `app` connects them.

use std::fmt;
use std::sync::Arc;

/// A look-up through a function, which may block. Cheap to clone.
pub(crate) struct LookUp<F: ?Sized>(Arc<F>);

impl<A> LookUp<dyn Fn() -> A + Send + Sync> {
    /// A look-up through this function.
    pub(crate) fn new(ask: impl Fn() -> A + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Looks it up. Blocking.
    pub(super) fn ask(&self) -> A {
        (self.0)()
    }
}

impl<Q: ?Sized, A> LookUp<dyn Fn(&Q) -> A + Send + Sync> {
    /// A look-up through this function.
    pub(crate) fn new(ask: impl Fn(&Q) -> A + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }

    /// Looks it up. Blocking.
    pub(super) fn ask(&self, question: &Q) -> A {
        (self.0)(question)
    }
}

impl<F: ?Sized> Clone for LookUp<F> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<F: ?Sized> fmt::Debug for LookUp<F> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("LookUp")
    }
}
