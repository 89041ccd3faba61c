//! Errors of the index, with their causes.

use std::error::Error;

/// Why the index cannot be exported or imported. The text has all causes.
#[derive(Debug, thiserror::Error)]
#[error("{}", with_causes(.0.as_ref()))]
pub(crate) struct IndexError(#[source] Box<dyn Error + Send + Sync>);

impl IndexError {
    pub(super) fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// An error with its causes, each of them once.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
