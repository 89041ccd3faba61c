//! Requests: how many, how long they took, how many bytes were sent.
//!
//! This is on the way of every request, so counting takes no lock and no memory: each count is a number in an array
//! (`benches/counting.rs`). Clients choose none of the labels freely: routes come from the URL table, and an unknown method
//! or status counts as `other`.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::metrics::gauge::ConstGauge;

/// How many routes can have counts of their own. The URL table has about half as many.
const ROUTES_MAX: usize = 96;

/// The methods that mean something here.
const METHODS: [&str; 8] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "other",
];

/// The status codes that the mirror sends, in ascending order. [`NO_ANSWER`] stands for a client that left before.
const STATUSES: [u16; 36] = [
    NO_ANSWER, 200, 201, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408,
    409, 410, 411, 412, 413, 414, 415, 416, 417, 422, 429, 431, 500, 501, 502, 503, 504, 505,
];

/// In the place of a status: the request ended without an answer.
const NO_ANSWER: u16 = 0;

/// Upper limits of the buckets, in seconds: a redirect takes 10 µs, a large crate file over a slow line minutes.
const BUCKETS: [f64; 11] = [
    0.000_03, 0.000_1, 0.000_5, 0.002, 0.01, 0.05, 0.2, 1.0, 5.0, 30.0, 300.0,
];

/// A route, as the place of its counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route(usize);

impl Route {
    /// Whatever belongs to no route.
    pub(crate) const OTHER: Self = Self(0);
    /// An index file.
    pub(crate) const INDEX_FILE: Self = Self(1);
    /// A crate file.
    pub(crate) const DOWNLOAD: Self = Self(2);
    /// A crate file, by a path of crates.io's CDN.
    pub(crate) const CDN_DOWNLOAD: Self = Self(3);
    const LIVE: Self = Self(4);
    const READY: Self = Self(5);
    const METRICS: Self = Self(6);

    /// Whether platforms ask for it every few seconds.
    pub(crate) fn is_probe(self) -> bool {
        [Self::LIVE, Self::READY, Self::METRICS].contains(&self)
    }
}

/// The templates of the constants above. Others get the next places when they are first used.
const FIRST_ROUTES: [&str; 7] = [
    "other",
    "/index/{path}",
    "/api/v1/crates/{name}/{version}/download",
    "/crates/{name}/{version}/download",
    "/livez",
    "/readyz",
    "/metrics",
];

/// See the module.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    in_flight: AtomicI64,
    routes: [OnceLock<Box<RouteMetrics>>; ROUTES_MAX],
}

#[derive(Debug)]
struct RouteMetrics {
    template: String,
    counts: [[AtomicU64; STATUSES.len() + 1]; METHODS.len()],
    /// Not cumulative. The last one has no limit.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
    bytes: AtomicU64,
}

