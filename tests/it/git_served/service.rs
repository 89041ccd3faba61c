//! Answers without a git index, and the life of the child processes.

use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

use super::{
    CROWD, PUBLIC_URL, REFS, REQUEST_TYPE, Scene, UPLOAD_PACK, assert_plain, objects_in,
    request_head, stall, start,
};
use crate::support::{
    Connection, Fault, GitIndex, GitServer, Mirror, Program, eventually, hermetic, index_line,
};

#[test]
fn without_a_public_url_the_git_index_names_the_missing_setting() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let data = TempDir::new().unwrap();
    let mirror = start(&server, &data, &[]);
    mirror.wait_until_ready();
    let request = mirror.post(UPLOAD_PACK, &[REQUEST_TYPE], b"0000");
    for answer in [mirror.get(REFS), request] {
        assert_plain(&answer, 503, "must set PUBLIC_URL");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(mirror.metadata("itoa").status, 200);
    let output = hermetic("git", data.path())
        .args(["ls-remote", &format!("http://{}/git/index", mirror.address)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("must set PUBLIC_URL"), "{said}");
}

#[test]
fn without_a_git_program_everything_except_the_git_index_works() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let (data, programs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let settings = [
        ("GIT_REPO_URL", &*server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("PUBLIC_URL", PUBLIC_URL),
    ];
    let mirror = Mirror::start_with(&settings, |config| {
        config.search_path = programs.path().into();
    });
    mirror.wait_until_ready();
    let request = mirror.post(UPLOAD_PACK, &[REQUEST_TYPE], b"0000");
    for answer in [mirror.get(REFS), request] {
        assert_plain(&answer, 503, "no git program");
        assert!(answer.header("retry-after").is_some());
    }
    mirror.assert_serves_without_index();
    let line = index_line("brand-new", "1.0.0", false);
    mirror.wait_for_commit(&index.commit().crate_file("brand-new", &line).send());
    assert_eq!(mirror.get("/index/br/an/brand-new").body, line);
}

#[test]
fn before_the_first_view_git_clients_get_503() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start_with(&index, Fault::Status(500));
    let data = TempDir::new().unwrap();
    let mirror = start(&server, &data, &[("PUBLIC_URL", PUBLIC_URL)]);
    mirror.wait_for_failure();
    let request = mirror.post(UPLOAD_PACK, &[REQUEST_TYPE], b"0000");
    for answer in [mirror.get(REFS), request] {
        assert_plain(&answer, 503, "no copy of the index yet");
        assert!(answer.header("retry-after").is_some());
    }
    // A push is refused in any state.
    let push = "/git/index/info/refs?service=git-receive-pack";
    assert_eq!(mirror.get(push).status, 403);
    server.set(Fault::None);
    mirror.wait_for_git_commit(&index.head());
}

#[test]
fn a_client_that_disconnects_ends_its_children() {
    let index = GitIndex::with_fixtures();
    // Far more than sockets and pipes buffer.
    let mut noise = vec![0; 12 * 1024 * 1024];
    fastrand::Rng::with_seed(5).fill(&mut noise);
    index.commit().crate_file("noise", &noise).send();
    let scene = Scene::of(index);
    let request = scene.clone_request();
    let length = format!("Content-Length: {}\r\n", request.len());
    let open = || {
        let mut connection = Connection::open(scene.mirror.address).unwrap();
        let head = request_head(&length);
        connection
            .send(&[head.as_bytes(), &request].concat())
            .unwrap();
        connection
    };
    let connections = [open(), open()];
    eventually("packs are under way", || {
        let packing = |child: &&String| child.contains("pack-objects");
        scene.children().iter().filter(packing).count() == 2
    });
    drop(connections);
    scene.wait_until_childless();
    assert!(objects_in(&scene.post(&[], &request)) > 40);
    scene.wait_until_childless();
}

#[test]
fn a_client_that_disconnects_in_the_middle_of_a_request_ends_its_child() {
    let scene = Scene::start();
    let connection = scene.stall();
    eventually("a child waits", || scene.children().len() == 1);
    drop(connection);
    scene.wait_until_childless();
}

#[test]
fn an_incomplete_small_request_has_no_child_yet() {
    let scene = Scene::start();
    let mut connection = Connection::open(scene.mirror.address).unwrap();
    let request = scene.clone_request();
    let head = request_head(&format!("Content-Length: {}\r\n", request.len()));
    connection.send(head.as_bytes()).unwrap();
    connection.send(&request[..20]).unwrap();
    // After this answer the mirror must have read the beginning of the other request.
    assert!(objects_in(&scene.post(&[], &request)) > 40);
    scene.wait_until_childless();
    connection.send(&request[20..]).unwrap();
    assert!(objects_in(&connection.read_answer(false).unwrap()) > 40);
}

#[test]
fn a_killed_child_leaves_no_zombie() {
    let index = GitIndex::with_fixtures();
    let data = TempDir::new().unwrap();
    let program = Program::start(&[
        ("GIT_REPO_URL", index.path().to_str().unwrap()),
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("PUBLIC_URL", PUBLIC_URL),
    ]);
    program.wait_for_git_commit(&index.head());
    for _ in 0..3 {
        let connection = stall(program.address);
        eventually("a child waits", || program.children() == 1);
        assert_eq!(program.request("HEAD", REFS, &[]).status, 200);
        drop(connection);
        eventually("there is not even a zombie", || program.children() == 0);
    }
}

#[test]
fn at_the_limit_of_children_clients_wait_and_clients_that_read_nothing_are_disconnected() {
    let scene = Scene::start();
    let processors = thread::available_parallelism().unwrap().get();
    let children_max = (2 * processors).min(CROWD);
    let crowd: Vec<Connection> = (0..children_max).map(|_| scene.stall()).collect();
    eventually("all children are busy", || {
        scene.children().len() == children_max
    });
    let mirror = &scene.mirror;
    thread::scope(|scope| {
        let began = Instant::now();
        let refs = scope.spawn(|| mirror.get(REFS));
        let request = scope.spawn(|| mirror.post(UPLOAD_PACK, &[REQUEST_TYPE], b"0000"));
        // Meanwhile other requests are served.
        mirror.assert_serves_without_index();
        assert_eq!(mirror.get("/index/it/oa/itoa").status, 200);
        assert_eq!(refs.join().unwrap().status, 200);
        // A child without work sends an empty answer.
        assert_eq!(request.join().unwrap().status, 200);
        let waited = began.elapsed();
        let expected = Duration::from_secs(8)..Duration::from_secs(15);
        assert!(expected.contains(&waited), "{waited:?}");
        drop(crowd);
    });
    scene.wait_until_childless();
}
