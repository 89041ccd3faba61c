//! `GET /metrics`: what happened, for Prometheus.
//!
//! Names and units follow its guide (<https://prometheus.io/docs/practices/naming/>). No metric names a crate or anything
//! else that a client chooses: a value for each would never stop growing. `docs/metrics.md` lists all of them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use super::health::Readiness;
use crate::build_info::{COMMIT, VERSION};
use crate::http::error::ApiError;
use crate::http::semantics::accept::asks_for;
use crate::http::state::{AppState, RequestState};
use crate::index::Phase;
use crate::observability::metrics::{FAILED, OK, PREFIX, TimedResults, register_process};
use crate::store::{Counters, CrateFiles};
use crate::upstream::CrateSources;

/// The format that every Prometheus reads.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The format that a scraper must ask for.
const OPEN_METRICS_FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of this process.
pub(crate) async fn show(
    RequestState { state, exchange }: RequestState,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wants_open_metrics = wants_open_metrics(&headers);
    // One at a time: many clients that ask for it must not take the threads of those who want index files.
    let permit = state.metrics_permits.take(&exchange, 1).await?;
    let asked = Arc::clone(&state);
    // Reading `/proc` takes a moment when there are thousands of connections.
    let page = tokio::task::spawn_blocking(move || {
        let page = page(&asked, wants_open_metrics);
        drop(permit);
        page
    });
    let page = page.await.map_err(ApiError::internal)?;
    let page = page.map_err(ApiError::internal)?.into_boxed_str();
    state.account.keep(&exchange, page.len() as u64).await?;
    let format = if wants_open_metrics {
        OPEN_METRICS_FORMAT
    } else {
        TEXT_FORMAT
    };
    let headers = [
        (header::CONTENT_TYPE, format),
        (header::CACHE_CONTROL, "no-store"),
        (header::VARY, "accept"),
    ];
    Ok((headers, String::from(page)).into_response())
}

fn page(state: &AppState, is_open_metrics: bool) -> Result<String, fmt::Error> {
    let mut ours = Registry::with_prefix(PREFIX);
    register_build(&mut ours);
    register_index(&mut ours, state);
    let crate_files = state.crate_files.as_ref();
    if let Some(crate_files) = crate_files {
        register_crate_files(&mut ours, crate_files);
    }
    let none = TimedResults::default();
    let sources = crate_files.and_then(CrateFiles::sources);
    let upstream_requests = sources.map_or(&none, |sources| &sources.requests);
    upstream_requests.register(
        &mut ours,
        (
            "upstream_requests",
            "Requests to upstreams of crate files, each attempt",
        ),
        (
            "upstream_request_duration_seconds",
            "How long requests to upstreams of crate files took, with their bodies, in seconds",
        ),
    );
    state.metrics.register(&mut ours);
    register_shares(&mut ours, state);
    let mut process = Registry::default();
    register_process(&mut process);
    let mut page = String::with_capacity(32 * 1024);
    for registry in [&ours, &process] {
        if is_open_metrics {
            text::encode_registry(&mut page, registry)?;
        } else {
            prometheus_text::encode(&mut page, registry)?;
        }
    }
    if is_open_metrics {
        text::encode_eof(&mut page)?;
    }
    Ok(page)
}

/// What requests have of limited things. All of it is given back at their ends.
fn register_shares(registry: &mut Registry, state: &AppState) {
    registry.register(
        "client_memory_bytes",
        "Memory that is kept for clients",
        ConstGauge::new(state.account.used()),
    );
    registry.register(
        "permits_in_use",
        "Permits that requests have: to read index files or whole crate files, to run git, to follow the change feed",
        gauges_by("kind", [
            ("look_ups", state.look_up_permits.used()),
            ("index_files", state.index_file_permits.used()),
            ("whole_files", state.whole_file_permits.used()),
            ("git", state.git_permits.used()),
            ("followers", state.follower_permits.used()),
        ]),
    );
    registry.register(
        "cache_bytes",
        "What is kept in memory because it may be asked for again",
        gauges_by(
            "cache",
            [
                ("index_files", state.index_files.files.weight()),
                ("version_tables", state.version_tables.weight()),
                ("decisions", state.decision_tables.weight()),
                ("api_answers", state.answer_cache.bytes()),
            ],
        ),
    );
}

