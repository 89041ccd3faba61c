//! What counting one request costs: `cargo bench --bench counting`. The goal is less than 300 ns.
//!
//! There are many short rounds, because the fastest one shows little of other work on the machine. With two threads the
//! median counts: in the fastest round the other thread may not have run. The two reads of the clock that a request
//! needs for its log event anyway are measured separately.

#![expect(clippy::print_stdout, reason = "a benchmark prints its result")]

#[expect(
    dead_code,
    reason = "the module is that of the mirror, which uses the rest"
)]
#[path = "../src/observability/metrics/requests.rs"]
mod requests;

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use requests::{RequestMetrics, Route};

const REQUESTS: u32 = 20_000;
const ROUNDS: u32 = 300;

/// The time of a request in nanoseconds: in the fastest round, and in the median one.
fn measure(threads: usize, request: impl Fn(u32) + Sync) -> [u128; 2] {
    let barrier = Barrier::new(threads);
    let rounds = || {
        let round = |_| {
            barrier.wait();
            let began = Instant::now();
            (0..REQUESTS).for_each(&request);
            began.elapsed()
        };
        (0..ROUNDS).map(round).collect::<Vec<Duration>>()
    };
    let mut times = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(rounds)).collect();
        let times = threads.into_iter().filter_map(|thread| thread.join().ok());
        times.flatten().collect::<Vec<Duration>>()
    });
    times.sort();
    let at = |place: usize| times.get(place).copied().unwrap_or_default();
    [at(0), at(times.len() / 2)].map(|time| time.as_nanos() / u128::from(REQUESTS))
}

fn took(began: Instant, number: u32) -> Duration {
    began.elapsed() + Duration::from_nanos(u64::from(number % 4_096))
}

fn main() {
    for threads in [1, 2] {
        let metrics = RequestMetrics::default();
        let clock = measure(threads, |number| {
            let began = Instant::now();
            black_box(took(began, number));
        });
        let both = measure(threads, |number| {
            metrics.begin();
            let began = Instant::now();
            let (route, status) = black_box((Route::DOWNLOAD, 302));
            let took = took(began, number);
            metrics.end(route, black_box("GET"), Some(status), took, 0);
        });
        let ([clock, usual_clock], [fastest, median]) = (clock, both);
        let (fastest, median) = (
            fastest.saturating_sub(clock),
            median.saturating_sub(usual_clock),
        );
        println!(
            "{threads} threads: counting takes {fastest} ns at best, {median} ns in the median; two looks at the clock {clock} ns"
        );
    }
}
