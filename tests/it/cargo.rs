//! Real cargo with source replacement: with every way in which cargo can read the mirror's index, and in the classic
//! set-up, a fork of the index whose `config.json` names the mirror.

use tempfile::TempDir;

use crate::support::{
    CrateFile, CrateFiles, GitIndex, GitServer, Mirror, Project, index_line, succeeds,
};

/// A way in which cargo reads the mirror's index.
struct Way {
    /// Starts a mirror that offers the index in this way.
    start: fn(&[(&str, &str)]) -> Mirror,
    /// The index, as cargo's configuration names it.
    index: fn(&Mirror) -> String,
    /// Waits until the index shows a commit of the upstream.
    wait_for_commit: fn(&Mirror, &str),
    /// Cargo's settings, as environment variables.
    settings: &'static [(&'static str, &'static str)],
}

/// Without `PUBLIC_URL`.
const SPARSE: Way = Way {
    start: Mirror::start,
    index: |mirror| format!("sparse+http://{}/index/", mirror.address),
    wait_for_commit: |mirror, commit| mirror.wait_for_commit(commit),
    settings: &[],
};

/// With cargo's own libgit2: version 0 of git's protocol.
const GIT: Way = Way {
    start: Mirror::start_public,
    index: |mirror| format!("http://{}/git/index", mirror.address),
    wait_for_commit: |mirror, commit| mirror.wait_for_git_commit(commit),
    settings: &[],
};

/// With the git program: version 2 of git's protocol.
const GIT_PROGRAM: Way = Way {
    settings: &[("CARGO_NET_GIT_FETCH_WITH_CLI", "true")],
    ..GIT
};

/// With gix, which is an unstable feature of cargo.
const GIX: Way = Way {
    settings: &[ON_TRIAL, ("CARGO_UNSTABLE_GITOXIDE", "fetch")],
    ..GIT
};

/// Without the history of the index, which is an unstable feature of cargo, too.
const GIT_SHALLOW: Way = Way {
    settings: &[ON_TRIAL, ("CARGO_UNSTABLE_GIT", "shallow-index")],
    ..GIT
};

/// Both unstable features.
const GIX_SHALLOW: Way = Way {
    settings: &[
        ON_TRIAL,
        ("CARGO_UNSTABLE_GITOXIDE", "fetch"),
        ("CARGO_UNSTABLE_GIT", "shallow-index"),
    ],
    ..GIT
};

/// Allows unstable features of cargo.
const ON_TRIAL: (&str, &str) = ("RUSTC_BOOTSTRAP", "1");

struct Scene {
    way: &'static Way,
    index: GitIndex,
    server: GitServer,
    files: CrateFiles,
    mirror: Mirror,
    _data: TempDir,
}

impl Scene {
    /// An index with real crates and a few crates that can be downloaded, and a mirror of it.
    fn start(way: &'static Way) -> Self {
        let crates = [
            CrateFile::pack("leaf", "1.0.0", &[]),
            CrateFile::pack("plus-build", "1.0.0+b", &[]),
            CrateFile::pack("MixedCase", "1.2.3", &["leaf"]),
            CrateFile::pack("under_score", "1.0.1", &["MixedCase", "plus-build"]),
        ];
        let files = CrateFiles::start(&crates);
        let template = format!(
            "http://{}/crates/{{crate}}/{{crate}}-{{version}}.crate",
            files.address()
        );
        let index = GitIndex::with_fixtures();
        let config = serde_json::json!({ "dl": template }).to_string();
        let mut commit = index.commit().file("config.json", config.as_bytes());
        for file in &crates {
            commit = commit.crate_file(file.name, &file.index_line());
        }
        commit.send();
        let server = GitServer::start(&index);
        let data = TempDir::new().unwrap();
        let mirror = (way.start)(&[
            ("GIT_REPO_URL", &server.url()),
            ("DATA_DIR", data.path().to_str().unwrap()),
            ("DOWNLOAD_URL", &template),
        ]);
        mirror.wait_until_ready();
        Self {
            way,
            index,
            server,
            files,
            mirror,
            _data: data,
        }
    }

    /// A project that uses the mirror's index.
    fn mirrored(&self) -> Project {
        Project::new(&(self.way.index)(&self.mirror), self.way.settings)
    }

    /// A project that uses the upstream index.
    fn unmirrored(&self) -> Project {
        Project::new(&self.server.url(), &[])
    }

    /// Commits a `config.json` to the upstream index that names the mirror.
    fn configure(&self, dl: &str, api: &str) {
        let address = self.mirror.address;
        let config = serde_json::json!({
            "dl": format!("http://{address}{dl}"),
            "api": format!("http://{address}{api}"),
        });
        let config = config.to_string();
        self.index
            .commit()
            .file("config.json", config.as_bytes())
            .send();
    }

    /// Publishes versions of `leaf`, and waits until the mirror shows them.
    fn publish(&self, lines: &[u8]) {
        let commit = self.index.commit().crate_file("leaf", lines).send();
        (self.way.wait_for_commit)(&self.mirror, &commit);
    }

    /// The paths are those of the mirror's redirects. cargo itself would not encode the plus.
    #[track_caller]
    fn assert_downloads_went_through(&self) {
        assert_eq!(
            self.files.seen(),
            [
                "/crates/MixedCase/MixedCase-1.2.3.crate",
                "/crates/leaf/leaf-1.0.0.crate",
                "/crates/plus-build/plus-build-1.0.0%2Bb.crate",
                "/crates/under_score/under_score-1.0.1.crate",
            ]
        );
    }
}

