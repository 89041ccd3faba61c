//! The index that is served over git: what is in it, what goes over the wire, and what becomes of the children that
//! answer.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::support::{
    Answer, Connection, Fault, GitIndex, GitServer, Meter, Mirror, Program, eventually, hermetic,
    index_line, index_path,
};

/// Of mirrors whose downloads nobody wants here.
const PUBLIC_URL: &str = "http://mirror.example";

const REFS: &str = "/git/index/info/refs?service=git-upload-pack";
const UPLOAD_PACK: &str = "/git/index/git-upload-pack";
const REQUEST_TYPE: (&str, &str) = ("Content-Type", "application/x-git-upload-pack-request");
const RESULT_TYPE: &str = "application/x-git-upload-pack-result";
const ADVERTISEMENT_TYPE: &str = "application/x-git-upload-pack-advertisement";
const GZIP: (&str, &str) = ("Content-Encoding", "gzip");
const VERSION_2: (&str, &str) = ("Git-Protocol", "version=2");

/// The longest request that the mirror reads.
const REQUEST_BYTES_MAX: usize = 16 * 1024 * 1024;

/// More children than any machine is allowed at a time.
const CROWD: usize = 8;

struct Scene {
    index: GitIndex,
    server: GitServer,
    data: TempDir,
    mirror: Mirror,
}

impl Scene {
    fn start() -> Self {
        Self::of(GitIndex::with_fixtures())
    }

    fn of(index: GitIndex) -> Self {
        let server = GitServer::start(&index);
        let data = TempDir::new().unwrap();
        let mirror = start(&server, &data, &[("PUBLIC_URL", PUBLIC_URL)]);
        mirror.wait_until_ready();
        Self {
            index,
            server,
            data,
            mirror,
        }
    }

    /// Stops the mirror and starts it again.
    fn restart(self, public_url: &str) -> Self {
        self.mirror.stop();
        let mirror = start(&self.server, &self.data, &[("PUBLIC_URL", public_url)]);
        mirror.wait_for_git_commit(&self.index.head());
        Self { mirror, ..self }
    }

    fn url(&self) -> String {
        format!("http://{}/git/index", self.mirror.address)
    }

    fn publish(&self, name: &str, version: &str) {
        let line = index_line(name, version, false);
        let commit = self.index.commit().crate_file(name, &line).send();
        self.mirror.wait_for_git_commit(&commit);
    }

    fn squash(&self) {
        self.index.squash();
        self.mirror.wait_for_git_commit(&self.index.head());
    }

    /// The commit on offer.
    fn tip(&self) -> String {
        let refs = self.mirror.get(REFS);
        let lines = packets(&refs.body);
        let head = lines.iter().find_map(|line| {
            let line = String::from_utf8_lossy(line);
            let (oid, name) = line.split_once(' ')?;
            name.starts_with("HEAD\0").then(|| oid.to_owned())
        });
        head.unwrap()
    }

    fn post(&self, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers = [&[REQUEST_TYPE], headers].concat();
        self.mirror.post(UPLOAD_PACK, &headers, body)
    }

    /// A request for everything, in version 0 of the protocol.
    fn clone_request(&self) -> Vec<u8> {
        let want = format!("want {} side-band-64k ofs-delta no-progress\n", self.tip());
        [&packet(&want)[..], b"0000", &packet("done\n")].concat()
    }

    /// Begins a request that a child waits for.
    fn stall(&self) -> Connection {
        stall(self.mirror.address)
    }

    /// The children that answer for this mirror.
    fn children(&self) -> Vec<String> {
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap());
        let commands = processes.filter_map(|process| {
            // Many are gone before they are looked at, and some belong to others.
            let command = fs::read_to_string(process.path().join("cmdline")).ok()?;
            let directory = fs::read_link(process.path().join("cwd")).unwrap_or_default();
            let data = self.data.path();
            let is_ours = command.contains(data.to_str().unwrap()) || directory.starts_with(data);
            let is_git = command.contains("upload-pack") || command.contains("pack-objects");
            (is_ours && is_git).then_some(command)
        });
        commands.collect()
    }

    fn wait_until_childless(&self) {
        eventually("there is no child left", || self.children().is_empty());
    }
}

