//! Counts what a client receives.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use super::accept_loop::AcceptLoop;

/// Relays connections to a server, and counts the bytes.
pub(crate) struct Meter {
    accepting: AcceptLoop,
    received: Arc<AtomicU64>,
}

impl Meter {
    /// Relays everything to the server at this address.
    pub(crate) fn start(server: SocketAddr) -> Self {
        let received = Arc::new(AtomicU64::new(0));
        let accepting = AcceptLoop::start(AcceptLoop::listen(), {
            let received = Arc::clone(&received);
            move |client| {
                let server = TcpStream::connect(server).unwrap();
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let requests = thread::spawn(move || {
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(Shutdown::Write));
                });
                pass_on(server, &client, &received);
                drop(client.shutdown(Shutdown::Both));
                requests.join().unwrap();
            }
        });
        Self {
            accepting,
            received,
        }
    }

    /// The address of the meter.
    pub(crate) fn address(&self) -> SocketAddr {
        self.accepting.address()
    }

    /// The bytes that clients have received since the last call.
    pub(crate) fn read(&self) -> u64 {
        self.received.swap(0, Ordering::SeqCst)
    }
}

fn pass_on(mut server: TcpStream, mut client: &TcpStream, received: &AtomicU64) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = server.read(&mut buffer) {
        received.fetch_add(u64::try_from(length).unwrap(), Ordering::SeqCst);
        if client.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
