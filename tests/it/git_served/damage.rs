//! The mirror finds damage by reading, and never from git's messages, which clients can influence.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{GitClone, PUBLIC_URL, REQUEST_TYPE, Scene, UPLOAD_PACK, VERSION_2, packet, start};
use crate::clone_on_disk::scribble;
use crate::support::{eventually, hermetic};

/// A mirror with two states of the git index that sends no more requests to its upstream.
fn quiet() -> Scene {
    let scene = Scene::start();
    scene.publish("brand-new", "1.0.0");
    scene.mirror.stop();
    let settings = [
        ("PUBLIC_URL", PUBLIC_URL),
        // No fetch in this time: only a request of a client can cause a repair.
        ("REFRESH_INTERVAL_SECS", "3600"),
    ];
    let before = scene.server.seen().len();
    let mirror = start(&scene.server, &scene.data, &settings);
    // The only fetch, which finds nothing new, has one request. The index is served before it.
    eventually("the only fetch has begun", || {
        scene.server.seen().len() > before
    });
    mirror.wait_for_git_commit(&scene.index.head());
    Scene { mirror, ..scene }
}

impl Scene {
    /// The clone in use.
    fn clone_dir(&self) -> PathBuf {
        let index = self.data.path().join("index");
        let current = fs::read_to_string(index.join("current")).unwrap();
        index.join(current)
    }

    fn served(&self) -> String {
        let served = self.clone_dir().join("served");
        served.to_str().unwrap().to_owned()
    }

    /// Waits until a client can clone everything, and returns the number of commits that it gets.
    fn wait_until_clonable(&self) -> String {
        let url = self.url();
        let is_clonable = || {
            let scratch = TempDir::new().unwrap();
            let git = |arguments: &[&str]| {
                let mut git = hermetic("git", scratch.path());
                let output = git.current_dir(scratch.path()).args(arguments).output();
                output.unwrap().status.success()
            };
            // A clone of a repository without a branch succeeds, too.
            git(&["clone", "--quiet", &url, "."]) && git(&["rev-parse", "--verify", "HEAD"])
        };
        eventually("the index can be cloned", is_clonable);
        let clone = GitClone::of(&url, &[]);
        clone.git(&["fsck", "--full"]);
        clone
            .git(&["rev-list", "--count", "HEAD"])
            .trim()
            .to_owned()
    }
}

#[test]
fn messages_that_clients_cause_change_nothing_and_real_damage_is_still_repaired() {
    let scene = quiet();
    let (tip, clone, asked) = (scene.tip(), scene.clone_dir(), scene.server.seen().len());
    assert_eq!(
        scene
            .mirror
            .post(UPLOAD_PACK, &[REQUEST_TYPE], b"0011want corrupt\n0000")
            .status,
        400
    );
    for text in [
        "corrupt",
        "missing blob",
        "missing tree",
        "unable to read",
        "unable to parse",
        "inflate",
    ] {
        let want = [&packet(&format!("want {text}\n"))[..], b"0000"].concat();
        let agent = format!("want {tip} agent={text}\n");
        let agent = [&packet(&agent)[..], b"0000", &packet(&format!("{text}\n"))].concat();
        let command = [&packet(&format!("command={text}"))[..], b"0000"].concat();
        for (headers, body) in [
            (&[][..], want.clone()),
            (&[], agent),
            (&[VERSION_2], want),
            (&[VERSION_2], command),
        ] {
            scene.post(headers, &body);
        }
    }
    assert_eq!(scene.wait_until_clonable(), "2");
    assert_eq!(scene.tip(), tip);
    assert_eq!(scene.clone_dir(), clone);

    let git = GitClone::empty();
    let first = git.git(&["--git-dir", &scene.served(), "rev-parse", "master^"]);
    let (directory, file) = first.trim().split_at(2);
    fs::remove_file(clone.join("served/objects").join(directory).join(file)).unwrap();
    assert_eq!(scene.wait_until_clonable(), "1");
    assert_ne!(scene.tip(), tip);
    assert_eq!(scene.clone_dir(), clone);
    assert_eq!(
        scene.server.seen().len(),
        asked,
        "the upstream got no request"
    );
}

#[test]
fn a_damage_check_finds_lost_alternates() {
    let scene = quiet();
    let lost = scene.clone_dir().join("served/objects/info/alternates");
    fs::remove_file(lost).unwrap();
    assert_eq!(scene.wait_until_clonable(), "1");
}

#[test]
fn damage_of_the_clone_that_only_git_clients_notice_is_repaired() {
    let scene = quiet();
    let clone = scene.clone_dir();
    let packs = fs::read_dir(clone.join("objects/pack")).unwrap();
    for pack in packs.map(|entry| entry.unwrap().path()) {
        if pack
            .extension()
            .is_some_and(|extension| extension == "pack")
        {
            scribble(&pack);
        }
    }
    assert_eq!(scene.wait_until_clonable(), "1");
    assert_ne!(scene.clone_dir(), clone);
}
