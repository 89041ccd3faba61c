//! Requests each of many paths exactly once, on connections that stay open, and prints how long the answers took.
//! `benches/compare/cold.sh` uses it for files that are in no cache. `wrk` repeats its requests.
//!
//! Takes the port on loopback, the number of connections and a file with a path on each line. Without them, as
//! `cargo bench` starts it, it does nothing. Prints one line: files/s, then the median, the 99th percentile and the maximum
//! of the latency in milliseconds, then the bytes of all bodies. Anything but a whole 200 is a failure.

use std::error::Error;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [port, connections, paths] = arguments.as_slice() else {
        return Ok(());
    };
    let (port, connections) = (port.parse()?, connections.parse()?);
    let paths = std::fs::read_to_string(paths)?;
    let paths: Vec<_> = paths.lines().collect();
    let next = AtomicUsize::new(0);

    let began = Instant::now();
    // A thread for each connection. Its cost is far below the measured time.
    let seen = thread::scope(|scope| -> Result<Vec<Seen>, Box<dyn Error>> {
        let asking: Vec<_> = (0..connections)
            .map(|_number| scope.spawn(|| ask(port, &paths, &next)))
            .collect();
        let seen = asking.into_iter().map(|thread| {
            let seen = thread.join().map_err(|_panic| "a thread panicked")?;
            Ok(seen?)
        });
        seen.collect()
    })?;
    let seconds = began.elapsed().as_secs_f64();

    let bytes: usize = seen.iter().map(|seen| seen.bytes).sum();
    let mut latencies: Vec<_> = seen.into_iter().flat_map(|seen| seen.latencies).collect();
    latencies.sort_unstable();
    let share = |percent: usize| {
        let at = latencies.len().saturating_sub(1) * percent / 100;
        latencies
            .get(at)
            .map_or(0.0, |took| took.as_secs_f64() * 1000.0)
    };
    let count = u32::try_from(latencies.len())?;
    let report = format!(
        "{:.0} {:.2} {:.2} {:.2} {bytes}",
        f64::from(count) / seconds,
        share(50),
        share(99),
        share(100)
    );
    writeln!(io::stdout(), "{report}")?;
    Ok(())
}

/// The results of one connection.
#[derive(Default)]
struct Seen {
    latencies: Vec<Duration>,
    bytes: usize,
}

/// Takes one path after the other that no other connection has taken.
fn ask(port: u16, paths: &[&str], next: &AtomicUsize) -> io::Result<Seen> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(64 * 1024, stream);
    let mut seen = Seen::default();
    let mut body = Vec::new();
    while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let began = Instant::now();
        reader.get_mut().write_all(request.as_bytes())?;
        let length = read_head(&mut reader)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        seen.latencies.push(began.elapsed());
        seen.bytes += length;
    }
    Ok(seen)
}

/// Reads the head of a 200, and returns the length of the body.
fn read_head(reader: &mut impl BufRead) -> io::Result<usize> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(io::Error::other(format!("not a 200: {line:?}")));
    }
    let mut length = None;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok();
            }
            Some(_other) => {}
            None => return length.ok_or_else(|| io::Error::other("no content-length")),
        }
    }
}
