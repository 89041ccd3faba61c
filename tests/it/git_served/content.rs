//! The content of the git index, and how clients follow it.

use std::fs;

use nix::sys::signal::{SigSet, Signal};

use super::{GitClone, PUBLIC_URL, Scene, VERSION_2, objects_in, packet};
use crate::support::{GitIndex, Meter, index_line, index_path};

const WHO_AND_WHEN: &str = "--format=%an %ae %ad %cn %ce %cd %B";

#[test]
fn the_git_index_is_the_upstream_tree_with_another_config_json() {
    let index = GitIndex::with_fixtures();
    index
        .commit()
        .file("config.json", b"{\"dl\": \"http://elsewhere.example\"}")
        .file(".github/workflows/x.yml", b"on: push\n")
        .file("README.md", b"hello\n")
        .symlink("li/nk/linked", "../../it/oa/itoa")
        .send();
    let author = "Zo\u{eb} <z@author.example> 1600000000 -0730";
    index.bare_commit(
        author,
        "Bot <b@c.example> 1700000001 +0530",
        b"Two\n\nlines\n",
    );
    let scene = Scene::of(index);
    let clone = GitClone::of(&scene.url(), &[]);
    let other = |listing: &str| -> Vec<String> {
        let lines = listing
            .lines()
            .filter(|line| !line.ends_with("\tconfig.json"));
        lines.map(str::to_owned).collect()
    };
    let tree = ["ls-tree", "-r", "--full-tree", "HEAD"];
    let (upstream, ours) = (scene.index.git(&tree), clone.git(&tree));
    assert!(other(&upstream).len() > 20);
    assert_eq!(other(&ours), other(&upstream));
    assert_eq!(ours.lines().count(), upstream.lines().count());
    let config = clone.git(&["ls-tree", "HEAD", "config.json"]);
    assert!(config.starts_with("100644 blob "), "{config}");
    let config = clone.git_bytes(&["cat-file", "blob", "HEAD:config.json"]);
    let sparse = scene.mirror.get("/index/config.json");
    assert_eq!(config, sparse.body);
    assert_eq!(
        sparse.json()["dl"],
        format!("{PUBLIC_URL}/api/v1/crates"),
        "ours"
    );

    let who = ["log", "-1", WHO_AND_WHEN];
    assert_eq!(clone.git(&who).trim(), scene.index.git(&who));
    assert_eq!(clone.git(&["log", "--format=%P"]).trim(), "");
}

