//! Redirects of an upstream index: an index on the internet must not redirect the mirror into a private network.
//!
//! Two loopback addresses stand for the internet and for a private network. libgit2 resolves names through the
//! operating system, so the only name here is `localhost`. The mirror resolves it through the resolver of the test.

use std::net::{IpAddr, Ipv4Addr, TcpListener};

use crates_io_mirror::Resolver;
use tempfile::TempDir;

use crate::support::{GitIndex, GitServer, Mirror, index_line};

/// The address of the upstreams.
const INTERNET: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

/// The address of a server that must not get a request.
const PRIVATE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Another server in the private network.
const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

struct Scene {
    index: GitIndex,
    server: GitServer,
    data: TempDir,
}

impl Scene {
    fn new() -> Self {
        let index = GitIndex::with_fixtures();
        Self {
            server: GitServer::start(&index),
            data: TempDir::new().unwrap(),
            index,
        }
    }

    /// A mirror of this URL, where `localhost` has this address.
    fn start(&self, url: &str, localhost: Ipv4Addr) -> Mirror {
        let settings = [
            ("GIT_REPO_URL", url),
            ("DATA_DIR", self.data.path().to_str().unwrap()),
        ];
        Mirror::start_with(&settings, |config| {
            let look_up = move |name: &str| -> Vec<IpAddr> {
                match name {
                    "localhost" => vec![localhost.into()],
                    _ => Vec::new(),
                }
            };
            config.resolver =
                Resolver::custom(look_up, |address| address != IpAddr::from(INTERNET));
        })
    }
}

#[test]
fn a_redirect_of_a_public_index_into_a_private_network_is_refused() {
    let neighbour = TcpListener::bind((PRIVATE, 0)).unwrap();
    neighbour.set_nonblocking(true).unwrap();
    let port = neighbour.local_addr().unwrap().port();
    for (host, localhost) in [
        ("127.0.0.2", INTERNET),
        ("2130706434", INTERNET),
        ("localhost", PRIVATE),
    ] {
        let scene = Scene::new();
        scene.server.redirect_to(&format!("http://{host}:{port}"));
        let mirror = scene.start(&scene.server.url(), localhost);
        let why = mirror.wait_for_failure();
        assert!(why.contains("redirects to another host: "), "{host}: {why}");
        assert!(why.contains("public"), "{host}: {why}");
        let asked = neighbour.accept();
        assert!(
            asked.is_err(),
            "{host}: the neighbour got a request: {asked:?}"
        );
        scene.server.redirect_nowhere();
        mirror.wait_until_ready();
    }
}

#[test]
fn an_index_that_has_moved_to_another_public_host_is_followed_in_clones_and_fetches() {
    let scene = Scene::new();
    let moved = GitServer::start(&scene.index);
    // Two redirects in a row, each to another host.
    let halfway = GitServer::start(&scene.index);
    let last = moved.url().replace("/index.git", "");
    halfway.redirect_to(&last);
    let next = halfway.url().replace("/index.git", "");
    scene
        .server
        .redirect_to(&next.replace("127.0.0.1", "localhost"));
    let mirror = scene.start(&scene.server.url(), INTERNET);
    mirror.wait_until_ready();
    let line = index_line("moved", "1.0.0", false);
    mirror.wait_for_commit(&scene.index.commit().crate_file("moved", &line).send());
    assert!(
        scene
            .server
            .seen()
            .iter()
            .all(|seen| !seen.target.contains("POST"))
    );
    assert!(
        moved
            .seen()
            .iter()
            .any(|seen| seen.target.ends_with("git-upload-pack"))
    );
}

#[test]
fn an_index_that_has_moved_on_its_own_host_is_followed() {
    let scene = Scene::new();
    let moved = GitServer::start(&scene.index);
    scene
        .server
        .redirect_to(&moved.url().replace("/index.git", ""));
    let mirror = scene.start(&scene.server.url(), INTERNET);
    mirror.wait_until_ready();
}

#[test]
fn an_index_in_a_private_network_can_redirect_within_it() {
    let scene = Scene::new();
    let (first, moved) = (
        GitServer::start_at(PRIVATE, &scene.index),
        GitServer::start_at(NEIGHBOUR, &scene.index),
    );
    first.redirect_to(&moved.url().replace("/index.git", ""));
    let mirror = scene.start(&first.url(), INTERNET);
    mirror.wait_until_ready();
}

#[test]
fn the_target_of_a_redirect_to_another_host_never_gets_the_credentials() {
    let scene = Scene::new();
    let moved = GitServer::start(&scene.index);
    let other = moved
        .url()
        .replace("/index.git", "")
        .replace("127.0.0.1", "localhost");
    scene.server.redirect_to(&other);
    let mirror = scene.start(&scene.server.url_with("bob:s3cret"), INTERNET);
    mirror.wait_for_failure();
    assert!(moved.seen().is_empty());
}
