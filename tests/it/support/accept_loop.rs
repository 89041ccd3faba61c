//! The part that all servers of the tests share: a port on loopback, and a thread for each connection.

use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// Gives each connection a thread of its own, until the loop is dropped.
pub(crate) struct AcceptLoop {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl AcceptLoop {
    /// Serves the connections of a listener.
    pub(crate) fn start(
        listener: TcpListener,
        serve: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let open = Arc::new(Mutex::new(Vec::new()));
        let serve = Arc::new(serve);
        let thread = thread::spawn({
            let (stop, open) = (Arc::clone(&stop), Arc::clone(&open));
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let Ok(stream) = stream else { continue };
                    if let Ok(copy) = stream.try_clone() {
                        open.lock().unwrap().push(copy);
                    }
                    let serve = Arc::clone(&serve);
                    let open = Arc::clone(&open);
                    thread::spawn(move || {
                        let peer = stream.peer_addr();
                        serve(stream);
                        // The copy would keep the connection open.
                        if let Ok(peer) = peer {
                            open.lock()
                                .unwrap()
                                .retain(|copy| copy.peer_addr().is_ok_and(|other| other != peer));
                        }
                    });
                }
            }
        });
        Self {
            address,
            stop,
            open,
            thread: Some(thread),
        }
    }

    /// A listener on a free port of loopback.
    pub(crate) fn listen() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    /// The address of the listener.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes all connections.
    pub(crate) fn disconnect(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for AcceptLoop {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // `accept` returns only when a connection comes.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        self.disconnect();
    }
}
