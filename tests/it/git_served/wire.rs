//! The wire protocol of the git index.

use std::io::Write;
use std::thread;

use super::{
    ADVERTISEMENT_TYPE, GZIP, GitClone, REFS, REQUEST_BYTES_MAX, Scene, UPLOAD_PACK, VERSION_2,
    assert_never_kept, assert_plain, gzip, objects_in, packet, packets, request_head,
};
use crate::support::{Answer, Connection, hermetic};

#[test]
fn the_list_of_references_begins_with_head_and_must_not_be_cached() {
    let scene = Scene::start();
    let answer = scene.mirror.get(REFS);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some(ADVERTISEMENT_TYPE));
    assert_eq!(
        answer.header("x-index-commit"),
        Some(scene.index.head().as_str())
    );
    assert_never_kept(&answer);
    assert!(
        answer
            .body
            .starts_with(b"001e# service=git-upload-pack\n0000")
    );
    let lines = packets(&answer.body);
    let text: Vec<_> = lines
        .iter()
        .map(|line| String::from_utf8_lossy(line))
        .collect();
    let (oid, rest) = text[2].split_once(" HEAD\0").expect(&text[2]);
    assert_eq!(oid.len(), 40);
    let capabilities: Vec<&str> = rest.split_whitespace().collect();
    for capability in [
        "symref=HEAD:refs/heads/master",
        "multi_ack_detailed",
        "side-band-64k",
        "thin-pack",
        "ofs-delta",
        "shallow",
        "no-progress",
        "include-tag",
        "no-done",
        "object-format=sha1",
    ] {
        assert!(capabilities.contains(&capability), "{capability}: {rest}");
    }
    // There is no other reference.
    assert_eq!(
        text[3..],
        [format!("{oid} refs/heads/master\n"), String::new()]
    );

    let head = scene.mirror.request("HEAD", REFS, &[]);
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), Some(ADVERTISEMENT_TYPE));
    assert_eq!(
        head.header("x-index-commit"),
        Some(scene.index.head().as_str())
    );
    assert_never_kept(&head);
    scene.wait_until_childless();
}

#[test]
fn only_a_client_that_asks_for_version_2_gets_version_2() {
    let scene = Scene::start();
    let version = |answer: &Answer| String::from_utf8_lossy(packets(&answer.body)[2]).into_owned();
    for protocol in ["version=2", "version=2:agent=test"] {
        let answer = scene
            .mirror
            .request("GET", REFS, &[("Git-Protocol", protocol)]);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some(ADVERTISEMENT_TYPE));
        assert_never_kept(&answer);
        assert_eq!(version(&answer), "version 2\n");
        assert!(!answer.text().contains("refs/heads"));
    }
    for junk in [
        "",
        "2",
        "version=9999",
        "version=2; reboot",
        "version=2:$(reboot)",
        "version=\u{ff}",
        &"version=2:".repeat(100),
    ] {
        let answer = scene.mirror.request("GET", REFS, &[("Git-Protocol", junk)]);
        assert_eq!(answer.status, 200, "{junk}");
        assert!(version(&answer).contains(" HEAD\0"), "{junk}");
    }

    let tip = scene.tip();
    let list = [&packet("command=ls-refs\n")[..], b"0001", b"0000"].concat();
    let answer = scene.post(&[VERSION_2], &list);
    assert_eq!(answer.status, 200);
    assert_never_kept(&answer);
    assert!(answer.text().contains(&format!("{tip} HEAD")));
    let fetch = [
        &packet("command=fetch\n")[..],
        b"0001",
        &packet("ofs-delta\n"),
        &packet("no-progress\n"),
        &packet(&format!("want {tip}\n")),
        &packet("done\n"),
        b"0000",
    ]
    .concat();
    let whole = scene.post(&[VERSION_2], &fetch);
    assert_eq!(
        objects_in(&whole),
        objects_in(&scene.post(&[], &scene.clone_request()))
    );
}

