//! How connections are served.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;

use super::exchange::{Connection, Draining};
use super::peer::TrustedProxies;
use super::shares::Shares;
use super::tls::CurrentCertificate;

/// The settings from the composition root.
#[derive(Debug)]
pub(crate) struct ServerSettings {
    /// How many threads serve connections.
    pub(crate) workers: NonZeroUsize,
    /// How many connections may be open at a time.
    pub(crate) connections_max: usize,
    /// Counts the open connections.
    pub(crate) connections: Gauge,
    /// How long requests in progress may take after the mirror was told to stop.
    pub(crate) drain_max: Duration,
    /// How long clients may take.
    pub(crate) limits: Limits,
    /// The certificate, if the port speaks TLS.
    pub(crate) certificate: Option<CurrentCertificate>,
    /// The account of the memory that is kept for clients.
    pub(crate) account: Shares,
    /// Proxies that are trusted to name the client.
    pub(crate) trusted_proxies: TrustedProxies,
}

/// A connection, with what it needs until it ends.
pub(super) struct Serving<A> {
    pub(super) connection: Arc<Connection>,
    pub(super) application: A,
    pub(super) settings: Arc<ServerSettings>,
    pub(super) draining: Draining,
}

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest wait for the head of a request. With HTTP/1 this counts for the first request and for each later one on
    /// a connection that is kept open.
    pub(crate) head_wait_max: Duration,
    /// The longest wait for the end of a TLS handshake.
    pub(crate) handshake_max: Duration,
    /// The longest wait for a client to accept the next piece of an answer. A client that stalls occupies memory.
    pub(crate) write_stall_max: Duration,
    /// The longest time without a request on an HTTP/2 connection. It is longer than with HTTP/1, because cargo sends
    /// all its requests on one connection.
    pub(crate) idle_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_wait_max: Duration::from_secs(60),
            handshake_max: Duration::from_secs(15),
            write_stall_max: Duration::from_secs(30),
            idle_max: Duration::from_secs(120),
        }
    }
}
