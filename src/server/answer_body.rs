//! The body of an answer on its way to the socket, in pieces. Each piece notes when it was sent.
//!
//! In HTTP/2 the socket does not show that a client reads nothing: the client grants no window, and the bodies of a
//! hundred answers wait in memory. hyper asks for the next piece of each body before there is a window for it. So a
//! body makes its next frame only after the frame before was sent.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use bytes::Buf;
use hyper::body::{Frame, SizeHint};
use pin_project_lite::pin_project;

use super::exchange::Exchange;
#[cfg(target_os = "linux")]
use super::send_file::{FileAnswer, StandIn};

/// The largest piece on a connection that several answers share. Smaller pieces can slow down a client that reads many
/// answers at once.
pub(crate) const SHARED_CONNECTION_PIECE_BYTES: usize = 16 * 1024;

/// A piece of a body.
#[derive(Debug)]
pub(crate) struct Piece {
    content: PieceContent,
    exchange: Exchange,
}

#[derive(Debug)]
enum PieceContent {
    Bytes(Bytes),
    #[cfg(target_os = "linux")]
    File(StandIn),
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match &self.content {
            PieceContent::Bytes(bytes) => bytes.remaining(),
            #[cfg(target_os = "linux")]
            PieceContent::File(stand_in) => stand_in.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match &self.content {
            PieceContent::Bytes(bytes) => bytes.chunk(),
            #[cfg(target_os = "linux")]
            PieceContent::File(stand_in) => stand_in.chunk(),
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match &self.content {
            PieceContent::Bytes(bytes) => bytes.chunks_vectored(slices),
            #[cfg(target_os = "linux")]
            PieceContent::File(stand_in) => stand_in.chunks_vectored(slices),
        }
    }

    /// hyper calls this for bytes that the system has accepted.
    fn advance(&mut self, count: usize) {
        match &mut self.content {
            PieceContent::Bytes(bytes) => bytes.advance(count),
            #[cfg(target_os = "linux")]
            PieceContent::File(stand_in) => stand_in.advance(count),
        }
        self.exchange.note_sent(count);
    }
}

pin_project! {
    /// A body in pieces.
    pub(crate) struct AnswerBody {
        #[pin]
        source: Source,
        // The rest of a frame that was larger than a piece.
        rest: Bytes,
        piece_bytes_max: usize,
        exchange: Exchange,
    }
}

#[cfg(target_os = "linux")]
pin_project! {
    /// Where the bytes come from.
    #[project = SourceProjection]
    enum Source {
        Body { #[pin] body: Body },
        File { file: FileAnswer },
    }
}

#[cfg(not(target_os = "linux"))]
pin_project! {
    /// Where the bytes come from.
    #[project = SourceProjection]
    enum Source {
        Body { #[pin] body: Body },
    }
}

impl AnswerBody {
    /// A body, in pieces of at most so many bytes.
    pub(crate) fn new(body: Body, piece_bytes_max: usize, exchange: Exchange) -> Self {
        Self {
            source: Source::Body { body },
            rest: Bytes::new(),
            piece_bytes_max,
            exchange,
        }
    }

    /// A file that the system sends.
    #[cfg(target_os = "linux")]
    pub(crate) fn of_file(file: FileAnswer, exchange: Exchange) -> Self {
        Self {
            source: Source::File { file },
            rest: Bytes::new(),
            piece_bytes_max: 0,
            exchange,
        }
    }
}

impl HttpBody for AnswerBody {
    type Data = Piece;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, axum::Error>>> {
        let this = self.project();
        let exchange = this.exchange;
        // The rest of a frame is already in memory and in the account.
        if this.rest.is_empty() && exchange.unsent() > 0 {
            exchange.sender().register(context.waker());
            // The bytes may have been sent before the waker was registered.
            if exchange.unsent() > 0 {
                return Poll::Pending;
            }
        }
        let piece = match this.source.project() {
            #[cfg(target_os = "linux")]
            SourceProjection::File { file } => {
                let Some(stand_in) = ready!(file.poll_next(context)).transpose()? else {
                    exchange.complete();
                    return Poll::Ready(None);
                };
                PieceContent::File(stand_in)
            }
            SourceProjection::Body { body } => {
                if this.rest.is_empty() {
                    let polled = body.poll_frame(context);
                    if polled.is_pending() {
                        exchange.producing();
                    }
                    let frame = match ready!(polled) {
                        Some(Ok(frame)) => frame,
                        Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                        None => {
                            exchange.complete();
                            return Poll::Ready(None);
                        }
                    };
                    match frame.into_data() {
                        Ok(data) => *this.rest = data,
                        // No answer has trailers.
                        Err(_trailers) => return Poll::Ready(None),
                    }
                }
                let length = this.rest.len().min(*this.piece_bytes_max);
                PieceContent::Bytes(this.rest.split_to(length))
            }
        };
        let piece = Piece {
            content: piece,
            exchange: exchange.clone(),
        };
        exchange.hand_over(piece.remaining());
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.source {
                #[cfg(target_os = "linux")]
                Source::File { file } => file.is_at_end(),
                Source::Body { body } => body.is_end_stream(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            // The headers have the length of a file.
            #[cfg(target_os = "linux")]
            Source::File { .. } => SizeHint::default(),
            Source::Body { body } => {
                let rest = u64::try_from(self.rest.len()).unwrap_or(u64::MAX);
                let inner = body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(inner.lower().saturating_add(rest));
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(rest));
                }
                hint
            }
        }
    }
}
