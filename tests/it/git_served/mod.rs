//! The git index: its content, its wire protocol, its damage checks, and the child processes that answer.

mod content;
mod damage;
mod service;
pub(crate) mod wants;
mod wire;

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use crate::support::{
    Answer, Connection, GitIndex, GitServer, Mirror, eventually, hermetic, index_line,
};

/// These tests download no crate files, so nothing listens here.
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

/// The largest number of children at a time, on any machine.
const CROWD: usize = 4;

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
        Self::with(index, &[])
    }

    fn with(index: GitIndex, settings: &[(&str, &str)]) -> Self {
        let server = GitServer::start(&index);
        let data = TempDir::new().unwrap();
        let settings = [&[("PUBLIC_URL", PUBLIC_URL)], settings].concat();
        let mirror = start(&server, &data, &settings);
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

    /// The newest commit of the git index.
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

    /// Begins a request whose child waits for the rest.
    fn stall(&self) -> Connection {
        stall(self.mirror.address)
    }

    /// The children that answer for this mirror.
    fn children(&self) -> Vec<String> {
        let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap());
        let commands = processes.filter_map(|process| {
            // Many processes have ended by now, and some belong to other users.
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
        eventually("no child is left", || self.children().is_empty());
    }
}

/// Begins a valid request that is so long that the mirror starts the child before the end of it.
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
pub(crate) struct GitClone {
    root: TempDir,
}

impl GitClone {
    /// Clones with these options.
    pub(crate) fn of(url: &str, options: &[&str]) -> Self {
        let clone = Self {
            root: TempDir::new().unwrap(),
        };
        let arguments = [&["clone", "--quiet"], options, &[url, "."]].concat();
        clone.git(&arguments);
        clone
    }

    /// An empty bare repository.
    fn empty() -> Self {
        let clone = Self {
            root: TempDir::new().unwrap(),
        };
        clone.git(&["init", "--quiet", "--bare", "."]);
        clone
    }

    pub(crate) fn path(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
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

/// Frames a line as git's protocol does.
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

/// The number of objects in the pack of an answer.
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
    // Git shows a text to its user only if it has exactly this type.
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert!(answer.text().contains(phrase), "{}", answer.text());
}