/// Begins a request that says nothing wrong, and is too long to be waited for before a child gets it.
fn stall(address: SocketAddr) -> Connection {
    let mut connection = Connection::open(address).unwrap();
    let head = request_head("Content-Length: 1000000\r\n");
    let line = packet(&format!("shallow {}\n", "1".repeat(40)));
    let beginning = [head.into_bytes(), line.repeat(1500)].concat();
    connection.send(&beginning).unwrap();
    connection
}

fn start(server: &GitServer, data: &TempDir, settings: &[(&str, &str)]) -> Mirror {
    let url = server.url();
    let own = [
        ("GIT_REPO_URL", url.as_str()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ];
    Mirror::start(&[&own[..], settings].concat())
}

/// A repository of a git client.
struct GitClone {
    root: TempDir,
}

impl GitClone {
    /// Clones with these options.
    fn of(url: &str, options: &[&str]) -> Self {
        let clone = Self {
            root: TempDir::new().unwrap(),
        };
        let arguments = [&["clone", "--quiet"], options, &[url, "."]].concat();
        clone.git(&arguments);
        clone
    }

    /// A bare repository without anything in it.
    fn empty() -> Self {
        let clone = Self {
            root: TempDir::new().unwrap(),
        };
        clone.git(&["init", "--quiet", "--bare", "."]);
        clone
    }

    fn path(&self) -> &Path {
        self.root.path()
    }

    fn git(&self, arguments: &[&str]) -> String {
        String::from_utf8(self.git_bytes(arguments)).unwrap()
    }

    fn git_bytes(&self, arguments: &[&str]) -> Vec<u8> {
        let output = hermetic("git", self.path())
            .current_dir(self.path())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        output.stdout
    }

    fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"]).trim().to_owned()
    }
}

/// A line in git's framing.
fn packet(line: &str) -> Vec<u8> {
    format!("{:04x}{line}", line.len() + 4).into_bytes()
}

/// The lines of an answer.
fn packets(mut answer: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while !answer.is_empty() {
        let length = str::from_utf8(&answer[..4]).unwrap();
        let length = usize::from_str_radix(length, 16).unwrap();
        let (line, rest) = answer.split_at(length.max(4));
        lines.push(&line[4..]);
        answer = rest;
    }
    lines
}

/// How many objects the pack in an answer holds.
#[track_caller]
fn objects_in(answer: &Answer) -> u32 {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some(RESULT_TYPE));
    assert_eq!(answer.header("content-encoding"), None);
    let lines = packets(&answer.body);
    let bands = lines.iter().filter_map(|line| line.strip_prefix(b"\x01"));
    let pack: Vec<u8> = bands.flatten().copied().collect();
    assert_eq!(&pack[..8], b"PACK\0\0\0\x02");
    u32::from_be_bytes(pack[8..12].try_into().unwrap())
}

