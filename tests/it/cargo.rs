//! Real cargo, through source replacement, as in the classic set-up: a fork of the index whose `config.json` points at
//! the mirror.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{CrateFile, CrateFiles, GitIndex, GitServer, Mirror, hermetic, index_line};

struct Scene {
    index: GitIndex,
    files: CrateFiles,
    mirror: Mirror,
    project: Project,
    _server: GitServer,
    _data: TempDir,
}

/// A fork of the index with real crates in it and a few that can be downloaded, a mirror of it, and a project.
fn scene() -> Scene {
    let crates = [
        CrateFile::pack("leaf", "1.0.0", &[]),
        CrateFile::pack("plus-build", "1.0.0+b", &[]),
        CrateFile::pack("MixedCase", "1.2.3", &["leaf"]),
        CrateFile::pack("under_score", "1.0.1", &["MixedCase", "plus-build"]),
    ];
    let index = GitIndex::with_fixtures();
    let mut commit = index.commit();
    for file in &crates {
        commit = commit.crate_file(file.name, &file.index_line());
    }
    commit.send();
    let server = GitServer::start(&index);
    let files = CrateFiles::start(&crates);
    let data = TempDir::new().unwrap();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
        (
            "DOWNLOAD_URL",
            &format!(
                "http://{}/crates/{{crate}}/{{crate}}-{{version}}.crate",
                files.address()
            ),
        ),
    ]);
    mirror.wait_until_ready();
    let project = Project::new(&server.url());
    Scene {
        index,
        files,
        mirror,
        project,
        _server: server,
        _data: data,
    }
}

impl Scene {
    /// Commits the `config.json` that cargo reads.
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

/// A package that depends on a crate of the index, with a cargo home of its own.
pub(crate) struct Project {
    root: TempDir,
}

impl Project {
    pub(crate) fn new(index: &str) -> Self {
        let root = TempDir::new().unwrap();
        let write = |path: &str, content: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        };
        write(
            "home/config.toml",
            &format!(
                "[source.crates-io]\nreplace-with = \"mirror\"\n\n[source.mirror]\nregistry = \"{index}\"\n\n\
                 [registries.mirror]\nindex = \"{index}\"\n"
            ),
        );
        write(
            "package/Cargo.toml",
            "[package]\nname = \"user\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n\
             [dependencies]\nunder_score = \"1\"\n",
        );
        write(
            "package/src/main.rs",
            "fn main() {\n    println!(\"{}\", under_score::count());\n}\n",
        );
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Adds to cargo's configuration.
    pub(crate) fn configure(&self, toml: &str) {
        let path = self.path("home/config.toml");
        let config = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{config}\n{toml}")).unwrap();
    }

    pub(crate) fn lock_file(&self) -> String {
        std::fs::read_to_string(self.path("package/Cargo.lock")).unwrap()
    }

    fn cargo(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// cargo in the package.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let cargo = Path::new(env!("CARGO"));
        let mut command = hermetic(cargo, self.root.path());
        // Beside cargo itself, where rustup keeps them: its stand-ins on PATH need a home that is not there.
        let rustc = cargo.with_file_name("rustc");
        if rustc.exists() {
            command.env("RUSTC", rustc);
        }
        command
            .current_dir(self.path("package"))
            .env("CARGO_HOME", self.path("home"))
            .args(arguments);
        command
    }
}

#[track_caller]
pub(crate) fn succeeds(output: &Output) {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn cargo_fetches_and_builds_through_the_redirect() {
    let scene = scene();
    scene.configure("/api/v1/crates", "");
    succeeds(&scene.project.cargo(&["fetch"]));
    scene.assert_downloads_went_through();
    succeeds(&scene.project.cargo(&["build", "--offline"]));
    let program = scene.project.path("package/target/debug/user");
    let output = Command::new(program).output().unwrap();
    // under_score, MixedCase, leaf, plus-build.
    assert_eq!(String::from_utf8_lossy(&output.stdout), "4\n");
    let lock = scene.project.lock_file();
    let sources = lock.lines().filter(|line| line.starts_with("source"));
    assert_eq!(
        sources.collect::<Vec<_>>(),
        ["source = \"registry+https://github.com/rust-lang/crates.io-index\""; 4]
    );
}

#[test]
fn an_old_config_json_with_a_slash_behind_api_works() {
    let scene = scene();
    scene.configure("//api/v1/crates", "/");
    succeeds(&scene.project.cargo(&["build"]));
    scene.assert_downloads_went_through();

    let yank = ["yank", "--registry", "mirror", "--version", "1.0.0", "leaf"];
    let output = scene
        .project
        .cargo(&[&yank[..], &["--token", "x"]].concat());
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("status 403 Forbidden"), "{said}");
    assert!(
        said.contains("read-only mirror") && said.contains("cargo publish --registry crates-io"),
        "{said}"
    );
}

#[test]
fn cargo_uses_the_sparse_index_from_end_to_end() {
    let scene = scene();
    scene.configure("/api/v1/crates", "");
    let sparse = Project::new(&format!("sparse+http://{}/index/", scene.mirror.address));
    succeeds(&sparse.cargo(&["fetch"]));
    scene.assert_downloads_went_through();
    succeeds(&sparse.cargo(&["build", "--locked"]));
    succeeds(&scene.project.cargo(&["generate-lockfile"]));
    assert_eq!(
        sparse.lock_file(),
        scene.project.lock_file(),
        "as made against the git index"
    );

    let added = sparse.cargo(&["add", "under-score", "itoa"]);
    succeeds(&added);
    let said = String::from_utf8_lossy(&added.stderr);
    assert!(
        said.contains("translating `under-score` to `under_score`"),
        "{said}"
    );
    succeeds(&sparse.cargo(&["generate-lockfile"]));
    assert!(sparse.lock_file().contains("name = \"itoa\""));
    let missing = sparse.cargo(&["add", "no-such-crate"]);
    assert!(
        String::from_utf8_lossy(&missing.stderr).contains("could not be found in registry index")
    );
}

#[test]
fn cargo_sees_a_publish_through_the_sparse_index_and_a_squash_does_not_matter() {
    let scene = scene();
    let sparse = Project::new(&format!("sparse+http://{}/index/", scene.mirror.address));
    succeeds(&sparse.cargo(&["generate-lockfile"]));
    assert!(!sparse.lock_file().contains("version = \"1.7.0\""));
    let mut lines = CrateFile::pack("leaf", "1.0.0", &[]).index_line();
    lines.extend(index_line("leaf", "1.7.0", false));
    let publish = scene.index.commit().crate_file("leaf", &lines).send();
    scene.mirror.wait_for_commit(&publish);
    succeeds(&sparse.cargo(&["update"]));
    assert!(sparse.lock_file().contains("version = \"1.7.0\""));

    scene.index.squash();
    lines.extend(index_line("leaf", "1.8.0", false));
    let publish = scene.index.commit().crate_file("leaf", &lines).send();
    scene.mirror.wait_for_commit(&publish);
    succeeds(&sparse.cargo(&["update"]));
    assert!(sparse.lock_file().contains("version = \"1.8.0\""));
}