#[test]
fn cargo_fetches_and_builds_through_the_redirect() {
    let scene = Scene::start(&SPARSE);
    scene.configure("/api/v1/crates", "");
    let project = scene.unmirrored();
    succeeds(&project.cargo(&["fetch"]));
    scene.assert_downloads_went_through();
    succeeds(&project.cargo(&["build", "--offline"]));
    // The four crates are under_score, MixedCase, leaf and plus-build.
    assert_eq!(project.program_says(), "4\n");
    let lock = project.lock_file();
    let sources = lock.lines().filter(|line| line.starts_with("source"));
    assert_eq!(
        sources.collect::<Vec<_>>(),
        ["source = \"registry+https://github.com/rust-lang/crates.io-index\""; 4]
    );
}

#[test]
fn an_old_config_json_with_a_slash_after_api_works() {
    let scene = Scene::start(&SPARSE);
    scene.configure("//api/v1/crates", "/");
    let project = scene.unmirrored();
    succeeds(&project.cargo(&["build"]));
    scene.assert_downloads_went_through();

    let yank = ["yank", "--registry", "mirror", "--version", "1.0.0", "leaf"];
    let output = project.cargo(&[&yank[..], &["--token", "x"]].concat());
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("status 403 Forbidden"), "{said}");
    assert!(
        said.contains("read-only mirror") && said.contains("cargo publish --registry crates-io"),
        "{said}"
    );
}

/// Every use of an index, with an empty cargo home. The `config.json` of the upstream would bypass the mirror.
fn works_from_end_to_end(way: &'static Way) {
    let scene = Scene::start(way);
    // The git program, because one cargo version of `.ci/cargo-versions` cannot read the upstream's git index by
    // itself.
    let unmirrored = Project::new(&scene.server.url(), GIT_PROGRAM.settings);
    let mirrored = scene.mirrored();
    succeeds(&mirrored.cargo(&["fetch"]));
    scene.assert_downloads_went_through();
    succeeds(&mirrored.cargo(&["build", "--locked"]));
    assert_eq!(mirrored.program_says(), "4\n");

    let missing = mirrored.cargo(&["add", "no-such-crate"]);
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("could not be found in registry index")
    );
    for project in [&mirrored, &unmirrored] {
        let added = project.cargo(&["add", "under-score", "itoa"]);
        succeeds(&added);
        let said = String::from_utf8_lossy(&added.stderr);
        assert!(
            said.contains("translating `under-score` to `under_score`"),
            "{said}"
        );
        succeeds(&project.cargo(&["update"]));
    }
    let lock = mirrored.lock_file();
    assert!(lock.contains("name = \"itoa\"") && lock.contains("name = \"leaf\""));
    assert_eq!(
        lock,
        unmirrored.lock_file(),
        "the same as without the mirror"
    );
}

#[test]
fn cargo_uses_the_sparse_index_from_end_to_end() {
    works_from_end_to_end(&SPARSE);
}

#[test]
fn cargo_uses_the_git_index_from_end_to_end() {
    works_from_end_to_end(&GIT);
}

#[test]
fn cargo_uses_the_git_index_through_the_git_program_from_end_to_end() {
    works_from_end_to_end(&GIT_PROGRAM);
}

#[test]
fn cargo_uses_the_git_index_through_gix_from_end_to_end() {
    works_from_end_to_end(&GIX);
}

/// A cargo home that already has the index sees new versions, even after a squash of the history.
fn follows_a_publish_and_a_squash(way: &'static Way) {
    let scene = Scene::start(way);
    let project = scene.mirrored();
    succeeds(&project.cargo(&["generate-lockfile"]));
    let has_version = |version: &str| {
        let line = format!("version = \"{version}\"");
        project.lock_file().contains(&line)
    };
    assert!(!has_version("1.7.0"));
    let mut lines = CrateFile::pack("leaf", "1.0.0", &[]).index_line();
    lines.extend(index_line("leaf", "1.7.0", false));
    scene.publish(&lines);
    succeeds(&project.cargo(&["update"]));
    assert!(has_version("1.7.0"));

    scene.index.squash();
    succeeds(&project.cargo(&["update"]));
    assert!(has_version("1.7.0"));
    lines.extend(index_line("leaf", "1.8.0", false));
    scene.publish(&lines);
    succeeds(&project.cargo(&["update"]));
    assert!(has_version("1.8.0"));
}

#[test]
fn cargo_sees_a_publish_in_the_sparse_index_even_after_a_squash() {
    follows_a_publish_and_a_squash(&SPARSE);
}

#[test]
fn cargo_sees_a_publish_in_the_git_index_even_after_a_squash() {
    follows_a_publish_and_a_squash(&GIT);
}

#[test]
fn cargo_sees_a_publish_through_the_git_program_even_after_a_squash() {
    follows_a_publish_and_a_squash(&GIT_PROGRAM);
}

#[test]
fn cargo_sees_a_publish_through_gix_even_after_a_squash() {
    follows_a_publish_and_a_squash(&GIX);
}

#[test]
fn cargo_sees_a_publish_in_a_shallow_git_index_even_after_a_squash() {
    follows_a_publish_and_a_squash(&GIT_SHALLOW);
}

#[test]
fn cargo_sees_a_publish_through_gix_in_a_shallow_index_even_after_a_squash() {
    follows_a_publish_and_a_squash(&GIX_SHALLOW);
}
