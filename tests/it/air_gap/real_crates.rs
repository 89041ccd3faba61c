//! A project with real dependencies, built by real cargo: online, without the upstreams, and behind the gap.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::done;
use crate::support::{
    CrateUpstream, Fault, GitIndex, GitServer, Mirror, Project, PublishedCrate, borrowed, succeeds,
};

/// What the project depends on. With all that is behind them, a dozen crates.
const DEPENDENCIES: [&str; 3] = ["semver", "serde", "serde_json"];

const MANIFEST: &str =
    "semver = \"1\"\nserde = { version = \"1\", features = [\"derive\"] }\nserde_json = \"1\"\n";

const MAIN: &str = "
    #[derive(serde::Serialize)]
    struct Answer { version: String }
    let version = semver::Version::new(1, 2, 3).to_string();
    println!(\"{}\", serde_json::to_string(&Answer { version }).unwrap());";

const OUTPUT: &str = "{\"version\":\"1.2.3\"}\n";

/// What only the second archive brings.
const LATE: &str = "fnv";

/// All that is upstream of the mirrors.
struct Upstream {
    crates: Vec<PublishedCrate>,
    index: GitIndex,
    git: GitServer,
    files: CrateUpstream,
}

impl Upstream {
    fn start() -> Self {
        let crates = PublishedCrate::with_dependencies(&DEPENDENCIES);
        let index = GitIndex::with_fixtures();
        let mut commit = index.commit().file("config.json", b"{}");
        for published in &crates {
            commit = commit.crate_file(published.file.name, &published.index_file);
        }
        commit.delete_crate(LATE).send();
        let files = CrateUpstream::start(&[]);
        for published in &crates {
            files.hold(&published.file.path(), published.file.content.clone());
        }
        Self {
            crates,
            git: GitServer::start(&index),
            index,
            files,
        }
    }

    fn stop(&mut self) {
        self.files.stop();
        self.git.set(Fault::Disconnect);
    }

    fn restart(&mut self) {
        self.files.restart();
        self.git.set(Fault::None);
    }

    /// Publishes a newer version of everything, the files of which no mirror ever asks for.
    fn publish_successors(&self) -> String {
        let mut commit = self.index.commit();
        for published in &self.crates {
            commit = commit.crate_file(published.file.name, &published.index_file_with_successor());
        }
        commit.send()
    }

    /// Publishes one more crate.
    fn publish_late(&self) -> PublishedCrate {
        let late = PublishedCrate::with_dependencies(&[LATE]).remove(0);
        self.files
            .hold(&late.file.path(), late.file.content.clone());
        let commit = self.index.commit();
        commit.crate_file(LATE, &late.index_file).send();
        late
    }

    fn settings(&self, mode: &'static str) -> [(&'static str, String); 3] {
        [
            ("GIT_REPO_URL", self.git.url()),
            ("DOWNLOAD_URL", self.files.template()),
            ("DOWNLOAD_MODE", mode.to_owned()),
        ]
    }

    /// How often anybody has asked for anything.
    fn requests(&self) -> (usize, usize) {
        (self.git.seen().len(), self.files.seen().len())
    }

    /// The checksums that a lock file must have, by name and version.
    fn checksums(&self) -> BTreeMap<(String, String), String> {
        let files = self.crates.iter().map(|published| &published.file);
        files
            .map(|file| {
                (
                    (file.name.to_owned(), file.version.to_owned()),
                    file.checksum(),
                )
            })
            .collect()
    }
}

fn start(upstream: &Upstream, mode: &'static str, data: &Path, more: &[(&str, &str)]) -> Mirror {
    let own = upstream.settings(mode);
    let mut settings = borrowed(&own);
    settings.push(("DATA_DIR", data.to_str().unwrap()));
    settings.extend(more);
    let mirror = Mirror::start_public(&settings);
    mirror.wait_until_ready();
    mirror
}

fn sparse_project(mirror: &Mirror) -> Project {
    let index = format!("sparse+http://{}/index/", mirror.address);
    Project::with(&index, &[], MANIFEST, MAIN)
}

fn git_project(mirror: &Mirror) -> Project {
    let index = format!("http://{}/git/index", mirror.address);
    Project::with(&index, &[], MANIFEST, MAIN)
}

