//! Every gauge returns to its start, whatever becomes of requests: clients that leave, resets of HTTP/2, panics, clients
//! that read slowly, and killed children.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use axum::body::Body;
use crates_io_mirror::Clock;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::{
    Client, Connection, CrateFile, Http2, Mirror, Origin, UpstreamFault, borrowed, connect_from,
    eventually, index_path, peer, send_signal,
};

/// Far more than sockets and pipes buffer.
const LARGE_BYTES: usize = 6 * 1024 * 1024;

/// Little, so that most of an answer stays with the mirror.
const RECEIVE_BUFFER_BYTES: u32 = 16 * 1024;

/// How many clients do the same. More could not have a git process each on a small machine.
const CLIENTS: usize = 2;

/// Gauges of the mirror that move by themselves, and the caches, which keep what they have.
const MOVING: [&str; 3] = [
    "crates_io_mirror_cache_bytes",
    "crates_io_mirror_index_age_seconds",
    "crates_io_mirror_index_last_success_timestamp_seconds",
];

/// All gauges of the mirror, each series by itself.
fn gauges(client: &Client) -> BTreeMap<String, f64> {
    let page = client.get("/metrics").text();
    let is_gauge = |series: &str| {
        let name = series.split('{').next().unwrap();
        name.starts_with("crates_io_mirror_")
            && !MOVING.contains(&name)
            && page.contains(&format!("# TYPE {name} gauge\n"))
    };
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .filter(|(series, _value)| is_gauge(series))
        .map(|(series, value)| (series.to_owned(), value.parse().unwrap()))
        .collect()
}

/// Waits until a gauge is at least so high.
#[track_caller]
fn wait_for(client: &Client, gauge: &str, at_least: f64) {
    let name = format!("crates_io_mirror_{gauge}");
    let mut last = None;
    eventually(&format!("{gauge} is {at_least}"), || {
        last = gauges(client).get(&name).copied();
        last >= Some(at_least)
    });
}

fn send(client: &mut TcpStream, head: &str) {
    let head = format!("{head} HTTP/1.1\r\nHost: h\r\n");
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(b"\r\n").unwrap();
}

/// The git processes that answer for the mirror with this data directory.
fn git_children(data: &TempDir) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap();
    let ids = processes.filter_map(|process| process.unwrap().file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        // Many processes have ended by now.
        let command = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        command.contains("upload-pack") && command.contains(data.path().to_str().unwrap())
    })
    .collect()
}

/// Begins requests to git whose children wait for the rest of them.
fn stalled_git_requests(mirror: &Client) -> Vec<Connection> {
    let line = format!("0035shallow {}\n", "1".repeat(40));
    let request = [
        "POST /git/index/git-upload-pack HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n",
        "Content-Type: application/x-git-upload-pack-request\r\n\r\n",
        &line.repeat(1_500),
    ];
    let begin = |_| {
        let mut connection = Connection::open(mirror.address).unwrap();
        connection.send(request.concat().as_bytes()).unwrap();
        connection
    };
    (0..CLIENTS).map(begin).collect()
}

/// Clients that begin to read a large answer, and leave when this gauge has moved.
fn leave_in_the_middle(mirror: &Client, path: &str, (gauge, at_least): (&str, f64)) {
    let begin = |number: usize| {
        let source = peer(u8::try_from(number).unwrap() + 10);
        let client = connect_from(source, mirror.address, Some(RECEIVE_BUFFER_BYTES));
        let mut client = client.unwrap();
        send(&mut client, &format!("GET {path}"));
        client.read_exact(&mut [0; 5_000]).unwrap();
        client
    };
    let clients: Vec<TcpStream> = (0..CLIENTS).map(begin).collect();
    // Those, and the scrape.
    wait_for(mirror, "http_requests_in_flight", 1.0 + CLIENTS as f64);
    wait_for(mirror, gauge, at_least);
    drop(clients);
}

/// Clients of HTTP/2 that reset requests: some that wait for their answers, and some in the middle of them.
fn reset_by_http2(runtime: &Runtime, mirror: &Client, waiting: &str, large: &str) {
    runtime.block_on(async {
        let client = Http2::with_window(mirror.address, 1_000).await;
        let begin = |path: &str| {
            let (client, path) = (client.clone(), path.to_owned());
            tokio::spawn(async move { client.begin("GET", &path, &[], Body::empty()).await })
        };
        let pending: Vec<_> = (0..CLIENTS).map(|_| begin(waiting)).collect();
        let mut answers = Vec::new();
        for _ in 0..CLIENTS {
            answers.push(begin(large).await.unwrap().unwrap());
        }
        let looking = mirror.to_owned();
        let count = 1.0 + 2.0 * CLIENTS as f64;
        let look = move || wait_for(&looking, "http_requests_in_flight", count);
        tokio::task::spawn_blocking(look).await.unwrap();
        for request in &pending {
            request.abort();
        }
        drop(answers);
        // The connection goes on.
        assert_eq!(client.get("/livez").await.status, 200);
    });
}

