//! `GET /metrics`: what happened, in Prometheus' text format.
//!
//! Names and units follow its guide (<https://prometheus.io/docs/practices/naming/>). No metric names a crate: a value for
//! each crate would never stop growing.

use std::fmt::{self, Display, Write};
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::health::Readiness;
use crate::http::state::AppState;
use crate::store::{Counters, CrateFiles};

/// The version of the format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All metrics of this process.
pub(crate) async fn show(State(state): State<Arc<AppState>>) -> impl IntoResponse {
    let mut page = Page(String::with_capacity(2_048));
    // Writing to a String cannot fail.
    let _infallible = page.index(&Readiness::of(&state));
    if let Some(crate_files) = &state.crate_files {
        let _infallible = page.crate_files(crate_files);
    }
    let headers = [
        (header::CONTENT_TYPE, TEXT_FORMAT),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (headers, page.0)
}

struct Page(String);

impl Page {
    fn index(&mut self, readiness: &Readiness) -> fmt::Result {
        let index = &readiness.index;
        self.gauge(
            "ready",
            "Whether the mirror should get traffic.",
            u8::from(readiness.ready),
        )?;
        if let Some(crates) = index.crates {
            self.gauge("index_crates", "Crates that the index lists.", crates)?;
        }
        if let Some(age) = index.age_seconds {
            let help = "Time since the last successful fetch of the index.";
            self.gauge("index_age_seconds", help, age)?;
        }
        let help = "Fetches of the index that failed since the last one that succeeded.";
        self.gauge("index_failures", help, index.failures)
    }

    fn crate_files(&mut self, crate_files: &CrateFiles) -> fmt::Result {
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
        } = crate_files.counters();
        self.head(
            "crate_files_total",
            "counter",
            "Requests for crate files: stored ones, and how the fetches of the others ended.",
        )?;
        for (result, counter) in [
            ("hit", hits),
            ("fetched", fetched),
            ("missing", missing),
            ("corrupt", corrupt),
            ("failed", failed),
        ] {
            let count = counter.get();
            writeln!(
                self.0,
                "crates_io_mirror_crate_files_total{{result=\"{result}\"}} {count}"
            )?;
        }
        for (name, help, count) in [
            (
                "crate_file_fetched_bytes_total",
                "Bytes of crate files that were fetched and found right.",
                fetched_bytes.get(),
            ),
            (
                "crate_file_checksum_mismatches_total",
                "Answers of upstreams that were not what the index says.",
                crate_files.mismatches(),
            ),
            (
                "store_failures_total",
                "Crate files that could not be read from the store or written to it.",
                store_failures.get(),
            ),
            (
                "store_damaged_files_total",
                "Crate files on the disk that were found damaged, and removed.",
                damaged.get(),
            ),
            (
                "store_evicted_files_total",
                "Crate files that were removed because of STORAGE_MAX_BYTES.",
                evicted.get(),
            ),
        ] {
            self.head(name, "counter", help)?;
            writeln!(self.0, "crates_io_mirror_{name} {count}")?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) -> fmt::Result {
        self.head(name, "gauge", help)?;
        writeln!(self.0, "crates_io_mirror_{name} {value}")
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(self.0, "# HELP crates_io_mirror_{name} {help}")?;
        writeln!(self.0, "# TYPE crates_io_mirror_{name} {kind}")
    }
}
