//! The crate index: a local clone of the upstream git repository, and immutable snapshots of it.
//!
//! A background task ([`Refresher`]) clones and fetches; each success publishes a [`Snapshot`] through [`IndexHandle`].
//! Readers take one snapshot per request; git clients get a `ServedIndex`, the same index with a
//! `config.json` of our own. Without a network an index is exported from one mirror and imported into another, which may
//! show only what is held. Only this room touches git2, and it does so on blocking threads only. What
//! does not live here: HTTP, and what index lines mean.

mod answer_head;
mod borrowed;
mod clone_dir;
mod directory;
mod export;
mod fetch;
mod force;
mod handle;
mod holdings;
mod import;
mod large_files;
mod libgit2;
mod limits;
mod local_upstream;
mod look;
mod offline;
mod open;
mod overlay;
mod pack_writer;
mod proxied_http;
mod prune;
mod publish;
mod push;
mod redirects;
mod refresh;
mod refresh_error;
mod remote_url;
mod replace;
mod repository;
mod retry;
mod served;
mod settings;
mod snapshot;
mod status;
mod stop;
mod supervise;
#[cfg(test)]
pub(crate) mod testing;
mod trees;
mod upkeep;
mod visit;

pub(crate) use clone_dir::{check_writable, has_clone, refuses_for_good};
pub(crate) use export::{ExportError, IndexExport, export_all, export_since};
pub(crate) use force::RefreshOutcome;
pub(crate) use handle::IndexHandle;
pub(crate) use holdings::{Holdings, Stopping};
pub(crate) use import::{ImportError, IndexImport, import, may_import};
pub(crate) use libgit2::configure as configure_libgit2;
pub(crate) use limits::ReadError;
pub(crate) use local_upstream::check as check_local_upstream;
pub(crate) use open::{HeldIndex, RefreshOnceError, open_current, refresh_once};
pub(crate) use push::{PushEnvironment, Pusher, PusherSettings};
pub(crate) use redirects::Redirects;
pub(crate) use refresh::{Refresher, RefresherEnd};
pub(crate) use remote_url::{RemoteUrl, RemoteUrlError};
pub(crate) use served::{GitChild, GitProgram, GitProtocol, GitRequest};
pub(crate) use settings::{GitIndexSettings, Network, RefresherSettings};
pub(crate) use snapshot::{BlobId, CommitId, Snapshot};
pub(crate) use status::{IndexStatus, Phase, Progress, PushStatus};
pub use upkeep::UpkeepLimits;