#[test]
fn each_state_has_the_previous_state_as_its_parent() {
    let mut scene = Scene::start();
    let mut chain = vec![scene.tip()];
    for version in ["1.0.0", "1.0.1"] {
        scene.publish("brand-new", version);
        chain.push(scene.tip());
    }
    // The upstream commit is new, but its tree is the same. So there is no new commit for clients.
    scene.squash();
    assert_eq!(scene.tip(), chain[2]);
    scene.publish("brand-new", "2.0.0");
    chain.push(scene.tip());
    let line = index_line("brand-new", "3.0.0", false);
    scene.index.commit().crate_file("brand-new", &line).send();
    scene.squash();
    chain.push(scene.tip());

    scene = scene.restart(PUBLIC_URL);
    assert_eq!(scene.tip(), chain[4], "a restart changes nothing");
    scene.publish("brand-new", "3.0.1");
    chain.push(scene.tip());
    scene = scene.restart("https://moved.example/at");
    chain.push(scene.tip());
    assert_ne!(chain[5], chain[6]);

    let clone = GitClone::of(&scene.url(), &[]);
    let config = clone.git(&["cat-file", "blob", "HEAD:config.json"]);
    assert_eq!(config, scene.mirror.get("/index/config.json").text());
    assert!(config.contains("https://moved.example/at/api/v1/crates"));
    assert_eq!(
        clone.git(&["diff", "--name-only", "HEAD~1"]).trim(),
        "config.json"
    );
    let log = clone.git(&["log", "--format=%H %P"]);
    chain.reverse();
    let expected: Vec<String> = (0..chain.len())
        .map(|place| {
            let parent = chain.get(place + 1).map_or("", String::as_str);
            format!("{} {parent}", chain[place])
        })
        .collect();
    assert_eq!(log.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn clones_are_complete_and_follow_without_force() {
    let scene = Scene::start();
    scene.publish("brand-new", "1.0.0");
    let pulling = GitClone::of(&scene.url(), &[]);
    let file = pulling.path().join(index_path("brand-new"));
    assert_eq!(
        pulling
            .git(&["rev-parse", "--is-shallow-repository"])
            .trim(),
        "false"
    );
    pulling.git(&["fsck", "--full", "--strict"]);

    let last = GitClone::of(&scene.url(), &["--depth", "1"]);
    assert_eq!(last.git(&["rev-list", "--count", "HEAD"]).trim(), "1");
    last.git(&["fsck", "--full"]);
    let old = GitClone::of(&scene.url(), &["-c", "protocol.version=0"]);
    assert_eq!(old.head(), scene.tip());

    let follow = |version: &str| {
        for clone in [&pulling, &last] {
            clone.git(&["pull", "--quiet", "--ff-only"]);
            let unforced = "HEAD:refs/remotes/origin/copy";
            clone.git(&["fetch", "--quiet", "origin", unforced]);
        }
        old.git(&["pull", "--quiet", "--ff-only"]);
        for clone in [&pulling, &last, &old] {
            assert_eq!(clone.head(), scene.tip());
            clone.git(&["fsck", "--full"]);
        }
        assert!(fs::read_to_string(&file).unwrap().contains(version));
    };
    scene.publish("brand-new", "1.0.1");
    follow("1.0.1");
    scene.squash();
    follow("1.0.1");
    scene.publish("brand-new", "1.0.2");
    follow("1.0.2");
    last.git(&["fetch", "--quiet", "--unshallow"]);
    assert_eq!(
        last.git(&["rev-list", "HEAD"]),
        pulling.git(&["rev-list", "HEAD"])
    );
    let line = index_line("brand-new", "1.0.3", false);
    scene.index.commit().crate_file("brand-new", &line).send();
    scene.squash();
    follow("1.0.3");
}

#[test]
fn config_json_is_ours_whatever_the_upstream_tree_and_message() {
    let with_directory = GitIndex::with_fixtures();
    with_directory
        .commit()
        .file("config.json/nested", b"{}")
        .send();
    let with_symlink = GitIndex::with_fixtures();
    with_symlink
        .commit()
        .symlink("config.json", "/etc/passwd")
        .send();
    let in_latin_1 = GitIndex::with_fixtures();
    let author = "Test <test@mirror.example> 1700000000 +0000";
    in_latin_1.bare_commit(author, author, b"Gr\xfc\xdfe\n");
    let without = GitIndex::with_fixtures();
    for index in [with_directory, with_symlink, without] {
        assert_serves_its_own_config(&Scene::of(index));
    }
    let scene = Scene::of(in_latin_1);
    let clone = GitClone::of(&scene.url(), &[]);
    let message = clone.git(&["log", "-1", "--format=%B"]);
    assert_eq!(message.trim(), "Gr\u{fffd}\u{fffd}e");
    assert_serves_its_own_config(&scene);
}

/// Checks `config.json` in the current commit and in the next one.
#[track_caller]
fn assert_serves_its_own_config(scene: &Scene) {
    let clone = GitClone::of(&scene.url(), &[]);
    let entries = clone.git(&["ls-tree", "-r", "HEAD"]);
    let configs: Vec<&str> = entries
        .lines()
        .filter(|line| line.contains("config.json"))
        .collect();
    assert!(configs.len() == 1 && configs[0].starts_with("100644 blob "));
    assert_eq!(
        fs::read(clone.path().join("config.json")).unwrap(),
        scene.mirror.get("/index/config.json").body
    );
    clone.git(&["fsck", "--full"]);
    scene.publish("brand-new", "1.0.0");
    clone.git(&["pull", "--quiet", "--ff-only"]);
    assert_eq!(clone.git(&["rev-list", "--count", "HEAD"]).trim(), "2");
}

#[test]
fn a_client_can_fetch_a_commit_that_was_advertised_before_a_publish() {
    let scene = Scene::start();
    let (request, before) = (scene.clone_request(), scene.tip());
    let objects = objects_in(&scene.post(&[], &request));
    scene.publish("brand-new", "1.0.0");
    assert_ne!(scene.tip(), before);
    assert_eq!(objects_in(&scene.post(&[], &request)), objects);
    let want = packet(&format!("want {before}\n"));
    let fetch = [
        &packet("command=fetch")[..],
        b"0001",
        &want,
        &packet("done"),
        b"0000",
    ]
    .concat();
    assert_eq!(objects_in(&scene.post(&[VERSION_2], &fetch)), objects);
}

#[test]
fn the_next_commit_repairs_a_damaged_git_index() {
    let scene = Scene::start();
    let tip = scene.tip();
    let clones = scene.data.path().join("index");
    let current = fs::read_to_string(clones.join("current")).unwrap();
    let served = clones.join(current).join("served");
    let damages: [&dyn Fn(); 3] = [
        &|| fs::remove_dir_all(&served).unwrap(),
        &|| fs::remove_file(served.join("HEAD")).unwrap(),
        &|| {
            let object = served.join("refs/heads/master");
            fs::write(object, "1".repeat(40)).unwrap();
        },
    ];
    for (round, damage) in damages.iter().enumerate() {
        damage();
        scene.publish("brand-new", &format!("1.0.{round}"));
        assert_ne!(scene.tip(), tip);
        let clone = GitClone::of(&scene.url(), &[]);
        clone.git(&["fsck", "--full"]);
        // Two if a fetch without news came between the damage and the publish, and repaired the git index.
        let commits = clone.git(&["rev-list", "--count", "HEAD"]);
        assert!(["1", "2"].contains(&commits.trim()), "{commits}");
    }
}

/// Many small files in many directories, with checksums that do not compress.
fn large_index(crates: u32) -> GitIndex {
    let index = GitIndex::empty();
    let mut random = fastrand::Rng::with_seed(11);
    let mut commit = index.commit();
    for number in 0..crates {
        let letters: String = (0..4).map(|_| random.lowercase()).collect();
        let name = format!("{letters}-{number}");
        let checksum: String = (0..64).map(|_| random.digit(16)).collect();
        let line = String::from_utf8(index_line(&name, "1.0.0", false)).unwrap();
        let line = line.replace(&"0".repeat(64), &checksum);
        commit = commit.crate_file(&name, line.as_bytes());
    }
    commit.send();
    index
}

#[test]
fn a_client_with_the_index_receives_only_new_objects() {
    let scene = Scene::of(large_index(2_000));
    let meter = Meter::start(scene.mirror.address);
    let url = format!("http://{}/git/index", meter.address());
    let refspec = "+HEAD:refs/remotes/origin/HEAD";
    let (newer, older, libgit2) = (GitClone::empty(), GitClone::empty(), GitClone::empty());
    // Returns the bytes that each client received.
    let fetch_all = || {
        newer.git(&["fetch", "--quiet", &url, refspec]);
        let by_newer = meter.read();
        older.git(&[
            "-c",
            "protocol.version=0",
            "fetch",
            "--quiet",
            &url,
            refspec,
        ]);
        let by_older = meter.read();
        // On a thread of its own that blocks the signal of ended children: the mirror in this process has some, and libgit2
        // gives up when a signal interrupts it.
        std::thread::scope(|scope| {
            let fetched = scope.spawn(|| {
                SigSet::from_iter([Signal::SIGCHLD]).thread_block().unwrap();
                let repository = git2::Repository::open(libgit2.path()).unwrap();
                let mut remote = repository.remote_anonymous(&url).unwrap();
                remote.fetch(&[refspec], None, None).unwrap();
            });
            fetched.join().unwrap();
        });
        let received = [by_newer, by_older, meter.read()];
        for clone in [&newer, &older, &libgit2] {
            let tip = clone.git(&["rev-parse", "refs/remotes/origin/HEAD"]);
            assert_eq!(tip.trim(), scene.tip());
        }
        meter.read();
        received
    };
    let whole = fetch_all();
    scene.publish("brand-new", "1.0.0");
    let publish = fetch_all();
    scene.squash();
    let squash = fetch_all();
    scene.publish("brand-new", "1.0.1");
    let publish_after_squash = fetch_all();
    println!("{whole:?} {publish:?} {squash:?} {publish_after_squash:?}");
    for clone in 0..3 {
        assert!(whole[clone] > 250_000, "{whole:?}");
        assert!(publish[clone] < 8_000, "{publish:?}");
        assert!(squash[clone] < 2_000, "{squash:?}");
        assert!(
            publish_after_squash[clone] < 8_000,
            "{publish_after_squash:?}"
        );
    }
}