#[test]
fn every_gauge_returns_to_its_start_whatever_becomes_of_requests() {
    let [stored, missing] = [("stored", 1), ("missing", 2)]
        .map(|(name, seed)| CrateFile::noise(name, "1.0.0", seed, LARGE_BYTES));
    let paths = [&stored, &missing].map(CrateFile::download_path);
    let origin = Origin::with(vec![stored, missing]);
    // An index file that is large, and so is the pack with it.
    let mut noise = vec![0; LARGE_BYTES];
    fastrand::Rng::with_seed(5).fill(&mut noise);
    origin.index.commit().crate_file("noise", &noise).send();
    let data = TempDir::new().unwrap();
    let own = origin.settings();
    let mut settings = borrowed(&own);
    settings.extend([
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("PUBLIC_URL", "http://mirror.example"),
    ]);
    // In threads that serve requests, this clock can panic. All others are threads of the background.
    let breaks = Arc::new(AtomicBool::new(false));
    let clock = {
        let (breaks, system) = (Arc::clone(&breaks), Clock::system());
        Clock::custom(move || {
            let is_background = thread::current().name() == Some("background");
            assert!(
                is_background || !breaks.load(Ordering::Relaxed),
                "the test wants a panic"
            );
            system.now()
        })
    };
    let mirror = Mirror::start_at(&settings, clock);
    mirror.wait_until_ready();
    mirror.wait_for_git_commit(&origin.index.head());
    eventually("there is a feed", || mirror.get("/changes").status == 200);
    assert_eq!(mirror.get(&paths[0]).body.len(), LARGE_BYTES);
    wait_for(&mirror, "store_files", 1.0);
    eventually("what came before has ended", || {
        let now = gauges(&mirror);
        now["crates_io_mirror_connections"] == 1.0 && now["crates_io_mirror_git_processes"] == 0.0
    });
    let before = gauges(&mirror);
    assert!(before.len() > 15, "{before:?}");

    // Clients that leave while the mirror waits for somebody else, and in the middle of their answers.
    origin.upstream.fail(UpstreamFault::HangsBeforeHead);
    let mut waiting: Vec<TcpStream> = (0..CLIENTS)
        .map(|_| TcpStream::connect(mirror.address).unwrap())
        .collect();
    for client in &mut waiting {
        send(client, &format!("GET {}", paths[1]));
    }
    wait_for(&mirror, "http_requests_in_flight", 1.0 + CLIENTS as f64);
    drop(waiting);
    let connections = ("connections", 1.0 + CLIENTS as f64);
    leave_in_the_middle(&mirror, &paths[0], connections);
    let index_file = format!("/index/{}", index_path("noise"));
    leave_in_the_middle(&mirror, &index_file, ("client_memory_bytes", 1.0));

    // The same by HTTP/2.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    reset_by_http2(&runtime, &mirror, &paths[1], &paths[0]);
    drop(runtime);

    // Panics in handlers, on the event loop and on a blocking thread. The first two end with their connection or stream.
    breaks.store(true, Ordering::Relaxed);
    for _ in 0..CLIENTS {
        assert!(mirror.try_request("GET", "/readyz", &[]).is_err());
        assert_eq!(mirror.get("/metrics").status, 500);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Http2::plain(mirror.address).await;
        for _ in 0..CLIENTS {
            let answer = client.begin("GET", "/readyz", &[], Body::empty()).await;
            assert!(answer.is_err(), "{answer:?}");
        }
        assert_eq!(client.get("/livez").await.status, 200);
    });
    // With the connection of its client.
    drop(runtime);
    breaks.store(false, Ordering::Relaxed);

    // Git processes that are killed, and those whose clients leave.
    for is_killed in [true, false] {
        let mut stalled = stalled_git_requests(&mirror);
        wait_for(&mirror, "git_processes", CLIENTS as f64);
        wait_for(&mirror, "permits_in_use{kind=\"git\"}", CLIENTS as f64);
        if is_killed {
            for child in git_children(&data) {
                send_signal("KILL", child);
            }
            for connection in &mut stalled {
                assert_eq!(connection.read_answer(false).unwrap().status, 400);
            }
        }
    }

    // Followers that leave.
    let follow = |_| {
        let mut client = TcpStream::connect(mirror.address).unwrap();
        let head = "GET /changes HTTP/1.1\r\nHost: h\r\nAccept: text/event-stream\r\n\r\n";
        client.write_all(head.as_bytes()).unwrap();
        client
    };
    let followers: Vec<TcpStream> = (0..CLIENTS).map(follow).collect();
    wait_for(
        &mirror,
        "permits_in_use{kind=\"followers\"}",
        CLIENTS as f64,
    );
    drop(followers);

    let mut after = BTreeMap::new();
    eventually("all gauges are where they were", || {
        after = gauges(&mirror);
        after == before
    });
    assert_eq!(after, before);
    origin.upstream.open_gate();
}
