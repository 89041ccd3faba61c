//! An HTTP client that sends exact bytes and follows no redirects.

use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use serde_json::Value;

use super::request::{read_chunks, read_headers};
use super::{eventually, eventually_some};

/// Longer than any answer takes.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(60);

/// A client of one mirror.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(candidate, _)| candidate.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The one text in crates.io's error envelope.
    #[track_caller]
    pub(crate) fn detail(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/json"),
            "{self:?}"
        );
        let json = self.json();
        let detail = json["errors"][0]["detail"].as_str().unwrap_or_default();
        assert_eq!(json, serde_json::json!({"errors": [{"detail": detail}]}));
        detail.to_owned()
    }
}

/// A connection that stays open.
pub(crate) struct Connection {
    reader: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    pub(crate) fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
        stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
        Ok(Self::on(stream))
    }

    /// Uses an existing connection.
    pub(crate) fn on(stream: TcpStream) -> Self {
        Self {
            reader: BufReader::new(stream),
        }
    }

    /// Sends bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// The socket, to send from another thread.
    pub(crate) fn stream(&self) -> TcpStream {
        self.reader.get_ref().try_clone().unwrap()
    }

    /// Reads one answer. `bodiless` is for answers to `HEAD`.
    pub(crate) fn read_answer(&mut self, bodiless: bool) -> io::Result<Answer> {
        let (status, headers) = self.read_head()?;
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if bodiless || matches!(status, 100..=199 | 204 | 304) {
            return Ok(answer);
        }
        if answer.header("transfer-encoding").is_some() {
            answer.body = read_chunks(&mut self.reader)?;
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            answer.body = vec![0; length];
            self.reader.read_exact(&mut answer.body)?;
        } else {
            self.reader.read_to_end(&mut answer.body)?;
        }
        if answer.header("content-encoding") == Some("gzip") {
            let mut body = Vec::new();
            GzDecoder::new(answer.body.as_slice()).read_to_end(&mut body)?;
            answer.body = body;
        }
        Ok(answer)
    }

    /// Reads to the end of the connection.
    pub(crate) fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).map(|_| rest)
    }

    fn read_head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let mut line = String::new();
        io::BufRead::read_line(&mut self.reader, &mut line)?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not an answer: {line:?}")))?;
        Ok((status, read_headers(&mut self.reader)?))
    }
}

impl Client {
    /// A client of the mirror at this address.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Sends a `GET` for a path, exactly as it is given.
    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[])
    }

    /// Sends a request without a body, with these headers.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.try_request(method, path, headers).unwrap()
    }

    /// Like [`Client::request`], for a mirror that may not run.
    pub(crate) fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> io::Result<Answer> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n",
            self.address
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut connection = Connection::open(self.address)?;
        connection.send(request.as_bytes())?;
        connection.read_answer(method == "HEAD")
    }

    /// Sends a request with a body, and with these headers.
    #[track_caller]
    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut connection = Connection::open(self.address).unwrap();
        connection.send(request.as_bytes()).unwrap();
        connection.send(body).unwrap();
        connection.read_answer(false).unwrap()
    }

    /// The answer of the API for a crate.
    #[track_caller]
    pub(crate) fn metadata(&self, name: &str) -> Answer {
        self.get(&format!("/api/v1/crates/{name}"))
    }

    /// The upstream commit of the current answers.
    #[track_caller]
    pub(crate) fn commit(&self) -> Option<String> {
        let answer = self.metadata("itoa");
        answer.header("x-index-commit").map(str::to_owned)
    }

    /// Waits until the mirror is ready.
    #[track_caller]
    pub(crate) fn wait_until_ready(&self) {
        let mut readiness = Readiness::default();
        eventually("the mirror is ready", || readiness.look(self).status == 200);
    }

    /// Waits until the mirror reports a failure, and returns its text.
    #[track_caller]
    pub(crate) fn wait_for_failure(&self) -> String {
        eventually_some("a failure shows on /readyz", || {
            let answer = self.get("/readyz");
            let error = answer.json()["index"]["last_error"]
                .as_str()
                .map(str::to_owned)?;
            if answer.json()["index"]["commit"].is_null() {
                assert_eq!(answer.status, 503);
                let reason = answer.json()["reason"].as_str().unwrap().to_owned();
                assert!(reason.contains(&error), "{reason}");
            }
            Some(error)
        })
    }

    /// Waits until answers are from this commit.
    #[track_caller]
    pub(crate) fn wait_for_commit(&self, commit: &str) {
        let mut readiness = Readiness::default();
        eventually("the commit is followed", || {
            readiness.look(self);
            self.commit().as_deref() == Some(commit)
        });
    }

    /// Waits until the git index shows this commit of the upstream.
    #[track_caller]
    pub(crate) fn wait_for_git_commit(&self, commit: &str) {
        eventually("the commit is served by git", || {
            let refs = "/git/index/info/refs?service=git-upload-pack";
            let answer = self.request("HEAD", refs, &[]);
            answer.header("x-index-commit") == Some(commit)
        });
    }

    /// Redirects and `/livez` need no index, and work at once.
    #[track_caller]
    pub(crate) fn assert_serves_without_index(&self) {
        let began = Instant::now();
        let answer = self.get("/api/v1/crates/Any-Crate/1.0.0+b/download");
        assert_eq!(answer.status, 302, "{answer:?}");
        let location = answer.header("location").unwrap();
        assert!(
            location.ends_with("Any-Crate-1.0.0%2Bb.crate"),
            "{location}"
        );
        assert_eq!(self.get("/livez").status, 200);
        assert!(began.elapsed() < Duration::from_secs(4), "too slow");
    }
}

/// The last answer of `/readyz`.
#[derive(Default)]
struct Readiness(String);

impl Readiness {
    /// Asks again, and prints a changed answer, so that a failed test shows it.
    fn look(&mut self, client: &Client) -> Answer {
        let answer = client.get("/readyz");
        let text = answer.text();
        if text != self.0 {
            println!("/readyz: {} {text}", answer.status);
            self.0 = text;
        }
        answer
    }
}
