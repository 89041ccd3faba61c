//! Where crate files come from: download templates, and fetching one file. Also: where an index has moved to.
//!
//! Storing crate files is the task of `store`, answering clients the task of `http`.

mod addresses;
mod answer;
mod client;
mod fetch;
mod redirect;
mod template;
mod templates;

pub use addresses::Resolver;
pub(crate) use answer::FetchError;
pub use client::FetchLimits;
pub(crate) use client::{ClientError, ClientSettings};
pub(crate) use fetch::{CrateSources, Receiver};
pub(crate) use redirect::{check_answers, find_redirect};
pub(crate) use template::DownloadTemplate;
pub(crate) use templates::DownloadTemplates;
