//! Proxies for the index and for crate files. The names of the upstreams have no addresses, so only the proxy reaches
//! them.

use tempfile::TempDir;

use crate::support::{Fault, GitServer, HttpProxy, Origin, Program, eventually};

struct Scene {
    origin: Origin,
    server: GitServer,
    proxy: HttpProxy,
    data: TempDir,
}

impl Scene {
    fn new() -> Self {
        let origin = Origin::of(1);
        Self {
            server: GitServer::start_with(&origin.index, Fault::None),
            proxy: HttpProxy::start(),
            data: TempDir::new().unwrap(),
            origin,
        }
    }

    /// Settings of a mirror whose upstreams have these names instead of addresses.
    fn settings(&self, index: &str, files: &str) -> Vec<(&'static str, String)> {
        let at = |url: String, host: &str| url.replace("127.0.0.1", host);
        vec![
            ("GIT_REPO_URL", at(self.server.url(), index)),
            ("DOWNLOAD_URL", at(self.origin.upstream.template(), files)),
            ("DOWNLOAD_MODE", "cache".to_owned()),
            ("DATA_DIR", self.data.path().to_str().unwrap().to_owned()),
        ]
    }

    fn start(&self, settings: &[(&str, String)], proxies: &[(&str, &str)]) -> Program {
        let own: Vec<(&str, &str)> = settings
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let program = Program::start(&[&own[..], proxies].concat());
        program.wait_until_ready();
        let answer = program.get(&self.origin.files[0].download_path());
        assert_eq!(answer.status, 200, "{}", answer.text());
        program
    }
}

#[test]
fn an_index_and_crate_files_with_http_come_through_the_proxy() {
    for variable in ["http_proxy", "all_proxy", "ALL_PROXY"] {
        let scene = Scene::new();
        let proxy = format!("http://b0b:s3cr3t@{}", scene.proxy.address());
        let settings = scene.settings("index.invalid", "files.invalid");
        let program = scene.start(&settings, &[(variable, &proxy)]);
        let seen = scene.proxy.seen();
        let asked = |method: &str, part: &str| {
            seen.iter()
                .any(|request| request.method == method && request.target.contains(part))
        };
        assert!(asked("GET", "http://index.invalid:"), "{seen:?}");
        assert!(asked("POST", "http://index.invalid:"), "{seen:?}");
        assert!(asked("GET", "http://files.invalid:"), "{seen:?}");
        // `b0b:s3cr3t` in Base64.
        let known = "Basic YjBiOnMzY3IzdA==";
        assert!(
            seen.iter().all(|request| request.authorization == known),
            "{seen:?}"
        );
        let commit = scene.origin.index.commit().file("new", b"new").send();
        eventually("a fetch gets the new commit", || {
            program.get("/readyz").json()["index"]["commit"] == commit.as_str()
        });
        assert!(!program.output().contains("s3cr3t"));
    }
}

#[test]
fn no_proxy_and_the_ignored_upper_case_variable_bypass_the_proxy() {
    for exception in ["a.example, 127.0.0.0/8", "*", "127.0.0.1"] {
        let scene = Scene::new();
        let proxy = format!("http://{}", scene.proxy.address());
        let settings = scene.settings("127.0.0.1", "127.0.0.1");
        scene.start(&settings, &[("ALL_PROXY", &proxy), ("NO_PROXY", exception)]);
        assert!(scene.proxy.seen().is_empty(), "{exception}");
    }
    let scene = Scene::new();
    let proxy = format!("http://{}", scene.proxy.address());
    let settings = scene.settings("LocalHost", "LocalHost");
    scene.start(
        &settings,
        &[("ALL_PROXY", &proxy), ("no_proxy", "x, LOCALHOST")],
    );
    assert!(scene.proxy.seen().is_empty());
    let program = scene.start(&settings, &[("HTTP_PROXY", &proxy)]);
    assert!(scene.proxy.seen().is_empty());
    assert!(program.output().contains("HTTP_PROXY is ignored"));
}

#[test]
fn an_index_with_https_comes_through_a_tunnel() {
    let scene = Scene::new();
    let proxy = format!("http://{}", scene.proxy.address());
    let program = Program::start(&[
        ("GIT_REPO_URL", "https://index.invalid:9/index"),
        ("DATA_DIR", scene.data.path().to_str().unwrap()),
        ("ALL_PROXY", &proxy),
    ]);
    eventually("a tunnel is asked for", || {
        scene.proxy.saw("index.invalid:9")
    });
    assert_eq!(scene.proxy.seen()[0].method, "CONNECT");
    drop(program);
}

#[test]
fn check_config_shows_the_proxies_and_which_hosts_they_reach() {
    let data = TempDir::new().unwrap();
    let output = Program::run_verb(
        &["check-config"],
        &[
            ("GIT_REPO_URL", "http://index.example/index"),
            ("DOWNLOAD_URL", "http://files.example/"),
            ("DOWNLOAD_MODE", "cache"),
            ("DATA_DIR", data.path().to_str().unwrap()),
            ("http_proxy", "http://b0b:s3cr3t@proxy.example:3128"),
            ("NO_PROXY", "files.example"),
        ],
    );
    let (out, notes) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert_eq!(output.status.code(), Some(0), "{notes}");
    assert!(
        out.contains("http_proxy = http://***@proxy.example:3128\n"),
        "{out}"
    );
    assert!(out.contains("NO_PROXY = files.example\n"), "{out}");
    let through = "GIT_REPO_URL: index.example is reached through http://***@proxy.example:3128\n";
    assert!(notes.contains(through), "{notes}");
    assert!(
        notes.contains("DOWNLOAD_URL: files.example is reached directly\n"),
        "{notes}"
    );
    assert!(!notes.contains("s3cr3t"));
}
