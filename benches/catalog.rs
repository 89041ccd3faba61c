//! A mirror whose catalog is measured without HTTP, for `benches/compare/catalog.sh`. All settings come from the
//! environment, except for the pause between fetches, which is short.
//!
//! It obeys lines on standard input, and answers each with lines on standard output: `wait COMMIT` waits until the catalog
//! answers from that commit, `ask CRATE CHECKSUM` measures questions. It ends with its input. Without the argument `run`,
//! as `cargo bench` starts it, it does nothing.

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a benchmark prints what it has measured"
)]

use std::error::Error;
use std::io::{BufRead, stdin};
use std::time::{Duration, Instant};

use crates_io_mirror::{App, CatalogProbe, Config, return_large_blocks, start_logging};
use tokio::sync::oneshot;

/// Searches per second, whether or not the ones before are answered.
const RATE: u32 = 200;

/// Searches for texts of each length.
const SEARCHES: usize = 1_000;

/// Texts to search for, by length: common ones.
const TEXTS: [(&str, [&str; 4]); 4] = [
    ("1 character", ["s", "a", "c", "r"]),
    ("2 characters", ["rs", "se", "as", "co"]),
    ("3 characters", ["ser", "lib", "ust", "asy"]),
    (
        "10 characters",
        ["serde_json", "tokio-util", "rust-crypt", "derive-mor"],
    ),
];

fn main() -> Result<(), Box<dyn Error>> {
    if !std::env::args().any(|argument| argument == "run") {
        return Ok(());
    }
    let mut config = Config::from_environment()?;
    config.refresh_interval = Some(Duration::from_millis(500));
    return_large_blocks();
    let logging = start_logging(&config);
    let runtime = crates_io_mirror::runtime()?;
    let result = runtime.block_on(measure(config));
    runtime.shutdown_background();
    drop(logging);
    result
}

async fn measure(config: Config) -> Result<(), Box<dyn Error>> {
    let app = App::bind(config).await?;
    let catalog = app.catalog();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async {
        let _ended = stopped.await;
    }));
    let (send, mut lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            let _gone = send.send(line);
        }
    });
    while let Some(line) = lines.recv().await {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["wait", commit] => {
                while catalog.commit().as_deref() != Some(commit) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                println!("at {commit}");
            }
            ["ask", name, checksum] => {
                ask(&catalog, name, checksum).await?;
                println!("asked");
            }
            _ => eprintln!("wait COMMIT, or ask CRATE CHECKSUM"),
        }
    }
    drop(stop);
    Ok(running.await??)
}

async fn ask(catalog: &CatalogProbe, name: &str, checksum: &str) -> Result<(), Box<dyn Error>> {
    for by_time in [false, true] {
        let order = if by_time { "by time" } else { "by name" };
        for (length, texts) in TEXTS {
            let (times, found) = searches(catalog, texts, by_time).await?;
            println!(
                "search, {length}, {order}: {} ({found} matches)",
                summary(times)
            );
        }
    }
    for page in [0, 199] {
        let mut times = Vec::new();
        let mut total = 0;
        for _ in 0..50 {
            let began = Instant::now();
            total = catalog.dependents(name, page).await?;
            times.push(began.elapsed());
        }
        println!(
            "{total} dependents of {name}, page {}: {}",
            page + 1,
            summary(times)
        );
    }
    let mut times = Vec::new();
    for _ in 0..50 {
        let began = Instant::now();
        catalog.summary().await?;
        times.push(began.elapsed());
    }
    println!("summary: {}", summary(times));
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..50 {
        let began = Instant::now();
        found = catalog.index_files_of(checksum)?;
        times.push(began.elapsed());
    }
    println!("crate of a checksum: {} ({found} found)", summary(times));
    Ok(())
}

/// Searches in an open loop: each begins at its time, whether or not the ones before are answered.
async fn searches(
    catalog: &CatalogProbe,
    texts: [&'static str; 4],
    by_time: bool,
) -> Result<(Vec<Duration>, usize), Box<dyn Error>> {
    // A thread has the times, because tokio's timers have steps of a millisecond, which would count as the catalog's.
    let (send, mut due_times) = tokio::sync::mpsc::unbounded_channel();
    let ticking = std::thread::spawn(move || {
        let began = Instant::now();
        for number in 0..SEARCHES {
            let due = began + Duration::from_secs(1) * u32::try_from(number).unwrap_or(0) / RATE;
            #[expect(clippy::disallowed_methods, reason = "it is a thread for this")]
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let _gone = send.send(due);
        }
    });
    let mut running = Vec::new();
    let mut texts = texts.into_iter().cycle();
    while let (Some(due), Some(text)) = (due_times.recv().await, texts.next()) {
        let catalog = catalog.clone();
        running.push(tokio::spawn(async move {
            let found = catalog.search(text, by_time).await;
            found.map(|found| (due.elapsed(), found))
        }));
    }
    let _ended = ticking.join();
    let mut times = Vec::new();
    let mut most = 0;
    for search in running {
        let (time, found) = search.await??;
        times.push(time);
        most = most.max(found);
    }
    Ok((times, most))
}

fn summary(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |part: usize| times.get((times.len() * part / 100).min(times.len() - 1));
    format!(
        "median {:.2?}, p99 {:.2?}, at most {:.2?}",
        at(50).copied().unwrap_or_default(),
        at(99).copied().unwrap_or_default(),
        at(100).copied().unwrap_or_default()
    )
}
