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
    /// An internal error ended a background task.
    #[error("the task that {task} has ended: {source}")]
    Task {
        /// What it does.
        task: &'static str,
        /// The panic.
        source: JoinError,
    },
    /// Serving requests failed.
    #[error("serving has ended: {0}")]
    Serve(#[source] io::Error),
}
