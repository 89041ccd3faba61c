//! What the mirror counts.
//!
//! There is no global state: the composition root makes one [`Metrics`] and hands its parts to the modules that count.
//! So two mirrors in one process share no counts. Values that another module has anyway, such as the age of the index,
//! are not here: `http::status::metrics` reads them at each scrape.

mod policy;
mod process;
mod requests;
mod timed;

pub(crate) use policy::{PolicyMetrics, PolicySurface};
pub(crate) use process::register_process;
pub(crate) use requests::{RequestMetrics, Route};
pub(crate) use timed::{FAILED, OK, TimedResults};

use std::sync::{Arc, OnceLock};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The beginning of all names, except of those about the process.
pub(crate) const PREFIX: &str = "crates_io_mirror";

/// The counts of one mirror.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// HTTP requests.
    pub(crate) requests: Arc<RequestMetrics>,
    /// What the policy has changed or refused.
    pub(crate) policy: PolicyMetrics,
    /// Open connections of clients.
    pub(crate) connections: Gauge,
    /// Running git processes.
    pub(crate) git_processes: Gauge,
    /// When the TLS certificate expires, in seconds since 1970; 0 without one.
    pub(crate) certificate_expiry: Gauge,
    /// Log events that were dropped. Not set if something else started the logging.
    pub(crate) dropped_log_events: OnceLock<Counter>,
}

impl Metrics {
    /// Adds these counts to a registry with the prefix [`PREFIX`].
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Arc::clone(&self.requests)));
        self.policy.register(registry);
        registry.register(
            "connections",
            "Open connections of clients",
            self.connections.clone(),
        );
        registry.register(
            "git_processes",
            "Running git processes, for git clients and for the push",
            self.git_processes.clone(),
        );
        if self.certificate_expiry.get() != 0 {
            registry.register(
                "tls_certificate_expiry_timestamp_seconds",
                "When the TLS certificate for new connections expires, in seconds since 1970",
                self.certificate_expiry.clone(),
            );
        }
        registry.register(
            "log_events_dropped",
            "Log events that were dropped because they came faster than they were read",
            self.dropped_log_events.get().cloned().unwrap_or_default(),
        );
    }
}

/// Counts one until this is dropped.
#[derive(Debug)]
pub(crate) struct CountedOne(Gauge);

impl CountedOne {
    /// Counts one more.
    pub(crate) fn of(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for CountedOne {
    fn drop(&mut self) {
        self.0.dec();
    }
}
