//! The clone stays small over many refreshes, and readers do not notice.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{
    Connection, FIXTURES, GitIndex, GitServer, Mirror, eventually, fixture, hermetic, index_line,
    index_path,
};

/// The number of packs at which the mirror of these tests rolls them up.
const PACKS_MAX: usize = 6;

/// More than any socket buffers, so a client that does not read blocks the sender.
const LARGE_FILE_BYTES: usize = 16 * 1024 * 1024;

struct Scene {
    index: GitIndex,
    server: GitServer,
    data: TempDir,
}

impl Scene {
    fn new() -> Self {
        let index = GitIndex::with_fixtures();
        let server = GitServer::start(&index);
        let data = TempDir::new().unwrap();
        Self {
            index,
            server,
            data,
        }
    }

    /// A mirror with a short refresh interval that makes its clone smaller early.
    fn start(&self, slack_bytes: u64) -> Mirror {
        let settings = [
            ("GIT_REPO_URL", self.server.url()),
            ("DATA_DIR", self.data.path().to_str().unwrap().to_owned()),
            ("PUBLIC_URL", "http://mirror.example".to_owned()),
        ];
        let settings = settings.each_ref().map(|(name, value)| (*name, &**value));
        let mirror = Mirror::start_with(&settings, |config| {
            config.refresh_interval = Some(Duration::from_millis(20));
            config.upkeep.packs_max = PACKS_MAX;
            config.upkeep.slack_bytes = slack_bytes;
        });
        mirror.wait_until_ready();
        mirror
    }

    /// Publishes a version of one crate, and waits until the mirror has it.
    fn publish(&self, mirror: &Mirror, number: usize) {
        let name = format!("crate-{}", number % 3);
        let line = index_line(&name, &format!("1.0.{number}"), false);
        mirror.wait_for_commit(&self.index.commit().crate_file(&name, &line).send());
    }

    fn clones(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.data.path().join("index")).unwrap();
        let mut clones: Vec<PathBuf> = entries
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_dir())
            .collect();
        clones.sort();
        clones
    }

    /// Waits until a complete new clone without old history has replaced the first one.
    #[track_caller]
    fn assert_replaced(&self, first: &Path, mirror: &Mirror) {
        eventually("the clone is replaced", || !first.exists());
        let served = self.only_clone().join("served");
        let states = git(&served, &["rev-list", "--count", "master"]);
        assert!(states.parse::<usize>().unwrap() <= PACKS_MAX, "{states}");
        assert_no_faults(&served);
        assert_every_file_is_served(mirror, &self.index);
    }

    fn only_clone(&self) -> PathBuf {
        eventually("one clone is left", || self.clones().len() == 1);
        self.clones().remove(0)
    }
}

/// The number of packs in a repository; 0 if it was just replaced.
fn packs(repository: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(repository.join("objects/pack")) else {
        return 0;
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "pack"))
        .count()
}

fn pack_files(repository: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(repository.join("objects/pack")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "pack"))
        .collect()
}

/// Waits until git finds no fault. While the mirror removes a namespace, its HEAD may name a branch that is gone already.
#[track_caller]
fn assert_no_faults(repository: &Path) {
    eventually("git finds no fault", || {
        let output = run_git(repository, &["fsck", "--full", "--strict"]);
        output.status.success() || {
            println!("{output:?}");
            false
        }
    });
}

fn run_git(repository: &Path, arguments: &[&str]) -> Output {
    let mut command = hermetic("git", repository);
    command.arg("--git-dir").arg(repository).args(arguments);
    command.output().unwrap()
}

