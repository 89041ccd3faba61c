//! TLS: cargo, other clients, a certificate that changes, and settings that are wrong.

use axum::http::StatusCode;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::{
    Authority, CrateFile, CrateFiles, GitIndex, GitServer, Http2, Program, Project, chosen,
    eventually, get_by_http1, hermetic, index_line, shown, succeeds, tls,
};

struct Scene {
    program: Program,
    authority: Authority,
    runtime: Runtime,
    _data: TempDir,
}

/// A mirror with TLS that follows this index.
fn scene(index: &str, settings: &[(&str, &str)]) -> Scene {
    let authority = Authority::new();
    let data = TempDir::new().unwrap();
    let [certificate, key] = authority.settings();
    let own = [
        ("GIT_REPO_URL", index),
        ("DATA_DIR", data.path().to_str().unwrap()),
        (certificate.0, certificate.1.as_str()),
        (key.0, key.1.as_str()),
    ];
    let program = Program::start(&[&own, settings].concat());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    Scene {
        program,
        authority,
        runtime,
        _data: data,
    }
}

impl Scene {
    /// A mirror that needs no index.
    fn without_index() -> Self {
        scene("http://127.0.0.1:1/index.git", &[])
    }

    async fn connect(&self) -> Http2 {
        Http2::over_tls(self.program.address, &self.authority).await
    }

    /// The certificate that a new connection gets.
    async fn shown(&self) -> Vec<u8> {
        let stream = tls(self.program.address, &self.authority, &[b"h2"]);
        shown(&stream.await.unwrap()).to_vec()
    }

    fn wait_until_ready(&self) {
        eventually("the mirror is ready", || {
            let ready = async { self.connect().await.get("/readyz").await.status };
            self.runtime.block_on(ready) == StatusCode::OK
        });
    }

    fn warnings(&self) -> usize {
        self.program
            .output()
            .matches("TLS_KEY has changed and is not usable")
            .count()
    }
}

#[test]
fn cargo_reads_the_sparse_index_over_tls_by_http2() {
    let crates = [
        CrateFile::pack("leaf", "1.0.0", &[]),
        CrateFile::pack("under_score", "1.0.1", &["leaf"]),
    ];
    let files = CrateFiles::start(&crates);
    let template = format!(
        "http://{}/crates/{{crate}}/{{crate}}-{{version}}.crate",
        files.address()
    );
    // Only cargo without the mirror uses this.
    let config = serde_json::json!({ "dl": template }).to_string();
    let index = GitIndex::with_fixtures();
    let mut commit = index.commit().file("config.json", config.as_bytes());
    for file in &crates {
        commit = commit.crate_file(file.name, &file.index_line());
    }
    commit.send();
    let server = GitServer::start(&index);
    let scene = scene(&server.url(), &[("DOWNLOAD_URL", &template)]);
    scene.wait_until_ready();

    let port = scene.program.address.port();
    let project = Project::new(&format!("sparse+https://localhost:{port}/index/"), &[]);
    let trusted = scene.authority.file();
    project.configure(&format!(
        "[http]\ncainfo = \"{}\"\ndebug = true\n",
        trusted.display()
    ));
    let mut cargo = project.command(&["fetch"]);
    let output = cargo.env("CARGO_LOG", "network=debug").output().unwrap();
    succeeds(&output);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("< HTTP/2 200"), "{said}");
    assert!(said.contains("< HTTP/2 302"), "{said}");
    assert!(project.lock_file().contains("name = \"under_score\""));
    assert_eq!(files.seen().len(), 2);

    succeeds(&project.cargo(&["build", "--locked"]));
    let unmirrored = Project::new(&server.url(), &[]);
    for project in [&project, &unmirrored] {
        succeeds(&project.cargo(&["add", "itoa"]));
        succeeds(&project.cargo(&["update"]));
    }
    assert!(project.lock_file().contains("name = \"itoa\""));
    assert_eq!(
        project.lock_file(),
        unmirrored.lock_file(),
        "the same as without the mirror"
    );

    for squashed in [false, true] {
        if squashed {
            index.squash();
        }
        let version = if squashed { "1.8.0" } else { "1.7.0" };
        let lines = [crates[0].index_line(), index_line("leaf", version, false)];
        index.commit().crate_file("leaf", &lines.concat()).send();
        eventually("cargo sees the publish", || {
            succeeds(&project.cargo(&["update"]));
            project
                .lock_file()
                .contains(&format!("version = \"{version}\""))
        });
    }
}

