//! The change feed as scripts read it: lines, pages, events, and a follower that misses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use crates_io_mirror::Clock;
use fastrand::Rng;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Answer, Client, GitIndex, Http2, Mirror, Program, eventually, eventually_some, index_path,
};

/// The largest number of followers of one client.
const FOLLOWERS_MAX: usize = 32;

const START_AGAIN: &str = "start again from a full copy (/git/index)";

/// A version in an index file.
#[derive(Clone)]
struct Version(Value);

impl Version {
    /// A version that was published on this day of January 2026.
    fn new(name: &str, version: &str, day: u8) -> Self {
        Self(json!({
            "name": name,
            "vers": version,
            "deps": [],
            "cksum": format!("{day:02}").repeat(32),
            "features": {},
            "yanked": false,
            "pubtime": format!("2026-01-{day:02}T00:00:00Z"),
        }))
    }

    fn with(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }

    fn yanked(self) -> Self {
        self.with("yanked", json!(true))
    }

    /// The line of the feed for this version.
    fn line(&self, kind: &str, commit: &str) -> String {
        let Self(line) = self;
        let name = line["name"].as_str().unwrap();
        format!(
            r#"{{"type":"{kind}","crate":"{name}","version":{},"cksum":{},"pubtime":{},"yanked":{},"path":"{}","commit":"{commit}"}}"#,
            line["vers"],
            line["cksum"],
            line["pubtime"],
            line["yanked"],
            index_path(name)
        )
    }
}

fn file(versions: &[&Version]) -> Vec<u8> {
    let lines = versions.iter().map(|Version(line)| format!("{line}\n"));
    lines.collect::<String>().into_bytes()
}

/// An answer of the feed: its lines, and its head.
struct Changes {
    lines: Vec<String>,
    head: Value,
}

impl Changes {
    #[track_caller]
    fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status, 200, "{answer:?}");
        let text = answer.text();
        assert!(text.ends_with('\n'), "{text}");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let head: Value = serde_json::from_str(&lines.pop().unwrap()).unwrap();
        assert_eq!(head["type"], "head");
        Self { lines, head }
    }

    #[track_caller]
    fn since(client: &Client, since: &str) -> Self {
        Self::of(&client.get(&format!("/changes?since={since}")))
    }

    fn cursor(&self) -> &str {
        self.head["cursor"].as_str().unwrap()
    }
}

/// The end of the feed, when it shows this commit.
#[track_caller]
fn head_at(client: &Client, commit: &str) -> String {
    eventually_some("the feed shows the commit", || {
        let answer = client.get("/changes");
        let head = (answer.status == 200).then(|| Changes::of(&answer))?;
        (head.head["commit"] == commit).then(|| head.cursor().to_owned())
    })
}

fn settings<'s>(index: &'s str, data: &'s Path) -> [(&'s str, &'s str); 2] {
    [
        ("GIT_REPO_URL", index),
        ("DATA_DIR", data.to_str().unwrap()),
    ]
}

/// An event of a follower.
#[derive(Debug)]
struct Event {
    id: Option<String>,
    data: String,
}

/// A follower on a connection of its own.
struct Follower {
    reader: BufReader<TcpStream>,
    status: u16,
    head: String,
    /// The rest of the current chunk.
    chunk: Vec<u8>,
}

impl Follower {
    fn start(address: SocketAddr, path: &str, last_event_id: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let id = last_event_id.map_or(String::new(), |id| format!("Last-Event-ID: {id}\r\n"));
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n{id}\r\n"
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        Self {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            reader,
            head: head.to_lowercase(),
            chunk: Vec::new(),
        }
    }