fn git(repository: &Path, arguments: &[&str]) -> String {
    let output = run_git(repository, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[track_caller]
fn assert_every_file_is_served(mirror: &Mirror, index: &GitIndex) {
    let list = index.git(&["ls-tree", "-r", "HEAD"]);
    let files: Vec<_> = list
        .lines()
        .map(|line| line.split_once('\t').unwrap())
        .filter(|(_, path)| path.contains('/'))
        .collect();
    assert!(files.len() >= FIXTURES.len());
    for (entry, path) in files {
        let answer = mirror.get(&format!("/index/{path}"));
        let blob = entry.rsplit(' ').next().unwrap();
        let tag = format!("\"{blob}\"");
        assert_eq!(answer.header("etag"), Some(&*tag), "{path}: {answer:?}");
        assert_eq!(
            answer.text().trim(),
            index.git(&["cat-file", "blob", blob]),
            "{path}"
        );
    }
}

#[test]
fn packs_and_loose_objects_stay_few_and_everything_stays_readable() {
    let scene = Scene::new();
    let mirror = scene.start(u64::MAX / 4);
    for number in 0..5 * PACKS_MAX {
        scene.publish(&mirror, number);
        // The largest pack is not rolled up.
        assert!(packs(&scene.clones()[0]) <= PACKS_MAX + 1);
    }
    assert_every_file_is_served(&mirror, &scene.index);
    mirror.stop();
    let clone = scene.only_clone();
    assert_ne!(clone.file_name().unwrap(), "clone-1");
    assert!(!clone.join("rolling").exists());
    // The commits of the git index are complete, and so are the borrowed objects.
    let served = clone.join("served");
    git(&served, &["fsck", "--full", "--strict"]);
    assert_eq!(
        git(&served, &["rev-list", "--count", "master"]),
        (5 * PACKS_MAX + 1).to_string()
    );
    let loose = git(&served, &["count-objects"]);
    let loose: usize = loose.split(' ').next().unwrap().parse().unwrap();
    assert!(loose <= 3 * (PACKS_MAX + 1), "{loose}");
    assert!(packs(&served) <= PACKS_MAX, "{}", packs(&served));

    // The next run serves the rolled-up clone.
    let mirror = scene.start(u64::MAX / 4);
    assert_every_file_is_served(&mirror, &scene.index);
    scene.publish(&mirror, 99);
}

#[test]
fn a_clone_with_much_old_history_is_replaced() {
    let scene = Scene::new();
    let mirror = scene.start(0);
    // Text that does not compress, so the old states become larger than the index.
    let mut noise = String::new();
    for number in 0..40 {
        let mut random = fastrand::Rng::with_seed(number);
        noise.clear();
        noise.extend((0..60_000).map(|_| random.alphanumeric()));
        let commit = scene.index.commit().crate_file("noise", noise.as_bytes());
        mirror.wait_for_commit(&commit.send());
    }
    assert_every_file_is_served(&mirror, &scene.index);
    eventually("old history is gone", || {
        let clone = scene.only_clone();
        let count = git(&clone.join("served"), &["rev-list", "--count", "master"]);
        count.parse::<usize>().unwrap() < 40
    });
    scene.publish(&mirror, 1);
}

#[test]
fn a_clone_with_an_old_pack_that_cannot_be_read_is_replaced() {
    let scene = Scene::new();
    let mirror = scene.start(u64::MAX / 4);
    let first = scene.only_clone();
    let whole = pack_files(&first);
    scene.publish(&mirror, 0);
    let added = pack_files(&first);
    let added = added.iter().find(|pack| !whole.contains(pack)).unwrap();
    // Its objects belong only to old states, which no client requests.
    scene.publish(&mirror, 3);
    scene.publish(&mirror, 6);
    let content = std::fs::read(added).unwrap();
    let damaged: Vec<u8> = content.iter().map(|byte| !byte).collect();
    // A new file with the same name: the mirror has mapped the old one into memory, and the mapping must not change.
    std::fs::remove_file(added).unwrap();
    std::fs::write(added, [&content[..12], &damaged[12..]].concat()).unwrap();
    for number in 1..=PACKS_MAX {
        scene.publish(&mirror, 3 * number + 6);
    }
    scene.assert_replaced(&first, &mirror);
}

#[test]
fn a_clone_whose_packs_cannot_be_rolled_up_is_replaced() {
    let scene = Scene::new();
    let mirror = scene.start(u64::MAX / 4);
    let first = scene.only_clone();
    for number in 0..3 {
        scene.publish(&mirror, number);
    }
    destroy_old_states(&first.join("served"));
    for number in 3..3 + PACKS_MAX {
        scene.publish(&mirror, number);
    }
    scene.assert_replaced(&first, &mirror);
}

#[test]
fn a_git_index_that_git_cannot_read_is_repaired() {
    let scene = Scene::new();
    let mirror = scene.start(u64::MAX / 4);
    for number in 0..3 {
        scene.publish(&mirror, number);
    }
    destroy_old_states(&scene.only_clone().join("served"));
    let home = TempDir::new().unwrap();
    let url = format!("http://{}/git/index", mirror.address);
    let mut tries = 0;
    eventually("a clone succeeds", || {
        tries += 1;
        let clone = home.path().join(tries.to_string());
        hermetic("git", home.path())
            .args(["clone", "--quiet", "--bare", &url])
            .arg(clone)
            .output()
            .unwrap()
            .status
            .success()
    });
    assert!(tries > 1, "the first clone must fail");
    git(&home.path().join(tries.to_string()), &["fsck", "--full"]);
}

/// Destroys all states of the git index except the newest one. Only a git client without a clone needs them.
fn destroy_old_states(served: &Path) {
    let kept = git(
        served,
        &["rev-parse", "master", "master^{tree}", "master:config.json"],
    );
    for directory in std::fs::read_dir(served.join("objects")).unwrap() {
        let directory = directory.unwrap();
        let beginning = directory.file_name().into_string().unwrap();
        if beginning.len() != 2 {
            continue;
        }
        for object in std::fs::read_dir(directory.path()).unwrap() {
            let object = object.unwrap();
            let id = format!("{beginning}{}", object.file_name().to_str().unwrap());
            if !kept.contains(&id) {
                std::fs::remove_file(object.path()).unwrap();
                std::fs::write(object.path(), "junk").unwrap();
            }
        }
    }
}

#[test]
fn a_client_that_reads_a_pack_gets_all_of_it_while_the_clone_is_replaced() {
    let scene = Scene::new();
    let mut large = vec![0_u8; LARGE_FILE_BYTES];
    fastrand::Rng::with_seed(1).fill(&mut large);
    scene.index.commit().crate_file("large", &large).send();
    let mirror = scene.start(u64::MAX / 4);
    let tip = git(&scene.clones()[0].join("served"), &["rev-parse", "master"]);
    let mut slow = Connection::open(mirror.address).unwrap();
    let body = format!("0032want {tip}\n00000009done\n");
    let request = format!(
        "POST /git/index/git-upload-pack HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\
         Content-Type: application/x-git-upload-pack-request\r\n\r\n{body}",
        body.len()
    );
    slow.send(request.as_bytes()).unwrap();
    let first = scene.clones().remove(0);
    for number in 0..2 * PACKS_MAX {
        scene.publish(&mirror, number);
    }
    assert!(
        first.exists(),
        "the clone was removed while a client reads it"
    );
    let answer = slow.read_answer(false).unwrap();
    assert_eq!(answer.status, 200);
    let pack = answer.body.strip_prefix(b"0008NAK\n").unwrap();
    assert!(pack.starts_with(b"PACK") && pack.len() > LARGE_FILE_BYTES);
    let home = TempDir::new().unwrap();
    std::fs::write(home.path().join("it.pack"), pack).unwrap();
    let indexed = hermetic("git", home.path())
        .current_dir(home.path())
        .args(["index-pack", "it.pack"])
        .output()
        .unwrap();
    assert!(indexed.status.success(), "{indexed:?}");
    eventually("the old clone is removed", || !first.exists());
    assert_eq!(
        mirror.get(&format!("/index/{}", index_path("itoa"))).body,
        fixture("itoa")
    );
}
