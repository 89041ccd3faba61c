//! The set-up in the documents and on the mirror's own page, taken as it is, with real cargo.

use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{
    CrateFile, CrateFiles, GitIndex, GitServer, Mirror, Project, eventually, succeeds,
};

const README: &str = include_str!("../../README.md");
const CLIENTS: &str = include_str!("../../docs/clients.md");
const GIT_INDEX: &str = include_str!("../../docs/git-index.md");

/// The URL of the mirror in the documents.
const SHOWN_URL: &str = "https://mirror.example";

struct Scene {
    mirror: Mirror,
    _index: GitIndex,
    _server: GitServer,
    files: CrateFiles,
    _data: TempDir,
}

impl Scene {
    /// A mirror of three libraries and one program.
    fn start() -> Self {
        let crates = [
            CrateFile::pack("leaf", "1.0.0", &[]),
            CrateFile::pack("under_score", "1.0.1", &["leaf"]),
            CrateFile::pack("another", "1.0.0", &[]),
            CrateFile::pack_program("a-tool", "0.3.0"),
        ];
        let files = CrateFiles::start(&crates);
        let index = GitIndex::with_fixtures();
        let mut commit = index.commit();
        for file in &crates {
            commit = commit.crate_file(file.name, &file.index_line());
        }
        commit.send();
        let server = GitServer::start(&index);
        let data = TempDir::new().unwrap();
        let mirror = Mirror::start_public(&[
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
        eventually("there is a catalog", || {
            mirror.get("/api/v1/summary").status == 200
        });
        Self {
            mirror,
            _index: index,
            _server: server,
            files,
            _data: data,
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.mirror.address)
    }

    /// The code block below a heading of a document, with this mirror's URL.
    fn shown_in(&self, document: &str, heading: &str, language: &str) -> String {
        let (_, section) = document.split_once(&format!("\n{heading}\n")).unwrap();
        let (_, block) = section.split_once(&format!("\n```{language}\n")).unwrap();
        let (block, _) = block.split_once("\n```\n").unwrap();
        assert!(block.contains(SHOWN_URL), "{block}");
        block.replace(SHOWN_URL, &self.url())
    }

    /// The code blocks on the page.
    fn of_page(&self) -> Vec<String> {
        let page = self.mirror.get("/").text();
        let blocks = page.split("<pre ").skip(1).map(|rest| {
            let (block, _) = rest.split_once("</pre>").unwrap();
            let (_attributes, block) = block.split_once('>').unwrap();
            let plain = block.replace("&#34;", "\"").replace("&#39;", "'");
            plain.replace("&#38;", "&").replace("&#60;", "<")
        });
        blocks.collect()
    }

    /// The upstream got a request for every crate file, so none bypassed the mirror.
    #[track_caller]
    fn assert_downloads_went_through(&self) {
        let seen = self.files.seen();
        for file in [
            "leaf-1.0.0",
            "under_score-1.0.1",
            "another-1.0.0",
            "a-tool-0.3.0",
        ] {
            assert!(
                seen.iter().any(|path| path.contains(file)),
                "{file}: {seen:?}"
            );
        }
    }
}

#[track_caller]
fn said(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(stdout).into_owned() + &String::from_utf8_lossy(stderr)
}

/// Common uses of cargo, in an empty cargo home. `before` comes before each subcommand.
fn works_with(scene: &Scene, project: &Project, before: &[&str], environment: &[(&str, &str)]) {
    let cargo = |arguments: &[&str]| {
        let mut command = project.command(&[before, arguments].concat());
        command.envs(environment.iter().copied()).output().unwrap()
    };
    succeeds(&cargo(&["fetch"]));
    succeeds(&cargo(&["add", "another"]));
    succeeds(&cargo(&["update"]));
    succeeds(&cargo(&["build", "--locked"]));
    assert_eq!(project.program_says(), "2\n");
    let info = cargo(&["info", "--registry", "mirror", "leaf"]);
    succeeds(&info);
    assert!(said(&info).contains("version: 1.0.0"), "{}", said(&info));
    let search = cargo(&["search", "--registry", "mirror", "leaf"]);
    succeeds(&search);
    assert_eq!(
        String::from_utf8_lossy(&search.stdout),
        "leaf = \"1.0.0\"\n"
    );
    for registry in [&[][..], &["--registry", "mirror"]] {
        let install = [
            "install",
            "a-tool",
            "--root",
            "installed",
            "--debug",
            "--force",
        ];
        succeeds(&cargo(&[&install[..], registry].concat()));
        let tool = Command::new(project.installed("a-tool")).output().unwrap();
        assert_eq!(tool.stdout, b"a-tool\n");
    }
    succeeds(&cargo(&["vendor", "--respect-source-config"]));
    let source = "source = \"registry+https://github.com/rust-lang/crates.io-index\"";
    assert!(
        project.lock_file().contains(source),
        "{}",
        project.lock_file()
    );
    scene.assert_downloads_went_through();
}

/// A project with this configuration of cargo.
fn set_up(toml: &str) -> Project {
    let project = Project::new("unused", &[]);
    project.set_up(toml);
    project
}

#[test]
fn the_set_up_of_the_readme_works() {
    let scene = Scene::start();
    let toml = scene.shown_in(README, "## Point cargo at it", "toml");
    works_with(&scene, &set_up(&toml), &[], &[]);
}

#[test]
fn the_set_up_of_the_documents_works_with_the_git_index() {
    let scene = Scene::start();
    let toml = scene.shown_in(GIT_INDEX, "## From the mirror", "toml");
    works_with(&scene, &set_up(&toml), &[], &[]);
}

#[test]
fn the_set_up_of_the_page_works() {
    let scene = Scene::start();
    let blocks = scene.of_page();
    assert_eq!(
        blocks[0],
        scene.shown_in(README, "## Point cargo at it", "toml"),
        "the page and README differ"
    );
    works_with(&scene, &set_up(&blocks[0]), &[], &[]);
}

#[test]
fn the_set_up_for_ci_works_without_a_file() {
    let scene = Scene::start();
    let script = scene.shown_in(CLIENTS, "## CI", "sh");
    assert_eq!(
        scene.of_page()[1],
        script,
        "the page and the document differ"
    );
    // Two lines: `export NAME=VALUE`, and a cargo command with an option and its value in single quotes.
    let (export, cargo) = script.split_once('\n').unwrap();
    let (name, value) = export
        .strip_prefix("export ")
        .and_then(|pair| pair.split_once('='))
        .unwrap();
    let option = cargo
        .strip_prefix("cargo --config '")
        .and_then(|rest| rest.strip_suffix("' fetch"))
        .unwrap();
    works_with(&scene, &set_up(""), &["--config", option], &[(name, value)]);
}
