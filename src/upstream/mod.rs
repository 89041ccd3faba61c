//! Where crate files come from: the download templates, and fetching one file; and where an index has moved to.
//!
//! What does not live here: keeping crate files, and HTTP towards our own clients.

mod addresses;
mod answer;
mod client;
mod fetch;
mod redirect;
mod template;
mod templates;

pub use addresses::Resolver;
pub(crate) use client::ClientError;
pub use fetch::FetchLimits;
pub(crate) use fetch::{CrateSources, FetchError, Receiver, SourcesSettings};
pub(crate) use redirect::{RedirectSettings, find_redirect};
pub(crate) use template::{DownloadTemplate, TemplateError};
pub(crate) use templates::DownloadTemplates;
