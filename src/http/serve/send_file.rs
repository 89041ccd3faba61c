//! Crate files go from the disk to a plain connection without passing through this process, by `sendfile`.
//!
//! hyper knows nothing of it: the body gives it a [`Chunk`] of the right length whose bytes are a stand-in, and the
//! stream below recognises the stand-in by its address and sends the file in its place. A stand-in that is not followed
//! by its file ends the connection, so that it can never be taken for content. hyper copies no chunks of a body, because
//! it is told that the stream writes several slices at once; a test holds what arrives against the file.
//!
//! What is not there for TLS and HTTP/2, where the bytes have to be read anyway.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use bytes::Buf;
use hyper::body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::store::FilePart;

/// What is sent at a time: a worker does nothing else meanwhile. With a quarter of a megabyte a file of one megabyte took
/// a third longer.
const PIECE_BYTES: usize = 2 * 1024 * 1024;

/// The length of the stand-in. A piece is several times this one slice.
const STAND_IN_BYTES: usize = 64 * 1024;

/// What hyper believes to send. Its bytes never matter.
static STAND_IN: [u8; STAND_IN_BYTES] = [0; STAND_IN_BYTES];

fn is_stand_in(slice: &[u8]) -> bool {
    STAND_IN.as_ptr_range().contains(&slice.as_ptr())
}

/// The parts of files whose stand-ins are on their way to the socket, in order. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Outgoing(Arc<Mutex<VecDeque<FilePart>>>);

impl Outgoing {
    fn parts(&self) -> MutexGuard<'_, VecDeque<FilePart>> {
        // Nothing below can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of an answer on the connection that these parts are of.
    pub(super) fn body_of(&self, response: Response) -> hyper::Response<FileBody> {
        let (mut head, body) = response.into_parts();
        let body = match head.extensions.remove::<FilePart>() {
            Some(rest) => FileBody::File {
                rest,
                loading: None,
                outgoing: self.clone(),
            },
            None => FileBody::Bytes { body },
        };
        hyper::Response::from_parts(head, body)
    }
}

pin_project! {
    /// An answer that may be a file.
    pub(super) struct WithFiles<F> {
        #[pin]
        pub(super) answer: F,
        pub(super) outgoing: Outgoing,
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for WithFiles<F> {
    type Output = Result<hyper::Response<FileBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(context));
        Poll::Ready(answer.map(|response| this.outgoing.body_of(response)))
    }
}

/// A piece of a body.
#[derive(Debug)]
pub(super) enum Chunk {
    /// The bytes themselves.
    Bytes(Bytes),
    /// So many bytes of the next file part.
    StandIn(usize),
}

impl Chunk {
    fn first_slice<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match slices.first_mut() {
            Some(slice) if self.has_remaining() => {
                *slice = IoSlice::new(self.chunk());
                1
            }
            _ => 0,
        }
    }
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.remaining(),
            Self::StandIn(left) => *left,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.chunk(),
            Self::StandIn(left) => STAND_IN.get(..*left).unwrap_or(&STAND_IN),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let Self::StandIn(left) = self else {
            return self.first_slice(slices);
        };
        let (mut left, mut used) = (*left, 0);
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
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::StandIn(left) => *left = left.saturating_sub(count),
        }
    }
}

pin_project! {
    /// A body that may be a file.
    #[project = FileBodyProjection]
    pub(super) enum FileBody {
        Bytes { #[pin] body: Body },
        File {
            rest: FilePart,
            // The next piece, while it is being read from the disk.
            loading: Option<JoinHandle<io::Result<FilePart>>>,
            outgoing: Outgoing,
        },
    }
}

impl HttpBody for FileBody {
    type Data = Chunk;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, axum::Error>>> {
        match self.project() {
            FileBodyProjection::Bytes { body } => {
                let frame = ready!(body.poll_frame(context));
                Poll::Ready(frame.map(|frame| Ok(frame?.map_data(Chunk::Bytes))))
            }
            FileBodyProjection::File {
                rest,
                loading,
                outgoing,
            } => {
                let piece = match loading.as_mut() {
                    Some(load) => {
                        let loaded = ready!(Pin::new(load).poll(context));
                        *loading = None;
                        match loaded.map_err(io::Error::other).flatten() {
                            Ok(piece) => piece,
                            Err(error) => return Poll::Ready(Some(Err(axum::Error::new(error)))),
                        }
                    }
                    None if rest.bytes_left() == 0 => return Poll::Ready(None),
                    None => {
                        let piece = rest.split_to(PIECE_BYTES as u64);
                        if !piece.is_in_memory() {
                            // The socket must not wait for the disk, nor must any other request on this thread.
                            let load = move || piece.load().map(|()| piece);
                            *loading = Some(tokio::task::spawn_blocking(load));
                            context.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        piece
                    }
                };
                let length = usize::try_from(piece.bytes_left()).unwrap_or_default();
                outgoing.parts().push_back(piece);
                Poll::Ready(Some(Ok(Frame::data(Chunk::StandIn(length)))))
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Bytes { body } => body.size_hint(),
            // Headers say how long a file is.
            Self::File { .. } => SizeHint::default(),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Bytes { body } => body.is_end_stream(),
            Self::File { rest, loading, .. } => loading.is_none() && rest.bytes_left() == 0,
        }
    }
}

/// A connection that sends files in the place of their stand-ins.
#[derive(Debug)]
pub(super) struct SendFileStream {
    stream: TcpStream,
    outgoing: Outgoing,
}

impl SendFileStream {
    pub(super) fn new(stream: TcpStream, outgoing: Outgoing) -> Self {
        Self { stream, outgoing }
    }

    /// Sends a part of the next file, at most so many bytes.
    fn poll_send_file(
        &self,
        context: &mut Context<'_>,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.stream.poll_write_ready(context))?;
            let mut parts = self.outgoing.parts();
            let Some(part) = parts.front_mut() else {
                let mistake = io::Error::other("a stand-in without its file");
                return Poll::Ready(Err(mistake));
            };
            let send = || part.send_to(self.stream.as_fd(), bytes_max);
            let sent = self.stream.try_io(Interest::WRITABLE, send);
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => {
                    if part.bytes_left() == 0 {
                        parts.pop_front();
                    }
                    return Poll::Ready(sent);
                }
            }
        }
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
        // Empty slices may stand before a stand-in.
        if content.iter().all(|slice| slice.is_empty()) && !others.is_empty() {
            let stand_ins = others.iter().take_while(|slice| is_stand_in(slice));
            return self.poll_send_file(context, stand_ins.map(|slice| slice.len()).sum());
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, content)
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
