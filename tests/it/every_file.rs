//! The mirror serves a large index byte for byte, whatever its files contain.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use tempfile::TempDir;

use crate::support::{Answer, Connection, GitIndex, GitServer, Mirror, index_path};

/// So many that the view has thousands of directories, and so few that a debug build serves them in seconds.
const CRATES: usize = 8_000;

/// Keep-alive connections that send requests at the same time.
const CONNECTIONS: usize = 4;

/// One file of so many is requested once more, with `Accept-Encoding: gzip`.
const GZIP_EVERY: usize = 20;

/// The longest name that crates.io accepts.
const NAME_CHARACTERS_MAX: usize = 64;

/// The mirror does not compress shorter answers.
const GZIP_BYTES_MIN: usize = 512;

/// The size of the largest real file.
const LARGEST_BYTES: usize = 5_000_000;

/// Index files by path.
type Files = BTreeMap<String, Vec<u8>>;

#[test]
fn every_file_of_a_large_index_is_served_byte_for_byte() {
    let files = files();
    let index = GitIndex::empty();
    let mut commit = index.commit();
    for (path, content) in &files {
        commit = commit.file(path, content);
    }
    let head = commit.send();
    let expected = expected(&index, &files);

    let server = GitServer::start(&index);
    let data = TempDir::new().unwrap();
    let mirror = Mirror::start(&[
        ("GIT_REPO_URL", &server.url()),
        ("DATA_DIR", data.path().to_str().unwrap()),
    ]);
    mirror.wait_until_ready();
    assert_eq!(mirror.get("/readyz").json()["index"]["crates"], CRATES);

    thread::scope(|scope| {
        for first in 0..CONNECTIONS {
            let (expected, head, address) = (&expected, head.as_str(), mirror.address);
            scope.spawn(move || {
                let mut connection = Connection::open(address).unwrap();
                // Every connection requests files of every kind.
                for (position, file) in expected.iter().enumerate().skip(first).step_by(CONNECTIONS)
                {
                    let answer = ask(&mut connection, file.path, "identity");
                    file.assert_is(&answer, "", head);
                    // There are few large files.
                    if position % GZIP_EVERY == first || file.content.len() > 10_000 {
                        let answer = ask(&mut connection, file.path, "gzip");
                        let packed = answer.header("content-encoding") == Some("gzip");
                        file.assert_is(&answer, if packed { "-gzip" } else { "" }, head);
                        assert_eq!(packed, file.shrinks(), "{}", file.path);
                    }
                }
            });
        }
    });
}

/// The expected answer for a path.
struct Expected<'a> {
    path: &'a str,
    content: &'a [u8],
    /// The blob id of the file in git.
    blob: String,
}

impl Expected<'_> {
    #[track_caller]
    fn assert_is(&self, answer: &Answer, tag_suffix: &str, head: &str) {
        let path = self.path;
        assert_eq!(answer.status, 200, "{path}");
        // Not `assert_eq`, because it would print megabytes of numbers.
        assert!(
            answer.body == self.content,
            "{path}: {} bytes came, not the {} of the blob",
            answer.body.len(),
            self.content.len()
        );
        let tag = format!("\"{}{tag_suffix}\"", self.blob);
        assert_eq!(answer.header("etag"), Some(tag.as_str()), "{path}");
        assert_eq!(answer.header("x-index-commit"), Some(head), "{path}");
    }

    /// Whether gzip makes the file shorter: it is long enough and has few different letters.
    fn shrinks(&self) -> bool {
        self.content.len() >= GZIP_BYTES_MIN && self.content.is_ascii()
    }
}

/// Every file with the blob id that git lists for it.
fn expected<'a>(index: &GitIndex, files: &'a Files) -> Vec<Expected<'a>> {
    let listed = index.git(&["ls-tree", "-r", "HEAD"]);
    let blobs: BTreeMap<_, _> = listed
        .lines()
        .map(|line| {
            let (mode_type_id, path) = line.split_once('\t').unwrap();
            (path, mode_type_id.rsplit_once(' ').unwrap().1)
        })
        .collect();
    assert_eq!(blobs.len(), files.len());
    let expected = files.iter().map(|(path, content)| Expected {
        path,
        content,
        blob: blobs[path.as_str()].to_owned(),
    });
    expected.collect()
}