#[test]
fn git_fetches_the_index_over_tls_by_http2() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let scene = scene(&server.url(), &[("PUBLIC_URL", "https://mirror.example")]);
    scene.wait_until_ready();
    let home = TempDir::new().unwrap();
    let url = format!(
        "https://localhost:{}/git/index",
        scene.program.address.port()
    );
    let git = |arguments: &[&str]| {
        let output = hermetic("git", home.path())
            .current_dir(home.path())
            .env("GIT_SSL_CAINFO", scene.authority.file())
            .env("GIT_CURL_VERBOSE", "1")
            .args(arguments)
            .output()
            .unwrap();
        succeeds(&output);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = git(&["clone", "--bare", &url, "clone"]);
    assert!(said.contains("HTTP/2 200"), "{said}");
    index
        .commit()
        .crate_file("leaf", &index_line("leaf", "1.0.0", false))
        .send();
    eventually("the publish arrives", || {
        git(&["-C", "clone", "fetch", "origin", "HEAD:master"]);
        let shown = hermetic("git", home.path())
            .arg("--git-dir")
            .arg(home.path().join("clone"))
            .args(["ls-tree", "-r", "--name-only", "master"])
            .output()
            .unwrap();
        String::from_utf8(shown.stdout)
            .unwrap()
            .contains("le/af/leaf")
    });
}

#[test]
fn the_base_url_says_https_unless_a_proxy_says_otherwise() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let scene = scene(&server.url(), &[]);
    scene.wait_until_ready();
    scene.runtime.block_on(async {
        let client = scene.connect().await;
        for (forwarded, scheme) in [
            (&[][..], "https"),
            (&[("x-forwarded-proto", "https")], "https"),
            (&[("x-forwarded-proto", "http, https")], "http"),
            (&[("x-forwarded-proto", "gopher")], "https"),
        ] {
            let answer = client.request("GET", "/index/config.json", forwarded).await;
            let config: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
            let expected = format!("{scheme}://{}", scene.program.address);
            assert_eq!(config["api"], expected.as_str(), "{forwarded:?}");
        }
    });
}

#[test]
fn a_client_without_http2_is_served() {
    let scene = Scene::without_index();
    scene.runtime.block_on(async {
        for (offered, expected) in [
            (&[&b"http/1.1"[..]][..], Some(&b"http/1.1"[..])),
            (&[], None),
        ] {
            let stream = tls(scene.program.address, &scene.authority, offered)
                .await
                .unwrap();
            assert_eq!(chosen(&stream), expected);
            assert_eq!(get_by_http1(stream, "/livez").await.body.as_ref(), b"ok\n");
        }
        let nothing_in_common = tls(scene.program.address, &scene.authority, &[b"h3"]).await;
        assert!(nothing_in_common.is_err());
    });
}

#[test]
fn two_hundred_streams_at_once_succeed() {
    let scene = Scene::without_index();
    scene.runtime.block_on(async {
        let client = scene.connect().await;
        let asked: Vec<_> = (0..200)
            .map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let path = format!("/api/v1/crates/leaf/1.0.{number}/download");
                    client.get(&path).await
                })
            })
            .collect();
        for (number, answer) in asked.into_iter().enumerate() {
            let answer = answer.await.unwrap();
            assert_eq!(answer.status, StatusCode::FOUND);
            let location = answer.headers["location"].to_str().unwrap();
            assert!(location.ends_with(&format!("-1.0.{number}.crate")));
        }
    });
}

#[test]
fn new_connections_get_a_new_certificate_and_open_ones_continue() {
    let scene = Scene::without_index();
    let first = scene.runtime.block_on(scene.shown());
    let old = scene.runtime.block_on(scene.connect());
    let second = scene.authority.renew();
    eventually("the new certificate is in use", || {
        scene.runtime.block_on(scene.shown()) == second.as_ref()
    });
    assert_ne!(first, second.as_ref());
    let answer = scene.runtime.block_on(old.get("/livez"));
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(scene.warnings(), 0);
}

