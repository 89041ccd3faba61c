//! A gate that answers wait for until the test opens it.

use std::io;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// How often a waiting answer checks whether its client is still connected.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// The gate is closed at first.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Opens the gate for all.
    pub(crate) fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    /// Waits until the gate is open. Returns an error if the client disconnects first.
    pub(crate) fn wait(&self, client: &TcpStream) -> io::Result<()> {
        while !self.wait_a_moment() {
            if has_left(client)? {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }

    /// Waits for some milliseconds or until the gate is open. Returns whether it is open.
    pub(crate) fn wait_a_moment(&self) -> bool {
        let open = self.open.lock().unwrap();
        let (open, _) = self
            .changed
            .wait_timeout_while(open, LOOK_EVERY, |open| !*open)
            .unwrap();
        *open
    }
}

/// A client sends nothing after its request, so anything to read is the end of the connection.
fn has_left(client: &TcpStream) -> io::Result<bool> {
    client.set_nonblocking(true)?;
    let seen = client.peek(&mut [0]);
    client.set_nonblocking(false)?;
    match seen {
        Ok(length) => Ok(length == 0),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