    /// One line of the body; `None` at its end.
    fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.chunk.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.chunk.drain(..=end).collect();
                return Some(String::from_utf8(line).unwrap().trim_end().to_owned());
            }
            let mut length = String::new();
            self.reader.read_line(&mut length).unwrap();
            let length = usize::from_str_radix(length.trim(), 16).unwrap();
            let mut chunk = vec![0; length + 2];
            self.reader.read_exact(&mut chunk).unwrap();
            chunk.truncate(length);
            self.chunk.extend(chunk);
            if length == 0 {
                return None;
            }
        }
    }

    /// The next event, after any comments. `None` at the end.
    fn event(&mut self) -> Option<Event> {
        let (mut id, mut data) = (None, None);
        loop {
            let line = self.line()?;
            if let Some(text) = line.strip_prefix("id: ") {
                id = Some(text.to_owned());
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = Some(text.to_owned());
            } else if let (true, Some(data)) = (line.is_empty(), data.take()) {
                return Some(Event { id, data });
            } else {
                assert!(line.is_empty() || line.starts_with(':'), "{line}");
            }
        }
    }

    /// The lines and the cursor of the next events, up to a head. Only the last line of a step, and the head, have an
    /// id.
    fn until_head(&mut self) -> (Vec<String>, String) {
        let mut lines = Vec::new();
        loop {
            let event = self.event().unwrap();
            if event.data.starts_with(r#"{"type":"head""#) {
                let head: Value = serde_json::from_str(&event.data).unwrap();
                assert_eq!(event.id.as_deref(), head["cursor"].as_str());
                return (lines, event.id.unwrap());
            }
            lines.push(event.data);
        }
    }
}

#[test]
fn each_change_is_one_line_and_each_answer_ends_with_a_head() {
    let index = GitIndex::empty();
    let (foo, bar) = (
        Version::new("Foo", "1.0.0", 1),
        Version::new("bar", "0.1.0", 2),
    );
    let new = Version::new("Foo", "1.1.0", 3);
    let edited = foo.clone().with("rust_version", json!("1.90"));
    let start = index.commit().crate_file("foo", &file(&[&foo]));
    let start = start.crate_file("bar", &file(&[&bar])).send();
    let (data, url) = (TempDir::new().unwrap(), index.path());
    let mirror = Mirror::start(&settings(url.to_str().unwrap(), data.path()));
    let first = head_at(&mirror, &start);
    let answer = mirror.get("/changes");
    let head = Changes::of(&answer).head;
    assert!(head["time"].as_str().unwrap().ends_with('Z'), "{head}");
    assert_eq!(
        answer.text(),
        format!(
            r#"{{"type":"head","cursor":"{first}","commit":"{start}","time":{}}}{}"#,
            head["time"], "\n"
        )
    );
    let mut expected = Vec::new();
    let mut cursors = vec![first.clone()];
    for (files, lines) in [
        (vec![&foo, &new], vec![("added", new.clone())]),
        (
            vec![&foo, &new.clone().yanked()],
            vec![("yanked", new.clone().yanked())],
        ),
        (vec![&foo, &new], vec![("unyanked", new.clone())]),
        (vec![&edited, &new], vec![("changed", edited.clone())]),
        (vec![&new], vec![("version_deleted", edited.clone())]),
    ] {
        let commit = index.commit().crate_file("foo", &file(&files)).send();
        cursors.push(head_at(&mirror, &commit));
        expected.extend(
            lines
                .iter()
                .map(|(kind, version)| version.line(kind, &commit)),
        );
    }
    let end = index.commit().delete_crate("bar").send();
    cursors.push(head_at(&mirror, &end));
    expected.push(bar.line("version_deleted", &end));
    expected.push(format!(
        r#"{{"type":"crate_deleted","crate":"bar","path":"3/b/bar","commit":"{end}"}}"#
    ));
    let all = Changes::since(&mirror, &first);
    assert_eq!(all.lines, expected);
    assert_eq!(
        (all.cursor(), &all.head["commit"]),
        (cursors[6].as_str(), &json!(end))
    );
    assert!(Changes::since(&mirror, all.cursor()).lines.is_empty());

    // Pages have whole steps. Each begins where the one before has ended.
    for limit in [1, 2, 3, 7, 1_000] {
        let (mut lines, mut cursor) = (Vec::new(), first.clone());
        while cursor != cursors[6] {
            let page = mirror.get(&format!("/changes?limit={limit}&since={cursor}"));
            let page = Changes::of(&page);
            assert!((1..=limit.max(2)).contains(&page.lines.len()), "{limit}");
            assert!(cursors.iter().any(|known| known == page.cursor()));
            cursor = page.cursor().to_owned();
            lines.extend(page.lines);
        }
        assert_eq!(lines, expected, "{limit}");
    }

    // A squash changes no file. So there is no line, and the head has the commit of the squash.
    index.squash();
    let squashed = index.head();
    assert_eq!(head_at(&mirror, &squashed), cursors[6]);
    assert!(Changes::since(&mirror, &cursors[6]).lines.is_empty());
    assert_answers_to_odd_requests(&mirror, &first, &squashed);
    assert_follows(&mirror, &index, &first, &expected);
    assert_follows_by_http2(mirror.address, &first, &expected[0]);

    // A stop does not wait for followers.
    let mut follower = Follower::start(mirror.address, "/changes", None);
    follower.until_head();
    let began = Instant::now();
    mirror.stop();
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert!(follower.event().is_none(), "the answer is complete");
}

