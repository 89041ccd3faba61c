//! Work that takes milliseconds to minutes and succeeds or fails: fetches of the index, requests to upstreams.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The result of what succeeded.
pub(crate) const OK: &str = "ok";

/// The result of what failed, and may succeed later.
pub(crate) const FAILED: &str = "failed";

/// Upper limits of the buckets, in seconds.
const BUCKETS: [f64; 10] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];

/// How often there was which result, and how long it took. Cheap to clone. Noting takes a lock, so this is not for requests
/// of clients.
#[derive(Clone, Debug)]
pub(crate) struct TimedResults {
    counts: Family<Vec<(&'static str, String)>, Counter>,
    duration: Histogram,
}

impl Default for TimedResults {
    fn default() -> Self {
        Self {
            counts: Family::default(),
            duration: Histogram::new(BUCKETS),
        }
    }
}

impl TimedResults {
    /// Makes the series of these results, so that each one begins with 0. `upstream` is a host name.
    pub(crate) fn begin(&self, results: &[&str], upstream: Option<&str>) {
        for result in results {
            drop(self.counts.get_or_create(&labels(result, upstream)));
        }
    }

    /// Counts one result.
    pub(crate) fn note(&self, result: &str, upstream: Option<&str>, took: Duration) {
        self.counts.get_or_create(&labels(result, upstream)).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Adds both to a registry: how often by a name without `_total`, how long by another name.
    pub(crate) fn register(
        &self,
        registry: &mut Registry,
        (count, count_help): (&str, &str),
        (duration, duration_help): (&str, &str),
    ) {
        registry.register(count, count_help, self.counts.clone());
        registry.register(duration, duration_help, self.duration.clone());
    }
}

fn labels(result: &str, upstream: Option<&str>) -> Vec<(&'static str, String)> {
    let upstream = upstream.map(|host| ("upstream", host.to_owned()));
    let result = ("result", result.to_owned());
    upstream.into_iter().chain([result]).collect()
}
