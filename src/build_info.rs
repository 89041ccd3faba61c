//! Which build of the program this is.

/// The version of the package.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The first 12 digits of the commit that it was built from, or `unknown`. The build script finds it.
pub(crate) const COMMIT: &str = env!("MIRROR_COMMIT");
