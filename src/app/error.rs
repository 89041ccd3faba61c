//! Why the mirror could not start, or ended by itself.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::task::JoinError;

use crate::outgoing::certificates;
use crate::store::StoreError;
use crate::upstream::ClientError;

/// Why the mirror could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use, or is not an address of this machine.
    #[error("PORT, BIND_ADDRESS: cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error("DATA_DIR: cannot write to `{}`: {source}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The store of crate files cannot be used.
    #[error("STORAGE_URL: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing can be fetched by `https`.
    #[error("{}", certificates::MISSING)]
    Certificates,
    /// Traces cannot be sent.
    #[cfg(feature = "otlp")]
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Traces(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// This machine cannot fetch crate files.
    #[error("DOWNLOAD_URL: {0}")]
    Upstream(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.into())
    }
}

impl From<ClientError> for StartError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::NoCertificates => Self::Certificates,
            ClientError::Library(_) => Self::Upstream(error.into()),
        }
    }
}

/// Why the mirror ended although nothing told it to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no index to serve, and waiting would not bring one.
    #[error("{0}")]
    Index(String),
    /// An internal error ended the task that follows the index.
    #[error("the task that refreshes the index has ended: {0}")]
    Refresh(#[source] JoinError),
    /// An internal error ended the task that pushes the index.
    #[error("the task that pushes the index has ended: {0}")]
    Push(#[source] JoinError),
    /// An internal error ended the task that keeps the catalog.
    #[error("the task that keeps the catalog has ended: {0}")]
    Catalog(#[source] JoinError),
    /// An internal error ended the task that follows the advisory database.
    #[error("the task that follows the advisory database has ended: {0}")]
    Advisories(#[source] JoinError),
    /// An internal error ended the task that writes the change journal.
    #[error("the task that writes the change journal has ended: {0}")]
    Journal(#[source] JoinError),
    /// An internal error ended the task that reads the certificate again.
    #[error("the task that follows the certificate has ended: {0}")]
    Certificate(#[source] JoinError),
    /// Serving requests failed.
    #[error("serving has ended: {0}")]
    Serve(#[source] io::Error),
}
