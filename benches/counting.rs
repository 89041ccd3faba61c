//! What counting one request costs: `cargo bench --bench counting`. The goal is less than 300 ns.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

#[expect(
    dead_code,
    reason = "the module is that of the mirror, which uses the rest"
)]
#[path = "../src/observability/metrics/requests.rs"]
mod requests;

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use requests::{RequestMetrics, Route};

const REQUESTS: u32 = 10_000_000;

fn count(metrics: &RequestMetrics) {
    for number in 0..REQUESTS {
        metrics.begin();
        let began = Instant::now();
        let took = began.elapsed() + Duration::from_nanos(u64::from(number % 4_096));
        let (route, status) = black_box((Route::DOWNLOAD, 302));
        metrics.end(route, black_box("GET"), Some(status), took, 0);
    }
}

fn main() {
    for threads in [1, 2] {
        let metrics = RequestMetrics::default();
        let began = Instant::now();
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| count(&metrics));
            }
        });
        let each = began.elapsed().as_nanos() / u128::from(REQUESTS);
        println!("{threads} threads: {each} ns for a request, with two looks at the clock");
    }
}
