//! Clients that take what others need: memory, permits, connections and turns. For the mirror each loopback address is
//! a peer of its own. `benches/attack` has the same attacks at full size, and slow ones that take minutes.

mod fairness;
mod memory;
mod peers;
mod sent;

use std::hash::{BuildHasher, RandomState};

use tempfile::TempDir;

use crate::support::{CrateFile, Origin, Program, borrowed, eventually, index_line};

const REFS: &str = "/git/index/info/refs?service=git-upload-pack";
const UPLOAD_PACK: &str = "/git/index/git-upload-pack";
const GIT_REQUEST: (&str, &str) = ("content-type", "application/x-git-upload-pack-request");

/// The last number of the address of a client that takes too much, and of one that does not.
const GREEDY: u8 = 2;
const OTHER: u8 = 200;

/// So large that the answer needs a budget of its own.
const LARGE_INDEX_FILE_BYTES: usize = 200_000;

/// The number of versions in such a file. The answer of the API about them is large, too.
const LARGE_INDEX_FILE_VERSIONS: usize = 100;

/// The number of crates with large index files. No buffer takes a pack of all of them.
const LARGE_INDEX_FILES: usize = 32;

/// A program in cache mode, with its upstreams.
struct Scene {
    program: Program,
    origin: Origin,
    _data: TempDir,
}

/// Additional settings of a test.
type Settings<'s> = &'s [(&'s str, &'s str)];

impl Scene {
    /// A mirror of these crate files, of crates with large index files, and of crates with these names and numbers of
    /// versions.
    fn with(files: Vec<CrateFile>, versions: &[(&str, usize)], more: Settings<'_>) -> Self {
        Self::start(files, versions, more, Program::start)
    }

    fn start(
        files: Vec<CrateFile>,
        versions: &[(&str, usize)],
        more: Settings<'_>,
        start: impl FnOnce(Settings<'_>) -> Program,
    ) -> Self {
        let origin = Origin::with(files);
        let mut commit = origin.index.commit();
        for number in 0..LARGE_INDEX_FILES {
            let name = large(number);
            commit = commit.crate_file(&name, &index_file_of_bytes(&name, LARGE_INDEX_FILE_BYTES));
        }
        for (name, count) in versions {
            commit = commit.crate_file(name, &index_file(name, *count));
        }
        commit.send();
        let data = TempDir::new().unwrap();
        let own = origin.settings();
        let mut settings = borrowed(&own);
        settings.push(("DATA_DIR", data.path().to_str().unwrap()));
        settings.push(("PUBLIC_URL", "http://mirror.example"));
        settings.push(("REFRESH_INTERVAL_SECS", "0"));
        settings.extend(more);
        let program = start(&settings);
        program.wait_until_ready();
        eventually("the git index is served", || {
            program.get(REFS).status == 200
        });
        for file in &origin.files {
            assert_eq!(program.get(&file.download_path()).status, 200);
        }
        Self {
            program,
            origin,
            _data: data,
        }
    }

    /// A request for the whole git index.
    fn want_everything(&self) -> Vec<u8> {
        let refs = self.program.get(REFS).text();
        let line = refs.lines().nth(1).unwrap();
        // The line begins with a flush packet and its length.
        let commit = line.get(8..48).unwrap();
        format!("0032want {commit}\n00000009done\n").into_bytes()
    }
}

/// The name of a crate with a large index file.
fn large(number: usize) -> String {
    format!("large-{number:02}")
}

/// The path of an index file whose name has four letters or more.
fn index_path(name: &str) -> String {
    format!("/index/{}", crate::support::index_path(name))
}

/// An index file with `versions` lines. Each line has another checksum, so that compression gains little.
fn index_file(name: &str, versions: usize) -> Vec<u8> {
    let mut noise = RandomState::new().hash_one(name);
    let lines = (0..versions).map(|number| {
        let checksum: String = (0..4)
            .map(|_| {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                format!("{:016x}", noise ^ (noise >> 32))
            })
            .collect();
        let line = index_line(name, &format!("1.0.{number}"), false);
        let line = String::from_utf8(line).unwrap();
        line.replace(&"0".repeat(64), &checksum).into_bytes()
    });
    lines.flatten().collect()
}

/// An index file of `length` bytes with few versions, because reading a version takes time. The bytes are in a field
/// that no reader uses.
fn index_file_of_bytes(name: &str, length: usize) -> Vec<u8> {
    let lines = String::from_utf8(index_file(name, LARGE_INDEX_FILE_VERSIONS)).unwrap();
    let mut random = fastrand::Rng::new();
    let lines = lines.lines().map(|line| {
        let mut noise = vec![0_u8; length / LARGE_INDEX_FILE_VERSIONS];
        random.fill(&mut noise);
        let letters = noise.iter().map(|byte| char::from(b'a' + byte % 16));
        let noise: String = letters.collect();
        format!(
            "{},\"noise\":\"{noise}\"}}\n",
            line.strip_suffix('}').unwrap()
        )
    });
    lines.collect::<String>().into_bytes()
}