impl RouteMetrics {
    fn new(template: &str) -> Box<Self> {
        Box::new(Self {
            template: template.to_owned(),
            counts: [const { [const { AtomicU64::new(0) }; STATUSES.len() + 1] }; METHODS.len()],
            buckets: [const { AtomicU64::new(0) }; BUCKETS.len() + 1],
            nanoseconds: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let metrics = Self {
            in_flight: AtomicI64::new(0),
            routes: [const { OnceLock::new() }; ROUTES_MAX],
        };
        for template in FIRST_ROUTES {
            metrics.route(template);
        }
        metrics
    }
}

impl RequestMetrics {
    /// The place of a route. Its template comes from the URL table, never from a client.
    pub(crate) fn route(&self, template: &str) -> Route {
        for (place, slot) in self.routes.iter().enumerate() {
            let metrics = slot.get_or_init(|| RouteMetrics::new(template));
            if metrics.template == template {
                return Route(place);
            }
        }
        Route::OTHER
    }

    /// The template of a route; `None` for what belongs to no route.
    #[cfg(feature = "otlp")]
    pub(crate) fn template(&self, route: Route) -> Option<&str> {
        let metrics = self.routes.get(route.0).and_then(OnceLock::get);
        metrics
            .filter(|_| route != Route::OTHER)
            .map(|metrics| metrics.template.as_str())
    }

    /// A request has begun.
    pub(crate) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    /// A request has ended: its answer was sent or cut, or there was none (`status` is `None`).
    pub(crate) fn end(
        &self,
        route: Route,
        method: &str,
        status: Option<u16>,
        took: Duration,
        bytes: u64,
    ) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        let Some(metrics) = self.routes.get(route.0).and_then(OnceLock::get) else {
            return;
        };
        let methods = METHODS.iter().position(|known| *known == method);
        let methods = methods.unwrap_or(METHODS.len() - 1);
        let status = STATUSES.binary_search(&status.unwrap_or(NO_ANSWER));
        let status = status.unwrap_or(STATUSES.len());
        if let Some(count) = metrics.counts.get(methods).and_then(|row| row.get(status)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|limit| seconds <= *limit);
        if let Some(count) = metrics.buckets.get(bucket.unwrap_or(BUCKETS.len())) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        metrics
            .nanoseconds
            .fetch_add(nanoseconds, Ordering::Relaxed);
        if bytes > 0 {
            metrics.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    fn used(&self) -> impl Iterator<Item = &RouteMetrics> {
        self.routes
            .iter()
            .filter_map(OnceLock::get)
            .map(Box::as_ref)
    }

    fn encode_counts(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for route in self.used() {
            for (method, row) in METHODS.iter().zip(&route.counts) {
                for (place, count) in row.iter().enumerate() {
                    let count = count.load(Ordering::Relaxed);
                    if count == 0 {
                        continue;
                    }
                    let status = match STATUSES.get(place) {
                        Some(&NO_ANSWER) => "none".to_owned(),
                        Some(status) => status.to_string(),
                        None => "other".to_owned(),
                    };
                    let labels = [
                        ("route", route.template.as_str()),
                        ("method", method),
                        ("status", status.as_str()),
                    ];
                    ConstCounter::new(count).encode(encoder.encode_family(&labels)?)?;
                }
            }
        }
        Ok(())
    }

    fn encode_durations(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for route in self.used() {
            let mut total = 0;
            let limits = BUCKETS.into_iter().chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = limits
                .zip(&route.buckets)
                .map(|(limit, count)| {
                    let count = count.load(Ordering::Relaxed);
                    total += count;
                    (limit, count)
                })
                .collect();
            let sum = Duration::from_nanos(route.nanoseconds.load(Ordering::Relaxed));
            encoder
                .encode_family(&[("route", route.template.as_str())])?
                .encode_histogram(
                    sum.as_secs_f64(),
                    total,
                    &buckets,
                    None::<&std::collections::HashMap<usize, Exemplar<[(&str, &str); 0], f64>>>,
                )?;
        }
        Ok(())
    }

    fn encode_bytes(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for route in self.used() {
            let bytes = ConstCounter::new(route.bytes.load(Ordering::Relaxed));
            bytes.encode(encoder.encode_family(&[("route", route.template.as_str())])?)?;
        }
        Ok(())
    }
}

impl Collector for RequestMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.encode_counts(encoder.encode_descriptor(
            "http_requests",
            "HTTP requests. The status none means that a client left before its answer began.",
            None,
            MetricType::Counter,
        )?)?;
        self.encode_durations(encoder.encode_descriptor(
            "http_request_duration_seconds",
            "Time from the head of a request to the last sent byte of its answer.",
            None,
            MetricType::Histogram,
        )?)?;
        self.encode_bytes(encoder.encode_descriptor(
            "http_response_bytes",
            "Bytes of bodies that were sent.",
            None,
            MetricType::Counter,
        )?)?;
        let in_flight = encoder.encode_descriptor(
            "http_requests_in_flight",
            "HTTP requests whose answers were not sent to the end yet.",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(self.in_flight.load(Ordering::Relaxed)).encode(in_flight)
    }
}

#[cfg(test)]
mod tests {
    // No imports: the benchmark that includes this file has no tests.
    #[test]
    fn the_status_codes_are_sorted_and_the_constants_are_the_first_routes() {
        assert!(super::STATUSES.is_sorted());
        let metrics = super::RequestMetrics::default();
        for (place, template) in super::FIRST_ROUTES.iter().enumerate() {
            assert_eq!(metrics.route(template), super::Route(place));
        }
        assert!(metrics.route("/readyz").is_probe() && !metrics.route("/").is_probe());
        // However many routes there are.
        for number in 0..2 * super::ROUTES_MAX {
            metrics.route(&number.to_string());
        }
        assert_eq!(metrics.route("one more"), super::Route::OTHER);
    }
}