#[test]
fn unusable_certificate_files_change_nothing_and_give_one_warning() {
    let scene = Scene::without_index();
    let first = scene.runtime.block_on(scene.shown());
    let (certificate, key, der) = scene.authority.sign();
    let broken = [
        (Some("junk"), None),
        // Half of an update.
        (Some(certificate.as_str()), None),
        (None, Some("")),
    ];
    for (number, (certificate, key)) in broken.into_iter().enumerate() {
        scene.authority.write(certificate, key);
        eventually("the warning is logged", || scene.warnings() == number + 1);
        assert_eq!(scene.runtime.block_on(scene.shown()), first);
    }
    let [_, (_, key_file)] = scene.authority.settings();
    std::fs::remove_file(&key_file).unwrap();
    eventually("the warning is logged", || {
        scene.warnings() == broken.len() + 1
    });
    assert_eq!(scene.runtime.block_on(scene.shown()), first);
    scene.authority.write(None, Some(&key));
    eventually("the complete update is in use", || {
        scene.runtime.block_on(scene.shown()) == der.as_ref()
    });
    assert_eq!(scene.warnings(), broken.len() + 1);
}

#[test]
fn a_client_without_tls_does_no_harm() {
    let scene = Scene::without_index();
    let answer = scene.program.try_request("GET", "/livez", &[]);
    assert!(answer.is_err());
    let answer = scene
        .runtime
        .block_on(async { scene.connect().await.get("/livez").await });
    assert_eq!(answer.status, StatusCode::OK);
    assert!(!scene.program.output().contains("panicked"));
}

#[test]
fn sigterm_ends_a_process_with_idle_connections_over_tls() {
    let mut scene = Scene::without_index();
    let silent = std::net::TcpStream::connect(scene.program.address).unwrap();
    let http2 = scene.runtime.block_on(async {
        let client = scene.connect().await;
        assert_eq!(client.get("/livez").await.status, StatusCode::OK);
        client
    });
    scene.program.terminate();
    scene.runtime.block_on(async {
        while !http2.ended.is_finished() {
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(scene.program.wait_for_exit(), Some(0));
    drop(silent);
}

#[test]
fn a_bad_certificate_gives_one_line_that_names_the_variable() {
    let authority = Authority::new();
    let [(_, certificate), (_, key)] = authority.settings();
    let (_, another_key, _) = authority.sign();
    let data = TempDir::new().unwrap();
    let file = |name: &str, content: &str| {
        let path = data.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let another_key = file("another.pem", &another_key);
    let junk = file("junk.pem", "junk");
    let secret = std::fs::read_to_string(&key).unwrap();
    // This port is in use. If it were bound before the settings are checked, the error would be about it.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (certificate, key, blamed, expected) in [
        (certificate.as_str(), "", "TLS_KEY", "or neither"),
        ("", key.as_str(), "TLS_CERT", "or neither"),
        ("/nowhere", &key, "TLS_CERT", "that can be read"),
        (&certificate, "/nowhere", "TLS_KEY", "that can be read"),
        ("/", &key, "TLS_CERT", "that can be read"),
        (&junk, &key, "TLS_CERT", "a PEM file with the certificate"),
        (&certificate, &junk, "TLS_KEY", "a PEM file with a private"),
        (&key, &key, "TLS_CERT", "a PEM file with the certificate"),
        (&certificate, &another_key, "TLS_KEY", "the key of the"),
        (&certificate, &secret, "TLS_KEY", "that can be read"),
    ] {
        let output = Program::run(&[
            ("PORT", &port),
            ("DATA_DIR", data.path().join("data").to_str().unwrap()),
            ("TLS_CERT", certificate),
            ("TLS_KEY", key),
        ]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.starts_with(&format!("{blamed}: `")), "{said}");
        assert!(said.contains(expected), "{said}");
        assert!(!said.contains("MIG"), "a key shows: {said}");
        assert!(!data.path().join("data").exists());
    }
}
