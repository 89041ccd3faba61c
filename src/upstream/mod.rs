//! Where crate files come from: the download template.
//!
//! What does not live here: keeping crate files, and HTTP towards our own clients.

mod template;

pub(crate) use template::{DownloadTemplate, TemplateError};
