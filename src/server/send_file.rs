//! Files go from the disk to a plain connection by `sendfile`, without passing through this process.
//!
//! hyper does not know this. The body gives hyper a [`StandIn`] of the right length, whose bytes do not matter. The
//! stream below hyper recognises the stand-in by its address, and sends the file instead. A stand-in without a file
//! ends the connection, so it is never sent as content. hyper does not copy the chunks of a body, because the stream
//! supports vectored writes. A test compares the received bytes with the file.
//!
//! TLS and HTTP/2 do not use this: there the process must read the bytes anyway.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::response::Response;
use bytes::Buf;
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::disk_file::FilePart;

/// How much is sent at a time. The worker does nothing else in that time. With 256 kB, a file of 1 MB took a third
/// longer.
const PIECE_BYTES: usize = 2 * 1024 * 1024;

/// The length of the stand-in. A piece consists of several such slices.
const STAND_IN_BYTES: usize = 64 * 1024;

/// The bytes that hyper sees. They are never sent.
static STAND_IN: [u8; STAND_IN_BYTES] = [0; STAND_IN_BYTES];

fn is_stand_in(slice: &[u8]) -> bool {
    STAND_IN.as_ptr_range().contains(&slice.as_ptr())
}

/// The file parts whose stand-ins are on their way to the socket, in order. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing(Arc<Mutex<VecDeque<FilePart>>>);

impl Outgoing {
    /// The file of an answer on this connection, if it has one.
    pub(crate) fn file_of(&self, response: &mut Response) -> Option<FileAnswer> {
        let rest = response.extensions_mut().remove::<FilePart>()?;
        Some(FileAnswer {
            rest,
            loading: None,
            outgoing: self.clone(),
        })
    }
}

/// Stands for this many bytes of the next file part.
#[derive(Debug)]
pub(crate) struct StandIn(usize);

impl Buf for StandIn {
    fn remaining(&self) -> usize {
        self.0
    }

    fn chunk(&self) -> &[u8] {
        STAND_IN.get(..self.0).unwrap_or(&STAND_IN)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let (mut left, mut used) = (self.0, 0);
        for slice in slices {
            if left == 0 {
                break;
            }
            let length = left.min(STAND_IN_BYTES);
            *slice = IoSlice::new(STAND_IN.get(..length).unwrap_or_default());
            left -= length;
            used += 1;
        }
        used
    }

    fn advance(&mut self, count: usize) {
        self.0 = self.0.saturating_sub(count);
    }
}

/// A file that the kernel sends, piece by piece.
pub(crate) struct FileAnswer {
    rest: FilePart,
    /// The next piece, while it is read from the disk.
    loading: Option<JoinHandle<io::Result<FilePart>>>,
    outgoing: Outgoing,
}

impl FileAnswer {
    /// The next piece, when it can be sent without waiting for the disk.
    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<StandIn, axum::Error>>> {
        if self.loading.is_none() {
            if self.rest.bytes_left() == 0 {
                return Poll::Ready(None);
            }
            let piece = self.rest.split_to(PIECE_BYTES as u64);
            if piece.is_in_memory() {
                return Poll::Ready(Some(Ok(self.send(piece))));
            }
            // Neither the socket nor other requests on this thread may wait for the disk.
            let load = move || piece.load().map(|()| piece);
            self.loading = Some(tokio::task::spawn_blocking(load));
        }
        let Some(load) = &mut self.loading else {
            return Poll::Ready(None);
        };
        let loaded = ready!(Pin::new(load).poll(context));
        self.loading = None;
        let loaded = loaded.map_err(io::Error::other).flatten();
        Poll::Ready(Some(
            loaded
                .map(|piece| self.send(piece))
                .map_err(axum::Error::new),
        ))
    }

    fn send(&self, piece: FilePart) -> StandIn {
        let length = usize::try_from(piece.bytes_left()).unwrap_or_default();
        self.outgoing.0.lock().push_back(piece);
        StandIn(length)
    }

    /// Whether all of it was handed over.
    pub(crate) fn is_at_end(&self) -> bool {
        self.loading.is_none() && self.rest.bytes_left() == 0
    }
}

/// A connection that sends files in place of their stand-ins.
#[derive(Debug)]
pub(crate) struct SendFileStream {
    stream: TcpStream,
    outgoing: Outgoing,
}

impl SendFileStream {
    pub(crate) fn new(stream: TcpStream, outgoing: Outgoing) -> Self {
        Self { stream, outgoing }
    }

    /// Calls `send` when the socket takes bytes, until it has taken some.
    fn poll_send(
        &self,
        context: &mut Context<'_>,
        mut send: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        use io::ErrorKind::{Interrupted, WouldBlock};
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            match self.stream.try_io(Interest::WRITABLE, &mut send) {
                Err(error) if matches!(error.kind(), WouldBlock | Interrupted) => {}
                sent => return Poll::Ready(sent),
            }
        }
    }

    /// Sends the bytes before a file. The kernel holds them back until the first bytes of the file come. A separate
    /// packet would wake the client twice.
    fn poll_send_head(&self, context: &mut Context<'_>, head: &[u8]) -> Poll<io::Result<usize>> {
        let (socket, flags) = (
            SockRef::from(&self.stream),
            libc::MSG_MORE | libc::MSG_NOSIGNAL,
        );
        self.poll_send(context, || socket.send_with_flags(head, flags))
    }

    /// Sends at most this many bytes of the next file.
    fn poll_send_file(
        &self,
        context: &mut Context<'_>,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        let mut parts = self.outgoing.0.lock();
        let Some(part) = parts.front_mut() else {
            return Poll::Ready(Err(io::Error::other("a stand-in without its file")));
        };
        let sent = self.poll_send(context, || part.send_to(self.stream.as_fd(), bytes_max));
        if sent.is_ready() && part.bytes_left() == 0 {
            parts.pop_front();
        }
        sent
    }
}

impl AsyncRead for SendFileStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for SendFileStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if is_stand_in(bytes) {
            return self.poll_send_file(context, bytes.len());
        }
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let is_content = |slice: &&IoSlice<'_>| slice.is_empty() || !is_stand_in(slice);
        let content = slices.iter().take_while(is_content).count();
        let (content, others) = slices.split_at(content);
        if others.is_empty() {
            return Pin::new(&mut self.stream).poll_write_vectored(context, content);
        }
        // There may be empty slices before a stand-in.
        match content.iter().find(|slice| !slice.is_empty()) {
            Some(head) => self.poll_send_head(context, head),
            None => {
                let stand_ins = others.iter().take_while(|slice| is_stand_in(slice));
                self.poll_send_file(context, stand_ins.map(|slice| slice.len()).sum())
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
