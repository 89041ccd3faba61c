//! A server of crate files.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use super::CrateFile;
use super::accept_loop::AcceptLoop;
use super::request::Request;

/// Serves crate files, and records the requested paths.
pub(crate) struct CrateFiles {
    accepting: AcceptLoop,
    seen: Arc<Mutex<Vec<String>>>,
}

impl CrateFiles {
    /// Serves these files.
    pub(crate) fn start(files: &[CrateFile]) -> Self {
        let files: HashMap<String, Vec<u8>> = files
            .iter()
            .map(|file| (file.path(), file.bytes()))
            .collect();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let accepting = AcceptLoop::start(AcceptLoop::listen(), {
            let seen = Arc::clone(&seen);
            move |mut stream| {
                let Ok(request) = Request::read(&stream) else {
                    return;
                };
                let (status, body) = match files.get(&request.target) {
                    Some(file) => ("200 OK", file.as_slice()),
                    None => ("403 Forbidden", &b"<Error/>"[..]),
                };
                seen.lock().unwrap().push(request.target);
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/gzip\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n",
                    body.len()
                );
                // A client may disconnect.
                let sent = stream.write_all(head.as_bytes());
                drop(sent.and_then(|()| stream.write_all(body)));
            }
        });
        Self { accepting, seen }
    }

    /// The address of the server.
    pub(crate) fn address(&self) -> SocketAddr {
        self.accepting.address()
    }

    /// The requested paths, sorted.
    pub(crate) fn seen(&self) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap().clone();
        seen.sort();
        seen
    }
}
