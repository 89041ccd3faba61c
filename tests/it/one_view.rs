//! The sparse index, the git index and the API always agree, even if a rule changes what is shown.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use git2::build::TreeUpdateBuilder;
use git2::{FileMode, Repository, Signature};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::git_served::GitClone;
use crate::support::{Client, GitIndex, Mirror, index_path};

const CRATES: usize = 40;
const REFRESHES: usize = 200;
const CRATES_PER_REFRESH: usize = 5;
const READS_PER_REFRESH: usize = 3;
const GIT_FETCH_EVERY: usize = 10;

/// Crates by name, each with the lines of its versions.
struct Upstream {
    index: GitIndex,
    crates: BTreeMap<String, Vec<String>>,
}

impl Upstream {
    fn new() -> Self {
        let mut upstream = Self {
            index: GitIndex::empty(),
            crates: BTreeMap::new(),
        };
        upstream.publish((0..CRATES).map(|number| format!("crate{number}")));
        upstream
    }

    /// Adds a version to each of these crates, in one commit. With git2, because a process for each step would take
    /// most of the time.
    fn publish(&mut self, names: impl Iterator<Item = String>) -> String {
        let git = Repository::open_bare(self.index.path()).unwrap();
        let parent = git.head().ok().map(|head| head.peel_to_commit().unwrap());
        let base = match &parent {
            Some(parent) => parent.tree().unwrap(),
            None => git
                .find_tree(git.treebuilder(None).unwrap().write().unwrap())
                .unwrap(),
        };
        let mut update = TreeUpdateBuilder::new();
        for name in names {
            let lines = self.crates.entry(name.clone()).or_default();
            let version = lines.len();
            let checksum = hex(&Sha256::digest(format!("{name} {version}")));
            lines.push(format!(
                r#"{{"name":"{name}","vers":"1.{version}.0","deps":[],"cksum":"{checksum}","features":{{}},"yanked":false}}"#
            ));
            let blob = git.blob((lines.join("\n") + "\n").as_bytes()).unwrap();
            update.upsert(index_path(&name), blob, FileMode::Blob);
        }
        let tree = git.find_tree(update.create_updated(&git, &base).unwrap());
        let who = Signature::now("index", "index@mirror.example").unwrap();
        let parents: Vec<_> = parent.iter().collect();
        let commit = git.commit(Some("HEAD"), &who, &who, "change", &tree.unwrap(), &parents);
        commit.unwrap().to_string()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The line as the rule shows it: yanked if the first four hexadecimal digits of the checksum are a multiple of three.
fn shown(line: &str) -> String {
    let checksum = line.split("\"cksum\":\"").nth(1).unwrap();
    let digits = checksum.get(..4).unwrap();
    let is_third = u32::from_str_radix(digits, 16).unwrap().is_multiple_of(3);
    if is_third {
        line.replace("\"yanked\":false", "\"yanked\":true")
    } else {
        line.to_owned()
    }
}

/// The versions of a crate in the API, each with whether it is yanked, and the commit of the answer.
fn by_api(mirror: Client, name: &str) -> (String, Vec<(String, bool)>) {
    let answer = mirror.get(&format!("/api/v1/crates/{name}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let versions = json["versions"].as_array().unwrap().iter();
    let mut versions: Vec<_> = versions
        .map(|version| {
            let number = version["num"].as_str().unwrap().to_owned();
            (number, version["yanked"].as_bool().unwrap())
        })
        .collect();
    versions.sort();
    (commit_of(answer.header("x-index-commit")), versions)
}

/// The same in the sparse index.
fn by_sparse(mirror: Client, name: &str) -> (String, String) {
    let answer = mirror.get(&format!("/index/{}", index_path(name)));
    assert_eq!(answer.status, 200, "{answer:?}");
    (commit_of(answer.header("x-index-commit")), answer.text())
}

/// The same in a repository with the git index.
fn by_git(repository: &Path, branch: &str, name: &str) -> Result<String, git2::Error> {
    let git = Repository::open_bare(repository)?;
    let tree = git.find_reference(branch)?.peel_to_tree()?;
    let entry = tree.get_path(Path::new(&index_path(name)))?;
    let blob = git.find_blob(entry.id())?;
    Ok(String::from_utf8(blob.content().to_vec()).unwrap())
}

/// The same in the repository for git clients. The mirror can replace its clone during the read, and then removes the old one.
fn by_served_git(data: &Path, name: &str) -> String {
    loop {
        let served = served_repository(data);
        match by_git(&served, "refs/heads/master", name) {
            Ok(file) => return file,
            Err(error) => assert_ne!(served, served_repository(data), "{error}"),
        }
    }
}

/// The repository for git clients, inside the clone in use.
fn served_repository(data: &Path) -> PathBuf {
    let index = data.join("index");
    let clone = fs::read_to_string(index.join("current")).unwrap();
    index.join(clone.trim()).join("served")
}

fn commit_of(header: Option<&str>) -> String {
    header.unwrap().to_owned()
}

fn flags(file: &str) -> Vec<(String, bool)> {
    let mut flags: Vec<_> = file
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            let number = line["vers"].as_str().unwrap().to_owned();
            (number, line["yanked"].as_bool().unwrap())
        })
        .collect();
    flags.sort();
    flags
}

#[test]
fn every_surface_agrees_after_each_of_200_refreshes_while_clients_read() {
    let mut upstream = Upstream::new();
    let data = TempDir::new().unwrap();
    // A path, because over HTTP each fetch would take four processes.
    let url = upstream.index.path().to_str().unwrap().to_owned();
    let settings = [
        ("GIT_REPO_URL", url.as_str()),
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("PUBLIC_URL", "http://mirror.example"),
    ];
    let mirror = Mirror::start_with(&settings, |config| {
        config.every_third_yanked = true;
        config.refresh_interval = Some(Duration::from_millis(20));
    });
    mirror.wait_until_ready();
    let git_url = format!("http://{}/git/index", mirror.address);
    let clone = GitClone::of(&git_url, &["--bare"]);
    let compared = AtomicUsize::new(0);
    let client = Client::new(mirror.address);
    std::thread::scope(|scope| {
        let (publish, published) = channel();
        scope.spawn(|| {
            // Reads while the mirror follows. Without a pause the readers would take all processor time.
            for refresh in published {
                for number in 0..READS_PER_REFRESH {
                    let name = format!("crate{}", (refresh + 7 * number) % CRATES);
                    let ((commit, file), (other, versions)) =
                        (by_sparse(client, &name), by_api(client, &name));
                    if commit == other {
                        assert_eq!(flags(&file), versions, "{name} at {commit}");
                        compared.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        for refresh in 0..REFRESHES {
            let begin = refresh * CRATES_PER_REFRESH;
            let names: Vec<String> = (begin..begin + CRATES_PER_REFRESH)
                .map(|number| format!("crate{}", number % CRATES))
                .collect();
            let commit = upstream.publish(names.iter().cloned());
            publish.send(refresh).unwrap();
            // All surfaces change together: a client that sees the commit on one of them sees it on all.
            mirror.wait_for_commit(&commit);
            // A real client asks only now and then, because it takes a dozen processes. In between, the repository that git's
            // upload-pack serves is read.
            if refresh % GIT_FETCH_EVERY == 0 {
                clone.git(&["fetch", "--quiet", "origin", "+HEAD:refs/heads/shown"]);
                // Only the references of this view.
                let refs = client.get("/git/index/info/refs?service=git-upload-pack");
                assert_eq!(refs.header("x-index-commit"), Some(&*commit));
                let refs = String::from_utf8_lossy(&refs.body).into_owned();
                assert!(!refs.contains("namespaces"), "{refs}");
            }
            for name in &names {
                let lines = upstream.crates[name].iter();
                let expected: String = lines.map(|line| shown(line) + "\n").collect();
                let (of_file, file) = by_sparse(client, name);
                let (of_api, versions) = by_api(client, name);
                assert_eq!((&of_file, &of_api), (&commit, &commit));
                assert_eq!(file, expected);
                assert_eq!(by_served_git(data.path(), name), expected);
                if refresh % GIT_FETCH_EVERY == 0 {
                    let fetched = by_git(clone.path(), "refs/heads/shown", name);
                    assert_eq!(fetched.unwrap(), expected);
                }
                assert_eq!(versions, flags(&expected));
            }
        }
        drop(publish);
    });
    let compared = compared.into_inner();
    assert!(compared > REFRESHES, "{compared}");
}
