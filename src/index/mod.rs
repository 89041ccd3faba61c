//! The crate index: a local clone of the upstream git repository, and immutable views of it.
//!
//! A background task ([`Follower`]) clones and fetches. Each success gives a [`Source`]. The rules turn a source into a
//! [`View`], and [`IndexHandle`] publishes it. A request takes one view, with its git index, and keeps it to its end. A
//! mirror without a network imports an index that another mirror has exported. The advisory database is followed the same
//! way ([`AdvisoryTask`]). Only this module touches git2, and only on blocking threads. HTTP, the rules (`policy`) and the
//! meaning of index lines (`package`) are elsewhere.

mod advisory_db;
mod blocking_work;
mod bundle;
mod fetch_on_demand;
mod follow;
mod git;
mod handle;
mod ids;
mod limits;
mod look_up;
mod retry;
mod source;
mod status;
mod stop;
#[cfg(test)]
pub(crate) mod testing;
mod view;

pub(crate) use advisory_db::copy_on_disk::refresh_copy_on_disk;
pub(crate) use advisory_db::handle::{AdvisoryHandle, AdvisoryState};
pub(crate) use advisory_db::settings::AdvisorySettings;
pub(crate) use advisory_db::task::AdvisoryTask;
pub(crate) use blocking_work::on_blocking_thread;
pub(crate) use bundle::export::{ExportError, IndexExport, export_all, export_since};
pub(crate) use bundle::import::{ImportError, IndexImport, import, may_import};
pub(crate) use fetch_on_demand::RefreshOutcome;
pub(crate) use follow::follower::{Follower, FollowerEnd};
pub(crate) use follow::policy_facts::{PolicyFacts, PolicyLookup};
pub(crate) use follow::refresh_once::{RefreshOnceError, open_current, refresh_once};
pub(crate) use follow::served_index::{ServedFile, ServedIndex, ServedIndexSettings};
pub(crate) use follow::settings::{FollowerSettings, GitIndexSettings, Network};
pub(crate) use follow::stored_files::{IndexFilesOf, Stopping, StoredFiles};
pub(crate) use git::program::GitProgram;
pub(crate) use git::push::{PushEnvironment, Pusher, PusherSettings};
pub(crate) use git::upload_pack::{GitChild, GitIndex, GitProtocol, GitRequest, NamedCommit};
pub(crate) use handle::IndexHandle;
pub(crate) use ids::{BlobId, CommitId};
pub(crate) use limits::ReadError;
pub(crate) use retry::backoff;
pub(crate) use source::clone_dir::{check_writable, has_clone, refuses_for_good};
pub(crate) use source::fetch::{Outgoing, Redirects, list_references};
pub(crate) use source::libgit2::configure as configure_libgit2;
pub(crate) use source::local_upstream::check as check_local_upstream;
pub(crate) use source::remote_url::RemoteUrl;
pub(crate) use source::snapshot::Source;
pub use source::upkeep::UpkeepLimits;
pub(crate) use status::{FetchProgress, IndexStatus, Phase, PushStatus};
pub(crate) use stop::StopFlag;
pub(crate) use view::View;
pub(crate) use view::build::ListedFiles;
pub(crate) use view::changes::FileChange;
pub(crate) use view::listing::{CrateContent, ListedCrate, Listing, ShownFlag, ShownIndex};
pub(crate) use view::policy::PolicyId;
