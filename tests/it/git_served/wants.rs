//! What a client may ask for by its id while rules change what is shown.

use super::{GitClone, Scene, VERSION_2, assert_plain, objects_in, packet};
use crate::support::{Answer, Client, GitIndex, hermetic, index_path};

/// Asks for an object, in both versions of the protocol.
pub(crate) fn ask_for(mirror: &Client, id: &str) -> [Answer; 2] {
    let version_0 = [
        &packet(&format!("want {id} side-band-64k no-progress\n"))[..],
        b"0000",
        &packet("done\n"),
    ];
    let version_2 = version_2(&[&format!("want {id}\n")]);
    [
        post(mirror, &[], &version_0.concat()),
        post(mirror, &[VERSION_2], &version_2),
    ]
}

fn post(mirror: &Client, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    mirror.post(
        super::UPLOAD_PACK,
        &[&[super::REQUEST_TYPE], headers].concat(),
        body,
    )
}

fn version_2(lines: &[&str]) -> Vec<u8> {
    let lines = [lines, &["no-progress\n", "done\n"]].concat();
    let lines: Vec<u8> = lines.iter().flat_map(|line| packet(line)).collect();
    [&packet("command=fetch\n")[..], b"0001", &lines, b"0000"].concat()
}

/// A version that is too new for any minimum age.
fn young(name: &str) -> Vec<u8> {
    let line = format!(
        r#"{{"name":"{name}","vers":"1.0.0","deps":[],"cksum":"{}","yanked":false,"pubtime":"2099-01-01T00:00:00Z"}}"#,
        "0".repeat(64)
    );
    format!("{line}\n").into_bytes()
}

#[test]
fn under_rules_a_client_gets_the_states_of_the_git_index_and_nothing_of_the_upstreams() {
    let index = GitIndex::empty();
    index.commit().crate_file("young", &young("young")).send();
    let scene = Scene::with(index, &[("MIN_PUBLISH_AGE", "7 days")]);
    let file = format!("HEAD:{}", index_path("young"));
    let commit = scene.index.head();
    let objects = ["HEAD", "HEAD^{tree}", &file, "HEAD:yo", "HEAD:yo/un"];
    let objects = objects.map(|name| scene.index.git(&["rev-parse", name]));
    for id in objects
        .iter()
        .chain([&commit.to_uppercase(), &"1".repeat(40)])
    {
        for answer in ask_for(&scene.mirror, id) {
            assert_plain(&answer, 403, &id.to_lowercase());
        }
    }
    let client = GitClone::empty();
    let fetch = |version: &str, id: &str| {
        let output = hermetic("git", client.path())
            .current_dir(client.path())
            .args(["-c", &format!("protocol.version={version}")])
            .args(["fetch", "--quiet", &scene.url(), id])
            .output();
        output.unwrap().status.success()
    };
    for id in &objects {
        assert!(!fetch("0", id) && !fetch("2", id), "{id}");
    }

    // A client whose history ends at a commit of the upstream would get what is before that.
    let tip = scene.tip();
    let (want, end) = (format!("want {tip}\n"), format!("shallow {commit}\n"));
    let deepen = "deepen 2147483647\n";
    let old = [&want, &end, deepen].map(packet).concat();
    let old = [&old[..], b"0000", &packet("done\n")].concat();
    assert_plain(&scene.post(&[], &old), 403, &commit);
    let new = version_2(&[&want, &end, deepen]);
    assert_plain(&scene.post(&[VERSION_2], &new), 403, &commit);

    // However late it is asked for: behind what the mirror reads before it starts git, and in small pieces.
    let have = format!("have {}\n", "1".repeat(40));
    let shallow = packet(&format!("shallow {}\n", "1".repeat(40)));
    let want = format!("want {commit}\n");
    let haves = vec![have.as_str(); 3_000];
    let late = version_2(&[&haves[..], &[&want]].concat());
    assert_plain(&scene.post(&[VERSION_2], &late), 400, "not a request");
    let tip = scene.tip();
    let late = [
        &packet(&format!("want {tip} side-band-64k\n"))[..],
        &packet(&want).repeat(2),
        &shallow.repeat(3_000),
        b"0000",
        &packet("done\n"),
    ];
    assert_plain(&scene.post(&[], &late.concat()), 403, &commit);
    let order = [late[0], late[2], late[1], late[3], late[4]];
    assert_plain(&scene.post(&[], &order.concat()), 400, "not a request");

    // A client that has seen the state before the current one may be about to fetch it.
    let [whole, _] = ask_for(&scene.mirror, &tip).map(|answer| objects_in(&answer));
    scene.publish("other", "1.0.0");
    assert_ne!(scene.tip(), tip);
    for answer in ask_for(&scene.mirror, &tip) {
        assert_eq!(objects_in(&answer), whole);
    }
    assert!(fetch("2", &tip));
    let shown = client.git(&["show", &format!("FETCH_HEAD:{}", index_path("young"))]);
    assert!(shown.contains("\"yanked\":true"), "{shown}");
    scene.wait_until_childless();
}

#[test]
fn without_rules_a_client_gets_what_git_gives() {
    let scene = Scene::start();
    let [_, answer] = ask_for(&scene.mirror, &scene.index.head());
    assert!(objects_in(&answer) > 40);
}
