//! A gate that answers wait at until the test opens it.

use std::io;
use std::net::TcpStream;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// How often whoever waits looks whether its client is still there.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Closed at first.
#[derive(Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    /// Lets everybody through, from now on.
    pub(crate) fn open(&self) {
        self.set(true);
    }

    /// Lets nobody through, from now on.
    pub(crate) fn close(&self) {
        self.set(false);
    }

    /// Waits until the gate is open; an error if the client goes away first.
    pub(crate) fn wait(&self, client: &TcpStream) -> io::Result<()> {
        while !self.wait_a_moment() {
            if has_left(client)? {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        Ok(())
    }

    /// Waits for some milliseconds or until the gate is open; whether it is.
    pub(crate) fn wait_a_moment(&self) -> bool {
        let open = self.open.lock().unwrap();
        let (open, _) = self
            .changed
            .wait_timeout_while(open, LOOK_EVERY, |open| !*open)
            .unwrap();
        *open
    }

    fn set(&self, open: bool) {
        *self.open.lock().unwrap() = open;
        self.changed.notify_all();
    }
}

/// A client that has asked sends nothing more, so that anything to read is the end of the connection.
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
