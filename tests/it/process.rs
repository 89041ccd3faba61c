//! The life of the process: its start, its end and its exit codes.

use std::net::TcpListener;
use std::thread;

use tempfile::TempDir;

use crate::support::{Connection, Fault, GitIndex, GitServer, Program, eventually};

struct Scene {
    program: Program,
    server: GitServer,
    _index: GitIndex,
    _data: TempDir,
}

/// The program with an upstream that has this fault.
fn scene(fault: Fault) -> Scene {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start_with(&index, fault);
    let data = TempDir::new().unwrap();
    let program = Program::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    Scene {
        program,
        server,
        _index: index,
        _data: data,
    }
}

#[test]
fn livez_answers_before_the_first_clone_has_finished() {
    let scene = scene(Fault::Hang);
    eventually("the clone has begun", || !scene.server.seen().is_empty());
    let answer = scene.program.get("/livez");
    assert_eq!((answer.status, answer.text().as_str()), (200, "ok\n"));
    let ready = scene.program.get("/readyz");
    assert_eq!(ready.status, 503);
    assert!(
        ready.json()["reason"]
            .as_str()
            .unwrap()
            .contains("being cloned: 0 of 0 objects")
    );
    scene.program.assert_serves_without_index();
}

#[test]
fn the_progress_of_the_first_clone_shows() {
    let scene = scene(Fault::HangInPack(20_000));
    eventually("objects arrive", || {
        let ready = scene.program.get("/readyz").json();
        let progress = &ready["index"]["progress"];
        let (received, total) = (
            progress["received_objects"].as_u64().unwrap(),
            progress["total_objects"].as_u64().unwrap(),
        );
        assert!(received <= total, "{progress}");
        received > 0 && received < total
    });
    let metrics = scene.program.get("/metrics").text();
    let ratio = metrics
        .lines()
        .find_map(|line| line.strip_prefix("crates_io_mirror_index_clone_progress_ratio "));
    let ratio: f64 = ratio.unwrap().parse().unwrap();
    assert!(0.0 < ratio && ratio < 1.0, "{ratio}");
}

#[test]
fn sigterm_ends_an_idle_process_with_success() {
    let mut scene = scene(Fault::None);
    scene.program.wait_until_ready();
    scene.program.terminate();
    assert_eq!(scene.program.wait_for_exit(), Some(0));
}

#[test]
fn sigterm_ends_a_process_with_idle_connections() {
    let mut scene = scene(Fault::None);
    scene.program.wait_until_ready();
    // One connection without a request, and one that can send another request.
    let _silent = Connection::open(scene.program.address).unwrap();
    let mut kept = Connection::open(scene.program.address).unwrap();
    kept.send(b"GET /livez HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    assert_eq!(kept.read_answer(false).unwrap().status, 200);
    scene.program.terminate();
    assert_eq!(kept.read_to_end().unwrap(), b"");
    assert_eq!(scene.program.wait_for_exit(), Some(0));
}

#[test]
fn sigterm_ends_a_process_with_requests_that_never_end() {
    let mut scene = scene(Fault::None);
    scene.program.wait_until_ready();
    // On every thread that serves connections. A stop must not wait for them one after the other.
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let _halves: Vec<Connection> = (0..2 * threads)
        .map(|_| {
            let mut half = Connection::open(scene.program.address).unwrap();
            half.send(b"GET /livez HTTP/1.1\r\nHost:").unwrap();
            half
        })
        .collect();
    assert_eq!(scene.program.get("/livez").status, 200);
    scene.program.terminate();
    assert_eq!(scene.program.wait_for_exit(), Some(0));
}

#[test]
fn sigterm_ends_a_process_whose_fetch_hangs() {
    for fault in [Fault::Hang, Fault::HangInPack(20_000)] {
        let mut scene = scene(fault);
        eventually("the clone has begun", || !scene.server.seen().is_empty());
        scene.program.terminate();
        assert_eq!(scene.program.wait_for_exit(), Some(0));
    }
}

#[test]
fn sigterm_lets_a_request_finish() {
    let mut scene = scene(Fault::None);
    scene.program.wait_until_ready();
    let mut upload = Connection::open(scene.program.address).unwrap();
    upload
        .send(b"PUT /api/v1/crates/new HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n0123456789")
        .unwrap();
    // A connection whose request has not begun would be closed. The event loops share the connections, so when so many
    // later requests were answered, each loop has come past this one.
    for _ in 0..20 {
        assert_eq!(scene.program.get("/livez").status, 200);
    }
    scene.program.terminate();
    eventually("new connections are refused", || {
        Connection::open(scene.program.address).is_err()
    });
    upload.send(b"0123456789").unwrap();
    let answer = upload.read_answer(false).unwrap();
    assert_eq!(answer.status, 403);
    assert!(answer.detail().contains("read-only mirror"));
    assert_eq!(scene.program.wait_for_exit(), Some(0));
}

#[test]
fn a_port_that_is_in_use_gives_one_line_and_exit_code_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let output = Program::run(&[("PORT", &address.port().to_string())]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("PORT") && said.contains(&address.to_string()),
        "{said}"
    );
}

#[test]
fn a_bad_setting_gives_one_line_and_exit_code_2() {
    // If the port were bound before the settings are checked, the error would be about the port.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let data = TempDir::new().unwrap();
    let data_dir = data.path().join("data");
    for (variable, value) in [
        ("PORT", "http"),
        ("PORT", "65536"),
        ("BIND_ADDRESS", "localhost"),
        ("GIT_REPO_URL", "ftp://mirror.example/index"),
        ("GIT_REPO_URL", "https://"),
        ("GIT_REPO_URL", "git.example/org/index"),
        ("GIT_REPO_URL", "index"),
        ("all_proxy", "socks5://proxy.example"),
        ("HTTPS_PROXY", "http://"),
        ("PUBLIC_URL", "mirror.example"),
        ("DOWNLOAD_URL", "ftp://files.example/"),
        ("DOWNLOAD_MODE", "sometimes"),
        ("REFRESH_INTERVAL_SECS", "-1"),
        ("MAX_STALENESS_SECS", "soon"),
        ("CONTACT", "a\nb"),
        ("LOG_FORMAT", "xml"),
        ("RUST_LOG", "a=b=c"),
    ] {
        let output = Program::run(&[
            ("PORT", &port),
            ("DATA_DIR", data_dir.to_str().unwrap()),
            (variable, value),
        ]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{variable}={value}: {said}");
        assert_eq!(said.lines().count(), 1, "{variable}={value}: {said}");
        assert!(said.starts_with(variable), "{variable}={value}: {said}");
        assert_eq!(output.stdout, b"", "{variable}={value}");
        assert!(!data_dir.exists(), "{variable}={value}");
    }
}

#[test]
fn sighup_does_not_end_the_process() {
    let mut scene = scene(Fault::None);
    scene.program.wait_until_ready();
    for _ in 0..3 {
        scene.program.hang_up();
        assert_eq!(scene.program.get("/livez").status, 200);
    }
    scene.program.terminate();
    assert_eq!(scene.program.wait_for_exit(), Some(0));
}