fn register_build(registry: &mut Registry) {
    let build = Family::<[(&str, &str); 2], Gauge>::default();
    let labels = [("version", VERSION), ("commit", COMMIT)];
    build.get_or_create(&labels).set(1);
    registry.register("build_info", "Which build this is", build);
}

fn register_index(registry: &mut Registry, state: &AppState) {
    let (readiness, status) = (Readiness::of(state), state.index.status());
    let (index, advisories) = (&readiness.index, readiness.advisories.as_ref());
    let view = state.index.view();
    let totals = view.as_ref().and_then(|view| view.policy_totals());
    register_gauges(
        registry,
        [
            (
                "ready",
                "Whether the mirror should get traffic",
                Some(u64::from(readiness.ready)),
            ),
            (
                "index_crates",
                "Crates that the index lists",
                index.crates.map(|crates| crates as u64),
            ),
            (
                "index_commit_timestamp_seconds",
                "When the commit of the index was made, in seconds since 1970",
                index.commit_time.map(seconds),
            ),
            (
                "index_age_seconds",
                "Time since the last successful fetch of the index",
                index.age_seconds,
            ),
            (
                "index_last_success_timestamp_seconds",
                "When the last successful fetch of the index ended, in seconds since 1970",
                index.last_success.map(seconds),
            ),
            (
                "index_failures",
                "Fetches of the index that failed since the last one that succeeded",
                Some(u64::from(index.failures)),
            ),
            (
                "index_disk_bytes",
                "Bytes of the index on the disk, after the last fetch",
                Some(status.size.bytes),
            ),
            (
                "index_packs",
                "Packs of the clone of the index, after the last fetch",
                Some(status.size.packs as u64),
            ),
            (
                "advisories_skipped",
                "Files of the advisory database that are no usable advisories",
                advisories
                    .and_then(|known| known.skipped)
                    .map(|files| files as u64),
            ),
            (
                "advisories_age_seconds",
                "Time since the last successful fetch of the advisory database",
                advisories.and_then(|known| known.age_seconds),
            ),
            (
                "policy_file_error",
                "Whether POLICY_FILE cannot be used, so that an earlier one is in force",
                totals.map(|_policy| u64::from(status.policy_file_error.is_some())),
            ),
            (
                "policy_lines_left_out",
                "Lines of the index that the policy leaves out, because they cannot be edited",
                totals.map(|totals| totals.left_out),
            ),
            (
                "index_lines_without_pubtime",
                "Lines of the index without a publish time, counted while there is a policy",
                totals.map(|totals| totals.without_time),
            ),
        ],
    );
    let progress = match (index.phase, &view) {
        (Phase::Cloning, _) => index.progress.ratio(),
        (_, Some(_)) => 1.0,
        (_, None) => 0.0,
    };
    registry.register(
        "index_clone_progress_ratio",
        "How far the clone of the index is, from 0 to 1; 1 if none is being made",
        ConstGauge::new(progress),
    );
    state.index.fetches().begin(&[OK, FAILED], None);
    state.index.fetches().register(
        registry,
        ("index_fetches", "Clones and fetches of the index"),
        (
            "index_fetch_duration_seconds",
            "How long clones and fetches of the index took, in seconds",
        ),
    );
    if let Some(settings) = view.as_ref().and_then(|view| view.policy_settings()) {
        state.metrics.policy.begin(settings.mode.name());
    }
    registry.register(
        "index_checksum_changes",
        "Listed versions whose checksum has changed, counted while there is a policy",
        state.index.checksum_changes().clone(),
    );
    let pushes = status.push.unwrap_or_default();
    let results = [(OK, pushes.pushes), (FAILED, pushes.failures)];
    registry.register(
        "pushes",
        "Pushes of the index to INDEX_PUSH_URL",
        counts_by_result(results),
    );
}