fn assert_answers_to_odd_requests(mirror: &Mirror, cursor: &str, commit: &str) {
    let plain = |path: &str| mirror.get(path);
    for (query, status, text) in [
        ("since=", 400, "since must be"),
        ("since=2026-01-01", 400, "2026-01-01T00:00:00Z"),
        ("since=2026-01-32T00:00:00Z", 400, "since must be"),
        ("limit=0", 400, "from 1 to 1000"),
        ("limit=1001", 400, "from 1 to 1000"),
        ("limit=-1", 400, "limit"),
        ("limit=", 400, "limit"),
        ("limit=1&limit=2", 400, "limit"),
        ("since=nonsense", 410, START_AGAIN),
        ("since=1-0123456789abcdef", 410, START_AGAIN),
        ("since=999999-0123456789abcdef", 410, START_AGAIN),
    ] {
        let answer = plain(&format!("/changes?{query}"));
        assert_eq!(answer.status, status, "{query}: {answer:?}");
        assert!(answer.detail().contains(text), "{query}: {answer:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{query}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    }
    assert_eq!(plain("/changes?since=nonsense").detail(), START_AGAIN);
    let path = format!("/changes?since={cursor}&unknown=1");
    for (method, accept, kind) in [
        ("GET", "*/*", "application/x-ndjson"),
        ("HEAD", "*/*", "application/x-ndjson"),
        ("GET", "text/event-stream;q=0", "application/x-ndjson"),
        (
            "GET",
            "text/event-stream;q=0.5, application/x-ndjson",
            "application/x-ndjson",
        ),
        ("HEAD", "text/event-stream", "text/event-stream"),
    ] {
        let answer = mirror.request(method, &path, &[("Accept", accept)]);
        assert_eq!(answer.status, 200, "{method} {accept}");
        for (name, value) in [
            ("content-type", kind),
            ("cache-control", "no-store"),
            ("vary", "accept"),
            ("x-index-commit", commit),
            ("access-control-allow-origin", "*"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{method} {accept} {name}");
        }
        assert_eq!(answer.body.is_empty(), method == "HEAD");
        // GET sends more than nothing, and nobody knows how much.
        assert_eq!(answer.header("content-length"), None, "{method} {accept}");
    }
    let gone = mirror.request("HEAD", "/changes?since=nonsense", &[]);
    assert_eq!(gone.status, 410);
    assert_eq!(mirror.post("/changes", &[], b"").status, 405);
    assert_eq!(plain("/changes/").status, 404);
    assert_eq!(plain("//./changes").status, 200);
}

fn assert_follows(mirror: &Mirror, index: &GitIndex, first: &str, expected: &[String]) {
    let address = mirror.address;
    let mut follower = Follower::start(address, "/changes", None);
    assert_eq!(follower.status, 200);
    for header in [
        "content-type: text/event-stream\r\n",
        "x-accel-buffering: no\r\n",
        "cache-control: no-store\r\n",
    ] {
        assert!(follower.head.contains(header), "{}", follower.head);
    }
    let (lines, now) = follower.until_head();
    assert!(lines.is_empty());
    let version = Version::new("later", "1.0.0", 9);
    let commit = index.commit().crate_file("later", &file(&[&version]));
    let commit = commit.send();
    let event = follower.event().unwrap();
    assert_eq!(event.data, version.line("added", &commit));
    let (_, later) = follower.until_head();
    assert_eq!(event.id.as_ref(), Some(&later));
    // A client that reconnects sends the last id that it has seen.
    for (path, id) in [
        ("/changes", now.as_str()),
        ("/changes?since=nonsense", &now),
    ] {
        let mut again = Follower::start(address, path, Some(id));
        let missed = (vec![version.line("added", &commit)], later.clone());
        assert_eq!(again.until_head(), missed);
    }
    let mut from_start = Follower::start(address, &format!("/changes?limit=3&since={first}"), None);
    let mut lines = Vec::new();
    while lines.len() <= expected.len() {
        lines.extend(from_start.until_head().0);
    }
    assert_eq!(lines[..expected.len()], *expected);
    assert_eq!(
        Follower::start(address, "/changes", Some("1-0")).status,
        410
    );
    assert_eq!(
        Follower::start(address, "/changes?limit=x", None).status,
        400
    );
    drop((follower, from_start));

    // One client can have 32 followers and no more. When they leave, it can have new ones.
    let mut followers = Vec::new();
    eventually("the places are free again", || {
        followers.clear();
        let start = || Follower::start(address, "/changes", None);
        followers.extend(std::iter::repeat_with(start).take(FOLLOWERS_MAX));
        followers.iter().all(|follower| follower.status == 200)
    });
    let refused = Follower::start(address, "/changes", None);
    assert_eq!(refused.status, 503);
    assert!(
        refused.head.contains("\r\nretry-after: 5\r\n"),
        "{}",
        refused.head
    );
    let lines = mirror.get("/changes");
    assert_eq!(lines.status, 200, "only followers are limited");
}

fn assert_follows_by_http2(address: SocketAddr, first: &str, expected: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Http2::plain(address).await;
        let path = format!("/changes?since={first}");
        let accept = [("accept", "text/event-stream")];
        let mut answer = loop {
            let answer = client.begin("GET", &path, &accept, Body::empty());
            let answer = answer.await.unwrap();
            // The server may not have noticed yet that connections were closed.
            if answer.status() == 200 {
                break answer.into_body();
            }
            assert_eq!(answer.status(), 503);
        };
        let frame = answer.frame().await.unwrap().unwrap();
        let text = String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap();
        assert!(text.contains(&format!("data: {expected}\n\n")), "{text}");
    });
}

#[test]
fn the_list_since_a_time_continues_in_the_feed_without_a_gap() {
    let index = GitIndex::empty();
    let of = |day: u8, name: &str| Version::new(name, &format!("1.0.{day}"), day);
    let untimed = of(9, "bar")
        .with("pubtime", Value::Null)
        .with("vers", json!("0.1.0"));
    let (a, b) = (
        [of(1, "bar"), of(3, "bar").yanked()],
        [of(2, "Foo"), of(3, "Foo")],
    );
    let commit = index
        .commit()
        .crate_file("bar", &file(&[&a[0], &untimed, &a[1]]));
    let commit = commit.crate_file("foo", &file(&[&b[0], &b[1]])).send();
    let (data, url) = (TempDir::new().unwrap(), index.path());
    let mirror = Mirror::start(&settings(url.to_str().unwrap(), data.path()));
    let cursor = head_at(&mirror, &commit);
    eventually("there is a catalog", || {
        let answer = mirror.get("/changes?since=2026-01-01T00:00:00Z");
        if answer.status != 200 {
            assert_eq!(
                (answer.status, answer.header("retry-after")),
                (503, Some("5"))
            );
        }
        answer.status == 200
    });
    let all = [&a[0], &b[0], &a[1], &b[1]].map(|version| version.line("added", &commit));
    for (since, from) in [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-01T00:00:00Z", 0),
        ("2026-01-01T00:00:01Z", 1),
        ("2026-01-02T01:00:00%2B01:00", 1),
        ("2026-01-02T01:00:00+01:00", 1),
        ("2026-01-03T00:00:00Z", 2),
        ("2026-01-03T00:00:00.5Z", 4),
        ("2999-01-01T00:00:00Z", 4),
    ] {
        let found = Changes::since(&mirror, since);
        assert_eq!(found.lines, all[from..], "{since}");
        assert_eq!(found.cursor(), cursor, "{since}");
        assert_eq!(found.head["commit"], commit);
    }
    // Pages have cursors of their own, even between two versions of one second.
    let pages = |limit: usize, between: &dyn Fn()| {
        let (mut lines, mut since) = (Vec::new(), "2026-01-01T00:00:00Z".to_owned());
        for _ in 0..10 {
            let page = mirror.get(&format!("/changes?limit={limit}&since={since}"));
            let page = Changes::of(&page);
            // A page of the journal has whole steps.
            assert!(page.lines.len() <= limit.max(3));
            let is_end = page.lines.is_empty();
            page.cursor().clone_into(&mut since);
            lines.extend(page.lines);
            if is_end {
                break;
            }
            between();
        }
        (lines, since)
    };
    for limit in 1..=4 {
        assert_eq!(pages(limit, &|| ()), (all.to_vec(), cursor.clone()));
    }
    // Changes in the meantime come after the list, or in it and once more.
    let late = of(4, "bar");
    let is_sent = std::cell::Cell::new(String::new());
    let (lines, end) = pages(1, &|| {
        if is_sent.take().is_empty() {
            let commit = index
                .commit()
                .crate_file("bar", &file(&[&a[1], &late]))
                .send();
            head_at(&mirror, &commit);
            is_sent.set(commit);
        } else {
            is_sent.set("sent".to_owned());
        }
    });
    let changed = index.head();
    assert_eq!(end, head_at(&mirror, &changed));
    assert!(lines.contains(&late.line("added", &changed)), "{lines:#?}");
    assert!(
        lines.contains(&a[0].line("version_deleted", &changed)),
        "{lines:#?}"
    );
    // A follower can begin with a time, too. With a catalog that is behind, some lines would come from the journal.
    eventually("the catalog has followed", || {
        Changes::since(&mirror, "2999-01-01T00:00:00Z").head["commit"] == changed
    });
    let mut follower = Follower::start(
        mirror.address,
        "/changes?limit=1&since=2026-01-03T00:00:00Z",
        None,
    );
    let mut found = BTreeSet::new();
    loop {
        let (lines, cursor) = follower.until_head();
        found.extend(lines);
        if cursor == end {
            break;
        }
    }
    let recent = [&a[1], &b[1], &late].map(|version| version.line("added", &changed));
    assert_eq!(found, recent.into_iter().collect());
}

/// The index as a follower knows it: the checksum and the flag of each version.
type Model = BTreeMap<(String, String), (String, bool)>;

fn apply(model: &mut Model, line: &str) {
    let line: Value = serde_json::from_str(line).unwrap();
    let text = |field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let key = (text("crate"), text("version"));
    match line["type"].as_str().unwrap() {
        "version_deleted" => drop(model.remove(&key)),
        "crate_deleted" => assert!(model.keys().all(|(name, _)| *name != key.0)),
        _ => drop(model.insert(key, (text("cksum"), line["yanked"] == true))),
    }
}

/// The same, read from the served index.
fn served(client: &Client, names: &[&str]) -> Model {
    let mut model = Model::new();
    for name in names {
        let answer = client.get(&format!("/index/{}", index_path(name)));
        if answer.status == 404 {
            continue;
        }
        for line in answer.text().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |field: &str| line[field].as_str().unwrap().to_owned();
            let state = (text("cksum"), line["yanked"] == true);
            model.insert((text("name"), text("vers")), state);
        }
    }
    model
}

