//! Real cargo builds a project with real dependencies: online, without the upstreams, and behind the air gap.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use super::done;
use crate::support::{
    CrateUpstream, Fault, GitIndex, GitServer, Mirror, Project, PublishedCrate, borrowed, succeeds,
};

/// The dependencies of the project. With their own dependencies these are a dozen crates. None is a macro: compiling those
/// would take most of the time, and to the mirror they are crates like all others.
const DEPENDENCIES: [&str; 4] = ["either", "form_urlencoded", "http-body-util", "httpdate"];

const MANIFEST: &str =
    "either = \"1\"\nform_urlencoded = \"1\"\nhttp-body-util = \"0.1\"\nhttpdate = \"1\"\n";

const MAIN: &str = "
    let _empty: http_body_util::Empty<&[u8]> = http_body_util::Empty::new();
    let text: String = form_urlencoded::byte_serialize(b\"1 2\").collect();
    let text: either::Either<String, u8> = either::Left(text);
    println!(\"{} {}\", text.left().unwrap(), httpdate::fmt_http_date(std::time::UNIX_EPOCH));";

const OUTPUT: &str = "1+2 Thu, 01 Jan 1970 00:00:00 GMT\n";

/// The crate that only the second archive contains.
const LATE: &str = "fnv";

/// The upstreams of the mirrors.
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

    /// Publishes a newer version of every crate. No mirror fetches these files.
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

    /// The number of requests to the upstreams.
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

/// A mirror with a network, a mirror without one, and the archive between them.
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

    /// Checks the output of a built project, and the checksums in its lock file.
    #[track_caller]
    fn assert_built(&self, project: &Project) {
        assert_eq!(project.program_says(), OUTPUT);
        assert_eq!(locked(project), self.upstream.checksums());
    }
}

#[test]
fn a_project_builds_through_the_cache_then_without_upstreams_then_behind_the_air_gap() {
    let mut gap = Gap::start();
    let [monday, tuesday] = ["monday.tar", "tuesday.tar"].map(|name| gap.archive(name));
    let mirror = gap.start_outside();
    build_online_then_without_upstreams(&mut gap, &mirror);
    gap.outside(&["export", &monday]);
    mirror.stop();
    // Before the first archive is imported.
    gap.upstream.restart();
    let late = gap.upstream.publish_late();
    gap.outside(&["prefetch", LATE]);
    gap.outside(&["export", &tuesday, "--since", &monday]);

    let seen = gap.upstream.requests();
    gap.inside(&["import", &monday]);
    fetch_listed_but_missing_files(&gap);
    let mirror = gap.start_inside(&[("INDEX_PRUNED", "true")]);
    let project = build_without_a_lock_file(&gap, &mirror);
    assert_eq!(mirror.metadata(LATE).status, 404);
    gap.inside(&["import", &tuesday]);
    mirror.wait_for_commit(&gap.upstream.index.head());
    succeeds(&project.cargo(&["add", LATE]));
    succeeds(&project.cargo(&["build"]));
    gap.upstream.crates.push(late);
    gap.assert_built(&project);
    assert_eq!(
        gap.upstream.requests(),
        seen,
        "the inner mirror sent a request"
    );
}

/// Builds twice, the second time on a machine with an empty cargo home. The mirror fetches each file once. In the end
/// both upstreams are gone, and the index lists newer versions.
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

/// The reason for `INDEX_PRUNED`: cargo chooses the newest listed version, even if its file is missing.
fn fetch_listed_but_missing_files(gap: &Gap) {
    let mirror = gap.start_inside(&[]);
    let output = sparse_project(&mirror).cargo(&["fetch"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("404") && said.contains("not stored"),
        "{said}"
    );
}

/// Cargo resolves to stored versions, with the sparse index and with the git index.
fn build_without_a_lock_file(gap: &Gap, mirror: &Mirror) -> Project {
    let project = sparse_project(mirror);
    succeeds(&project.cargo(&["build"]));
    gap.assert_built(&project);
    let by_git = git_project(mirror);
    succeeds(&by_git.cargo(&["generate-lockfile"]));
    assert_eq!(by_git.lock_file(), project.lock_file());
    project
}