#[test]
fn requests_can_be_gzipped_and_chunked() {
    let scene = Scene::start();
    let request = scene.clone_request();
    let plain = scene.post(&[], &request);
    assert_never_kept(&plain);
    assert_eq!(
        plain.header("x-index-commit"),
        Some(scene.index.head().as_str())
    );
    let objects = objects_in(&plain);
    assert!(objects > 40, "{objects}");
    assert_eq!(objects_in(&scene.post(&[GZIP], &gzip(&request))), objects);
    // The mirror never compresses a pack, whatever `Accept-Encoding` says: some clients could not read it.
    let asked = [GZIP, ("Accept-Encoding", "gzip, deflate, br, zstd")];
    assert_eq!(objects_in(&scene.post(&asked, &gzip(&request))), objects);

    for (body, more) in [
        (request.clone(), ""),
        (gzip(&request), "Content-Encoding: gzip\r\n"),
    ] {
        let mut connection = Connection::open(scene.mirror.address).unwrap();
        let length = format!("{more}Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n");
        connection.send(request_head(&length).as_bytes()).unwrap();
        assert_eq!(connection.read_answer(false).unwrap().status, 100);
        for byte in body {
            connection.send(&[b'1', b'\r', b'\n', byte]).unwrap();
            connection.send(b"\r\n").unwrap();
        }
        connection.send(b"0\r\n\r\n").unwrap();
        assert_eq!(
            objects_in(&connection.read_answer(false).unwrap()),
            objects,
            "{more:?}"
        );
        // The connection stays open for the next request.
        connection
            .send(format!("GET {REFS} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())
            .unwrap();
        assert_eq!(connection.read_answer(false).unwrap().status, 200);
    }
}

#[test]
fn pushes_and_clients_of_before_2009_are_refused() {
    let scene = Scene::start();
    for path in [
        "/git/index/info/refs",
        "/git/index/info/refs?service=",
        "/git/index/info/refs?service=git-receive-pack",
        "/git/index/info/refs?service=git-upload-archive",
        "/git/index/info/refs?service=../upload-pack",
    ] {
        assert_plain(&scene.mirror.get(path), 403, "read-only mirror");
    }
    let pushed = scene.mirror.post(
        "/git/index/git-receive-pack",
        &[("Content-Type", "application/x-git-receive-pack-request")],
        &packet("push"),
    );
    assert_plain(&pushed, 403, "read-only mirror");

    let clone = GitClone::of(&scene.url(), &[]);
    let output = hermetic("git", clone.path())
        .current_dir(clone.path())
        .args(["push", "origin", "HEAD:refs/heads/new"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("read-only mirror"), "{said}");
}

#[test]
fn requests_that_git_does_not_send_are_refused() {
    let scene = Scene::start();
    let request = scene.clone_request();
    for wrong in [
        &[][..],
        &[("Content-Type", "application/x-git-receive-pack-request")],
        &[("Content-Type", "text/plain")],
    ] {
        let answer = scene.mirror.post(UPLOAD_PACK, wrong, &request);
        assert_plain(&answer, 415, "application/x-git-upload-pack-request");
    }
    assert_eq!(
        scene.post(&[("Content-Encoding", "br")], &request).status,
        415
    );

    let refused = "not a request that git understands";
    let mut torn = gzip(&request);
    torn.truncate(torn.len() / 2);
    for (headers, body) in [
        (&[][..], &b""[..]),
        (&[], b"zzzz"),
        (&[], b"0003"),
        (&[], b"ffff"),
        (&[], b"0032want x"),
        (&[], b"GET / HTTP/1.1\r\n\r\n"),
        (&[], &packet("want everything\n")),
        (&[], &request[..30]),
        (&[VERSION_2], &packet("command=drop\n")),
        (&[VERSION_2], b"\0\0\0\0"),
        (&[GZIP], b"this is no gzip"),
        (&[GZIP], b""),
        (&[GZIP], &request),
        (&[GZIP], &torn),
    ] {
        let answer = scene.post(headers, body);
        assert_plain(&answer, 400, refused);
        let shown = answer.text();
        assert!(!shown.contains(scene.data.path().to_str().unwrap()));
    }

    let unknown = packet(&format!("want {} side-band-64k\n", "1".repeat(40)));
    let unknown = [&unknown[..], b"0000", &packet("done\n")].concat();
    let answer = scene.post(&[], &unknown);
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("ERR upload-pack: not our ref"));
    assert!(!answer.text().contains("PACK"));
    scene.wait_until_childless();
    assert!(objects_in(&scene.post(&[], &request)) > 40);
}

#[test]
fn a_too_long_request_is_refused_with_and_without_gzip() {
    let scene = Scene::start();
    let mut request = packet(&format!("want {} side-band-64k\n", scene.tip()));
    request.extend(b"0000");
    let have = packet(&format!("have {}\n", "1".repeat(40)));
    while request.len() <= REQUEST_BYTES_MAX {
        request.extend(&have);
    }
    // The rest of the request.
    request.extend(packet("done\n"));
    assert_plain(&scene.post(&[GZIP], &gzip(&request)), 400, "not a request");

    let mut connection = Connection::open(scene.mirror.address).unwrap();
    let mut stream = connection.stream();
    let length = format!("Content-Length: {}\r\n", request.len());
    // The mirror may refuse before it has read everything.
    let sending = thread::spawn(move || {
        let head = request_head(&length);
        drop(stream.write_all(&[head.as_bytes(), &request].concat()));
    });
    let answer = connection.read_answer(false).unwrap();
    sending.join().unwrap();
    assert_plain(&answer, 400, "not a request");
    scene.wait_until_childless();
    assert!(objects_in(&scene.post(&[], &scene.clone_request())) > 40);
}

#[test]
fn only_two_paths_lead_to_the_repository() {
    let scene = Scene::start();
    let directory = scene.data.path().to_str().unwrap();
    let escape = format!("/git/index/../../../../../../..{directory}/index/current");
    for path in [
        "/git",
        "/git/",
        "/git/index",
        "/git/index/",
        "/git/index/HEAD",
        "/git/index/config",
        "/git/index/config.json",
        "/git/index/refs/heads/master",
        "/git/index/objects/info/packs",
        "/git/index/objects/info/alternates",
        "/git/index/info/refs/",
        "/git/index/info/refs/x",
        "/git/index/info%2frefs?service=git-upload-pack",
        "/git/index/.git/HEAD",
        "/git/../config",
        "/git/index/../config",
        "/git/%2e%2e/config",
        "/git/index/../../etc/passwd",
        "/git/index/..%2f..%2fetc/passwd",
        "/git/index/%2e%2e/%2e%2e/etc/passwd",
        "/git/other/info/refs?service=git-upload-pack",
        "/git/index.git/info/refs?service=git-upload-pack",
        "/git/info/refs?service=git-upload-pack",
        "/git/index/x/info/refs?service=git-upload-pack",
        "/index/info/refs?service=git-upload-pack",
        &escape,
    ] {
        let answer = scene.mirror.get(path);
        assert_eq!(answer.status, 404, "{path}");
        let text = answer.text();
        for secret in ["ref:", "[core]", "root:", "clone-", "objects", directory] {
            assert!(!text.contains(secret), "{path}: {text}");
        }
        assert_eq!(scene.mirror.request("HEAD", path, &[]).status, 404);
    }
    // A client appends to the URL from its configuration, which may end with a slash.
    for path in ["/git/index//info/refs", "//git/./index/info/refs"] {
        let answer = scene
            .mirror
            .get(&format!("{path}?service=git-upload-pack&x=y"));
        assert_eq!(answer.status, 200, "{path}");
    }
    for (path, methods, allowed) in [
        (REFS, ["POST", "PUT", "DELETE", "OPTIONS"], "GET,HEAD"),
        (UPLOAD_PACK, ["GET", "HEAD", "PUT", "OPTIONS"], "POST"),
        (
            "/git/index/git-receive-pack",
            ["GET", "HEAD", "DELETE", "PATCH"],
            "POST",
        ),
    ] {
        for method in methods {
            let answer = scene.mirror.request(method, path, &[]);
            assert_eq!(answer.status, 405, "{method} {path}");
            assert_eq!(answer.header("allow"), Some(allowed), "{method} {path}");
        }
    }
}