const NAMES: [&str; 5] = ["a", "b-c", "serde", "tokio", "zip"];

/// Changes some crates at random.
fn change(index: &GitIndex, files: &mut BTreeMap<&'static str, Vec<Version>>, random: &mut Rng) {
    let mut commit = index.commit();
    for _ in 0..random.usize(1..4) {
        let name = NAMES[random.usize(..NAMES.len())];
        let versions = files.entry(name).or_default();
        let place = random.usize(..=versions.len());
        match (random.u8(..6), versions.get_mut(place)) {
            (0, Some(_)) => versions.clear(),
            (1, Some(_)) => drop(versions.remove(place)),
            (2..4, Some(Version(line))) => line["yanked"] = json!(line["yanked"] == false),
            (4, Some(Version(line))) => line["links"] = json!(random.u32(..).to_string()),
            _ => {
                let version = format!("{}.0.0", random.u32(..));
                versions.push(Version::new(name, &version, random.u8(1..31)));
            }
        }
        commit = if versions.is_empty() {
            commit.delete_crate(name)
        } else {
            commit.crate_file(name, &file(&versions.iter().collect::<Vec<_>>()))
        };
    }
    commit.send();
}

#[test]
fn a_follower_that_reconnects_at_random_ends_with_exactly_the_served_index() {
    let index = GitIndex::empty();
    let start = index.commit().file("config.json", b"{}").send();
    let (data, url) = (TempDir::new().unwrap(), index.path());
    let mirror = Mirror::start_with(&settings(url.to_str().unwrap(), data.path()), |config| {
        config.refresh_interval = Some(Duration::from_millis(20));
    });
    let mut cursor = head_at(&mirror, &start);
    let (mut model, mut files, mut random) = (Model::new(), BTreeMap::new(), Rng::with_seed(14));
    for round in 0..30 {
        change(&index, &mut files, &mut random);
        if round % 3 == 0 {
            head_at(&mirror, &index.head());
        }
        if random.bool() {
            let limit = random.usize(1..5);
            let page = mirror.get(&format!("/changes?limit={limit}&since={cursor}"));
            let page = Changes::of(&page);
            page.lines.iter().for_each(|line| apply(&mut model, line));
            page.cursor().clone_into(&mut cursor);
        } else {
            // Reads some events, and may disconnect in the middle of a step.
            let mut follower = Follower::start(mirror.address, "/changes", Some(&cursor));
            assert_eq!(follower.status, 200);
            let mut step = Vec::new();
            for _ in 0..random.usize(1..4) {
                let event = follower.event().unwrap();
                if !event.data.starts_with(r#"{"type":"head""#) {
                    step.push(event.data);
                }
                if let Some(id) = event.id {
                    step.drain(..).for_each(|line| apply(&mut model, &line));
                    cursor = id;
                }
            }
        }
    }
    let end = head_at(&mirror, &index.head());
    while cursor != end {
        let page = Changes::since(&mirror, &cursor);
        page.lines.iter().for_each(|line| apply(&mut model, line));
        page.cursor().clone_into(&mut cursor);
    }
    assert!(model.len() > 3, "{model:?}");
    assert_eq!(model, served(&mirror, &NAMES));
}