/// The checksums of a lock file, by name and version.
fn locked(project: &Project) -> BTreeMap<(String, String), String> {
    let lock: Value = toml::from_str(&project.lock_file()).unwrap();
    let packages = lock["package"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    packages
        .filter_map(|package| {
            let key = (text(&package["name"])?, text(&package["version"])?);
            Some((key, text(package.get("checksum")?)?))
        })
        .collect()
}

/// A mirror with a network, one without, and what is carried from one to the other.
struct Gap {
    upstream: Upstream,
    outside: TempDir,
    inside: TempDir,
    archives: TempDir,
}

impl Gap {
    fn start() -> Self {
        Self {
            upstream: Upstream::start(),
            outside: TempDir::new().unwrap(),
            inside: TempDir::new().unwrap(),
            archives: TempDir::new().unwrap(),
        }
    }

    fn outside(&self, arguments: &[&str]) {
        let settings = self.upstream.settings("cache");
        done(arguments, self.outside.path(), &settings);
    }

    fn inside(&self, arguments: &[&str]) {
        let settings = self.upstream.settings("offline");
        done(arguments, self.inside.path(), &settings);
    }

    fn start_outside(&self) -> Mirror {
        start(&self.upstream, "cache", self.outside.path(), &[])
    }

    fn start_inside(&self, more: &[(&str, &str)]) -> Mirror {
        start(&self.upstream, "offline", self.inside.path(), more)
    }

    fn archive(&self, name: &str) -> String {
        let path = self.archives.path().join(name);
        path.to_str().unwrap().to_owned()
    }

    /// The project is built of what this project is built of.
    #[track_caller]
    fn assert_built(&self, project: &Project) {
        assert_eq!(project.program_says(), OUTPUT);
        assert_eq!(locked(project), self.upstream.checksums());
    }
}

#[test]
fn a_project_is_built_through_the_cache_then_without_upstreams_then_behind_the_gap() {
    let mut gap = Gap::start();
    let [monday, tuesday] = ["monday.tar", "tuesday.tar"].map(|name| gap.archive(name));
    let mirror = gap.start_outside();
    build_online_then_without_upstreams(&mut gap, &mirror);
    gap.outside(&["export", &monday]);
    mirror.stop();
    // While the first archive is on its way.
    gap.upstream.restart();
    let late = gap.upstream.publish_late();
    gap.outside(&["prefetch", LATE]);
    gap.outside(&["export", &tuesday, "--since", &monday]);

    let seen = gap.upstream.requests();
    gap.inside(&["import", &monday]);
    fetch_what_is_listed_and_not_held(&gap);
    let mirror = gap.start_inside(&[("INDEX_PRUNED", "true")]);
    let project = build_without_a_lock_file(&gap, &mirror);
    assert_eq!(mirror.metadata(LATE).status, 404);
    gap.inside(&["import", &tuesday]);
    mirror.wait_for_commit(&gap.upstream.index.head());
    succeeds(&project.cargo(&["add", LATE]));
    succeeds(&project.cargo(&["build"]));
    gap.upstream.crates.push(late);
    gap.assert_built(&project);
    assert_eq!(gap.upstream.requests(), seen, "somebody inside has asked");
}

/// Each file is fetched once, and then enough for a machine that has nothing. In the end both upstreams are gone, and the
/// index lists newer versions.
fn build_online_then_without_upstreams(gap: &mut Gap, mirror: &Mirror) {
    let project = sparse_project(mirror);
    succeeds(&project.cargo(&["build"]));
    gap.assert_built(&project);
    let upstream = &mut gap.upstream;
    assert_eq!(upstream.files.seen().len(), upstream.crates.len());
    mirror.wait_for_commit(&upstream.publish_successors());
    upstream.stop();
    project.empty_home();
    succeeds(&project.cargo(&["build", "--locked"]));
    gap.assert_built(&project);
    assert_eq!(gap.upstream.files.seen().len(), gap.upstream.crates.len());
}

/// This is what `INDEX_PRUNED` is for: of what is listed cargo takes the newest.
fn fetch_what_is_listed_and_not_held(gap: &Gap) {
    let mirror = gap.start_inside(&[]);
    let output = sparse_project(&mirror).cargo(&["fetch"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("404") && said.contains("not stored"),
        "{said}"
    );
}

/// Cargo resolves to what is held, by either index.
fn build_without_a_lock_file(gap: &Gap, mirror: &Mirror) -> Project {
    let project = sparse_project(mirror);
    succeeds(&project.cargo(&["build"]));
    gap.assert_built(&project);
    let by_git = git_project(mirror);
    succeeds(&by_git.cargo(&["generate-lockfile"]));
    assert_eq!(by_git.lock_file(), project.lock_file());
    project
}