fn register_crate_files(registry: &mut Registry, crate_files: &CrateFiles) {
    let Counters {
        hits,
        fetched,
        fetched_bytes,
        missing,
        corrupt,
        failed,
        store_failures,
        damaged,
        evicted,
        stored_files,
        stored_bytes,
    } = crate_files.counters();
    registry.register(
        "crate_files",
        "Requests for crate files: stored ones, and how the fetches of the others ended",
        counts_by_result([
            ("hit", hits.get()),
            ("fetched", fetched.get()),
            ("missing", missing.get()),
            ("corrupt", corrupt.get()),
            (FAILED, failed.get()),
        ]),
    );
    for (name, help, count) in [
        (
            "crate_file_fetched_bytes",
            "Bytes of crate files that were fetched and found right",
            fetched_bytes.get(),
        ),
        (
            "crate_file_checksum_mismatches",
            "Answers of upstreams that were not what the index says",
            crate_files.sources().map_or(0, CrateSources::mismatches),
        ),
        (
            "store_failures",
            "Crate files that could not be read from the store or written to it",
            store_failures.get(),
        ),
        (
            "store_damaged_files",
            "Crate files on the disk that were found damaged, and removed",
            damaged.get(),
        ),
        (
            "store_evicted_files",
            "Crate files that were removed because of STORAGE_MAX_BYTES",
            evicted.get(),
        ),
    ] {
        registry.register(name, help, ConstCounter::new(count));
    }
    register_gauges(
        registry,
        [
            (
                "store_files",
                "Stored crate files, counted every hour; this process adds its own at once",
                Some(stored_files.get()),
            ),
            (
                "store_bytes",
                "Bytes of the stored crate files",
                Some(stored_bytes.get()),
            ),
            (
                "store_limit_bytes",
                "STORAGE_MAX_BYTES, if it is set",
                crate_files.store().bytes_max,
            ),
        ],
    );
}

/// Registers each gauge that has a value.
fn register_gauges<const N: usize>(
    registry: &mut Registry,
    gauges: [(&str, &str, Option<u64>); N],
) {
    for (name, help, value) in gauges {
        if let Some(value) = value {
            registry.register(name, help, ConstGauge::new(value));
        }
    }
}

/// A number for each value of the label `result`.
fn counts_by_result<const N: usize>(
    counts: [(&'static str, u64); N],
) -> Family<[(&'static str, &'static str); 1], Counter> {
    let family = Family::default();
    for (result, count) in counts {
        let counter: &Counter = &family.get_or_create(&[("result", result)]);
        counter.inc_by(count);
    }
    family
}

/// A value for each value of a label.
fn gauges_by<const N: usize>(
    label: &'static str,
    values: [(&'static str, u64); N],
) -> Family<[(&'static str, &'static str); 1], Gauge<u64, AtomicU64>> {
    let family = Family::default();
    for (of, value) in values {
        let gauge: &Gauge<u64, AtomicU64> = &family.get_or_create(&[(label, of)]);
        gauge.set(value);
    }
    family
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.as_ref().map_or(0, Duration::as_secs)
}

/// Whether a scraper asks for `OpenMetrics`, and does not like plain text better. A wildcard does not ask for it.
fn wants_open_metrics(headers: &HeaderMap) -> bool {
    asks_for(headers, "application/openmetrics-text", "text/plain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_are_sent_only_to_clients_that_ask_for_them() {
        let wants = |accept: &str| {
            let headers = [(header::ACCEPT, accept.parse().unwrap())];
            wants_open_metrics(&headers.into_iter().collect())
        };
        for yes in [
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; version=1.0.0",
            "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "text/html, application/openmetrics-text;q=0.1",
        ] {
            assert!(wants(yes), "{yes}");
        }
        for no in [
            "",
            "*/*",
            "application/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=0.0, */*",
            "application/openmetrics-text; q=x",
            "application/openmetrics-text;q=0.4,text/plain;q=0.5",
            "application/openmetrics-textual",
        ] {
            assert!(!wants(no), "{no}");
        }
    }
}