#[test]
fn a_kill_at_any_moment_loses_no_change() {
    let index = GitIndex::empty();
    let start = index.commit().file("config.json", b"{}").send();
    let (data, url) = (TempDir::new().unwrap(), index.path());
    let own = settings(url.to_str().unwrap(), data.path());
    let mut program = Program::start(&own);
    let mut cursor = head_at(&program, &start);
    let (mut model, mut files, mut random) = (Model::new(), BTreeMap::new(), Rng::with_seed(9));
    for round in 0..4_u32 {
        let before = index.head();
        change(&index, &mut files, &mut random);
        // In some rounds the kill comes when the index shows the change, in others before or after.
        let follow = |program: &Program| program.get("/index/config.json");
        eventually("the moment of the kill", || {
            let commit = follow(&program).header("x-index-commit").map(str::to_owned);
            round % 3 == 0 || commit.is_some_and(|commit| commit != before)
        });
        program.kill();
        program = Program::start(&own);
        let end = head_at(&program, &index.head());
        let page = Changes::since(&program, &cursor);
        page.lines.iter().for_each(|line| apply(&mut model, line));
        assert_eq!(page.cursor(), end);
        cursor = end;
        assert_eq!(model, served(&program, &NAMES), "round {round}");
    }
}

#[test]
fn old_steps_are_forgotten_and_their_followers_start_again() {
    let index = GitIndex::empty();
    let publish = |version: &str| {
        let version = Version::new("foo", version, 1);
        index.commit().crate_file("foo", &file(&[&version])).send()
    };
    let (data, url) = (TempDir::new().unwrap(), index.path());
    let ahead = Arc::new(AtomicU64::new(0));
    let clock = {
        let ahead = Arc::clone(&ahead);
        let began = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        Clock::custom(move || began + Duration::from_secs(ahead.load(Ordering::Relaxed)))
    };
    let start = publish("1.0.0");
    let own = settings(url.to_str().unwrap(), data.path());
    let own = [&own[..], &[("CHANGES_RETENTION", "2 hours")]].concat();
    let mirror = Mirror::start_at(&own, clock);
    let first = head_at(&mirror, &start);
    let second = head_at(&mirror, &publish("1.0.1"));
    assert_eq!(Changes::since(&mirror, &first).lines.len(), 2);
    ahead.store(2 * 3_600 + 1, Ordering::Relaxed);
    let gone = mirror.get(&format!("/changes?since={first}"));
    assert_eq!((gone.status, gone.detail().as_str()), (410, START_AGAIN));
    assert!(Changes::since(&mirror, &second).lines.is_empty());
    let third = head_at(&mirror, &publish("1.0.2"));
    let head = Changes::since(&mirror, &second);
    assert_eq!((head.lines.len(), head.cursor()), (2, third.as_str()));
    assert_eq!(head.head["time"], "2027-01-15T10:00:01Z");
}