fn request_head(length: &str) -> String {
    let (name, value) = REQUEST_TYPE;
    format!("POST {UPLOAD_PACK} HTTP/1.1\r\nHost: h\r\n{name}: {value}\r\n{length}\r\n")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[track_caller]
fn assert_never_kept(answer: &Answer) {
    assert_eq!(
        answer.header("cache-control"),
        Some("no-cache, max-age=0, must-revalidate")
    );
    assert_eq!(answer.header("pragma"), Some("no-cache"));
    assert_eq!(
        answer.header("expires"),
        Some("Fri, 01 Jan 1980 00:00:00 GMT")
    );
}

#[track_caller]
fn assert_plain(answer: &Answer, status: u16, phrase: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    // Git shows what comes as exactly this type.
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert!(answer.text().contains(phrase), "{}", answer.text());
}

// ---- What goes over the wire ----

#[test]
fn the_list_of_references_begins_with_head_and_may_not_be_kept() {
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
    // Nothing else is on offer.
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
fn version_2_is_spoken_to_those_who_ask_for_it_and_to_nobody_else() {
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
fn requests_may_come_in_gzip_and_in_chunks() {
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
    // Nobody is asked whether the pack may be compressed: some clients could not read it.
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
fn what_is_no_request_of_git_is_refused() {
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
fn a_request_that_is_too_long_is_refused_packed_or_not() {
    let scene = Scene::start();
    let mut request = packet(&format!("want {} side-band-64k\n", scene.tip()));
    request.extend(b"0000");
    let have = packet(&format!("have {}\n", "1".repeat(40)));
    while request.len() <= REQUEST_BYTES_MAX {
        request.extend(&have);
    }
    // With this it would be whole.
    request.extend(packet("done\n"));
    assert_plain(&scene.post(&[GZIP], &gzip(&request)), 400, "not a request");

    let mut connection = Connection::open(scene.mirror.address).unwrap();
    let mut stream = connection.stream();
    let length = format!("Content-Length: {}\r\n", request.len());
    // The mirror need not take all of it.
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
fn nothing_but_two_paths_leads_to_the_repository() {
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
    // A client appends to the URL that it was given, and it may end in a slash.
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

// ---- What is in it ----

const WHO_AND_WHEN: &str = "--format=%an %ae %ad %cn %ce %cd %B";

#[test]
fn the_tree_is_the_upstream_s_but_for_config_json() {
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
fn each_state_has_the_one_before_it_as_its_parent() {
    let mut scene = Scene::start();
    let mut chain = vec![scene.tip()];
    for version in ["1.0.0", "1.0.1"] {
        scene.publish("brand-new", version);
        chain.push(scene.tip());
    }
    // The same tree: nothing new for clients, but for what it was made from.
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
fn clones_are_whole_and_follow_without_force() {
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
fn any_upstream_gets_our_config_json_and_any_message_will_do() {
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

/// Also with the next commit on top.
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
fn a_client_may_want_what_it_was_offered_just_before_a_publish() {
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
fn a_damaged_git_index_is_made_anew_with_the_next_commit() {
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
        assert_eq!(clone.git(&["rev-list", "--count", "HEAD"]).trim(), "1");
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
fn whoever_has_the_index_receives_only_what_is_new() {
    let scene = Scene::of(large_index(2_000));
    let meter = Meter::start(scene.mirror.address);
    let url = format!("http://{}/git/index", meter.address());
    let refspec = "+HEAD:refs/remotes/origin/HEAD";
    let (newer, older, libgit2) = (GitClone::empty(), GitClone::empty(), GitClone::empty());
    // Each returns what it received.
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
        let repository = git2::Repository::open(libgit2.path()).unwrap();
        let mut remote = repository.remote_anonymous(&url).unwrap();
        remote.fetch(&[refspec], None, None).unwrap();
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

// ---- When it is off ----

#[test]
fn without_a_public_url_the_git_index_says_what_is_missing() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let data = TempDir::new().unwrap();
    let mirror = start(&server, &data, &[]);
    mirror.wait_until_ready();
    let request = mirror.post(UPLOAD_PACK, &[REQUEST_TYPE], b"0000");
    for answer in [mirror.get(REFS), request] {
        assert_plain(&answer, 503, "must set PUBLIC_URL");
        assert!(answer.header("retry-after").is_some());
    }
    assert_eq!(mirror.metadata("itoa").status, 200);
    let output = hermetic("git", data.path())
        .args(["ls-remote", &format!("http://{}/git/index", mirror.address)])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("must set PUBLIC_URL"), "{said}");
}

#[test]
fn without_a_git_program_all_but_the_git_index_works() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start(&index);
    let (data, programs) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let settings = [
        ("GIT_REPO_URL", &*server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("PUBLIC_URL", PUBLIC_URL),
    ];
    let mirror = Mirror::start_with(&settings, |config| {
        config.search_path = programs.path().into();
    });
    mirror.wait_until_ready();
    let request = mirror.post(UPLOAD_PACK, &[REQUEST_TYPE], b"0000");
    for answer in [mirror.get(REFS), request] {
        assert_plain(&answer, 503, "no git program");
        assert!(answer.header("retry-after").is_some());
    }
    mirror.assert_serves_without_index();
    let line = index_line("brand-new", "1.0.0", false);
    mirror.wait_for_commit(&index.commit().crate_file("brand-new", &line).send());
    assert_eq!(mirror.get("/index/br/an/brand-new").body, line);
}

#[test]
fn before_the_first_snapshot_git_clients_are_told_to_wait() {
    let index = GitIndex::with_fixtures();
    let server = GitServer::start_with(&index, Fault::Status(500));
    let data = TempDir::new().unwrap();
    let mirror = start(&server, &data, &[("PUBLIC_URL", PUBLIC_URL)]);
    mirror.wait_for_failure();
    let request = mirror.post(UPLOAD_PACK, &[REQUEST_TYPE], b"0000");
    for answer in [mirror.get(REFS), request] {
        assert_plain(&answer, 503, "no copy of the index yet");
        assert!(answer.header("retry-after").is_some());
    }
    // A push is refused whatever there is.
    let push = "/git/index/info/refs?service=git-receive-pack";
    assert_eq!(mirror.get(push).status, 403);
    server.set(Fault::None);
    mirror.wait_for_git_commit(&index.head());
}

// ---- Children ----

#[test]
fn a_client_that_leaves_takes_its_children_along() {
    let index = GitIndex::with_fixtures();
    // Far more than sockets and pipes hold.
    let mut noise = vec![0; 12 * 1024 * 1024];
    fastrand::Rng::with_seed(5).fill(&mut noise);
    index.commit().crate_file("noise", &noise).send();
    let scene = Scene::of(index);
    let request = scene.clone_request();
    let length = format!("Content-Length: {}\r\n", request.len());
    let open = || {
        let mut connection = Connection::open(scene.mirror.address).unwrap();
        let head = request_head(&length);
        connection
            .send(&[head.as_bytes(), &request].concat())
            .unwrap();
        connection
    };
    let connections = [open(), open()];
    eventually("packs are under way", || {
        let packing = |child: &&String| child.contains("pack-objects");
        scene.children().iter().filter(packing).count() == 2
    });
    drop(connections);
    scene.wait_until_childless();
    assert!(objects_in(&scene.post(&[], &request)) > 40);
    scene.wait_until_childless();
}

#[test]
fn a_client_that_stops_sending_in_the_middle_and_leaves_takes_its_child_along() {
    let scene = Scene::start();
    let connection = scene.stall();
    eventually("a child waits", || scene.children().len() == 1);
    drop(connection);
    scene.wait_until_childless();
}

#[test]
fn a_client_that_has_not_said_what_it_wants_has_no_child_yet() {
    let scene = Scene::start();
    let mut connection = Connection::open(scene.mirror.address).unwrap();
    let request = scene.clone_request();
    let head = request_head(&format!("Content-Length: {}\r\n", request.len()));
    connection.send(head.as_bytes()).unwrap();
    connection.send(&request[..20]).unwrap();
    // Others are answered meanwhile, so the mirror has seen that much.
    assert!(objects_in(&scene.post(&[], &request)) > 40);
    scene.wait_until_childless();
    connection.send(&request[20..]).unwrap();
    assert!(objects_in(&connection.read_answer(false).unwrap()) > 40);
}

#[test]
fn a_child_that_was_killed_is_also_buried() {
    let index = GitIndex::with_fixtures();
    let data = TempDir::new().unwrap();
    let program = Program::start(&[
        ("GIT_REPO_URL", index.path().to_str().unwrap()),
        ("DATA_DIR", data.path().to_str().unwrap()),
        ("PUBLIC_URL", PUBLIC_URL),
    ]);
    program.wait_for_git_commit(&index.head());
    for _ in 0..3 {
        let connection = stall(program.address);
        eventually("a child waits", || program.children() == 1);
        assert_eq!(program.request("HEAD", REFS, &[]).status, 200);
        drop(connection);
        eventually("there is not even a zombie", || program.children() == 0);
    }
}

#[test]
fn beyond_so_many_children_clients_wait_and_are_then_sent_away() {
    let scene = Scene::start();
    let processors = thread::available_parallelism().unwrap().get();
    let children_max = (2 * processors).min(CROWD);
    let crowd: Vec<Connection> = (0..children_max).map(|_| scene.stall()).collect();
    eventually("all children are busy", || {
        scene.children().len() == children_max
    });
    let mirror = &scene.mirror;
    thread::scope(|scope| {
        let began = Instant::now();
        let refs = scope.spawn(|| mirror.get(REFS));
        let request = scope.spawn(|| mirror.post(UPLOAD_PACK, &[REQUEST_TYPE], b"0000"));
        // Meanwhile everybody else is served.
        mirror.assert_serves_without_index();
        assert_eq!(mirror.get("/index/it/oa/itoa").status, 200);
        for answer in [refs.join().unwrap(), request.join().unwrap()] {
            assert_plain(&answer, 503, "busy");
            assert!(answer.header("retry-after").is_some());
        }
        let waited = began.elapsed();
        let expected = Duration::from_secs(9)..Duration::from_secs(20);
        assert!(expected.contains(&waited), "{waited:?}");

        assert_eq!(scene.children().len(), children_max);
        let refs = scope.spawn(|| mirror.get(REFS));
        drop(crowd);
        assert_eq!(refs.join().unwrap().status, 200);
    });
    scene.wait_until_childless();
}