fn ask(connection: &mut Connection, path: &str, encoding: &str) -> Answer {
    let request = format!(
        "GET /index/{path} HTTP/1.1\r\nHost: mirror\r\nAccept-Encoding: {encoding}\r\n\r\n"
    );
    connection.send(request.as_bytes()).unwrap();
    connection.read_answer(false).unwrap()
}

/// Files of all sizes, and names of all lengths. They are the same in every run.
fn files() -> Files {
    let mut random = fastrand::Rng::with_seed(11);
    let mut files = Files::new();
    for (name, content) in special(&mut random) {
        files.insert(index_path(name), content);
    }
    // Some short names come twice, and count once.
    while files.len() < CRATES {
        let name = name(&mut random);
        // Four of five real files have a few versions. Most of the others have a few dozen.
        let lines = if random.u8(..5) > 0 {
            random.usize(1..4)
        } else {
            random.usize(4..20)
        };
        let content = (0..lines).flat_map(|line| {
            let vers = format!("{line}.0.{}", random.u32(..));
            format!("{{\"name\":\"{name}\",\"vers\":\"{vers}\",\"deps\":[],\"yanked\":false}}\n")
                .into_bytes()
        });
        files.insert(index_path(&name), content.collect());
    }
    let lengths: BTreeSet<_> = files
        .keys()
        .filter_map(|path| path.rsplit('/').next().map(str::len))
        .collect();
    assert!(lengths.into_iter().eq(1..=NAME_CHARACTERS_MAX));
    files
}

/// Files with content that is not an index line. The mirror must not change them.
fn special(random: &mut fastrand::Rng) -> Vec<(&'static str, Vec<u8>)> {
    let mut junk = |length| -> Vec<u8> { (0..length).map(|_| random.u8(..)).collect() };
    let junk_files = [("junk-short", junk(200)), ("junk-long", junk(40_000))];
    let line = b"{\"name\":\"largest\",\"vers\":\"1.0.0\",\"deps\":[],\"yanked\":false}\n";
    let largest = line.iter().copied().cycle().take(LARGEST_BYTES);
    let mut special = vec![
        ("empty", Vec::new()),
        ("line-ends", b"{\"a\":1}\r\n{\"b\":2}\r\n\r\n".to_vec()),
        ("carriage-return", b"{\"a\":1}\r".to_vec()),
        ("one-line-end", b"\n".to_vec()),
        ("no-line-end", b"{\"a\":1}\n{\"b\":2}".to_vec()),
        ("white-space", b" \t{\"a\" : 1 }  \n\n\n".to_vec()),
        ("byte-order-mark", b"\xEF\xBB\xBF{\"a\":1}\n".to_vec()),
        ("zero-bytes", vec![0; 3_000]),
        ("latin-1", b"{\"authors\":[\"J\xF6rg\"]}\n".to_vec()),
        (
            "looks-like-gzip",
            b"\x1F\x8B\x08\x00\x00\x00\x00\x00\x00\x03".to_vec(),
        ),
        ("looks-like-chunks", b"5\r\nhello\r\n0\r\n\r\n".to_vec()),
        ("largest", largest.collect()),
        ("below-compressed", vec![b'x'; GZIP_BYTES_MIN - 1]),
        ("just-compressed", vec![b'y'; GZIP_BYTES_MIN]),
    ];
    special.extend(junk_files);
    special
}

/// A name. Its first four letters decide the directory. They are from a small alphabet, so that several files share a
/// directory as in a real index.
fn name(random: &mut fastrand::Rng) -> String {
    const FIRST: &[u8] = b"aceinorst";
    const REST: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-_";
    // Short names run out soon. All lengths up to 64 occur, but most names are like real ones.
    let length = if random.u8(..8) == 0 {
        random.usize(1..=NAME_CHARACTERS_MAX)
    } else {
        random.usize(5..=20)
    };
    let characters = (0..length).map(|at| {
        let from = if at < 4 { FIRST } else { REST };
        char::from(from[random.usize(..from.len())])
    });
    characters.collect()
}
