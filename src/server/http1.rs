//! HTTP/1 on one connection.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::response::Response;
use futures_util::FutureExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::answer_body::AnswerBody;
use super::application::{Application, Asked};
use super::exchange::{Connection, Exchange};
#[cfg(target_os = "linux")]
use super::send_file::Outgoing;
use super::settings::{ServerSettings, Serving};
use super::shares::Share;

/// Only Linux sends files.
#[cfg(not(target_os = "linux"))]
pub(super) type Outgoing = Infallible;

/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// A head up to this size is not accounted for. It is more than cargo, git and browsers send.
const HEAD_BYTES_FREE: usize = 8 * 1024;

/// Serves a connection until it ends or is told to end. `outgoing` takes the files that the kernel sends, if it can on
/// this connection.
pub(super) async fn serve<S>(
    stream: S,
    serving: &mut Serving<impl Application>,
    outgoing: Option<Outgoing>,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let Serving {
        connection,
        application,
        settings,
        draining,
    } = serving;
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.limits.head_wait_max)
        // With this, hyper never copies the chunks of a body. `send_file` relies on it.
        .writev(true)
        .max_buf_size(HEAD_BYTES_MAX);
    let stream = HeadAccount {
        stream,
        connection: Arc::clone(connection),
        settings: Arc::clone(settings),
        read: 0,
        requests: 0,
        large: None,
    };
    let service = service_fn(|request| {
        let proxies = &settings.trusted_proxies;
        let client = proxies.client(connection.address, request.headers());
        let exchange = Exchange::begin(connection, client);
        let asked = Asked::new(request, exchange.clone());
        let outgoing = outgoing.as_ref();
        // Not an async block, which would contain the request and the future: hyper moves the result.
        application(asked).map(move |answered| {
            let response = answered.begin(&exchange);
            Ok::<_, Infallible>(with_answer_body(response, exchange, outgoing))
        })
    });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        ended = &mut serving => return ended.map_err(io::Error::other),
        _ = draining.changed() => serving.as_mut().graceful_shutdown(),
    }
    serving.await.map_err(io::Error::other)
}

#[cfg(target_os = "linux")]
fn with_answer_body(
    mut response: Response,
    exchange: Exchange,
    outgoing: Option<&Outgoing>,
) -> hyper::Response<AnswerBody> {
    let file = outgoing.and_then(|outgoing| outgoing.file_of(&mut response));
    response.map(|body| match file {
        Some(file) => AnswerBody::of_file(file, exchange),
        None => AnswerBody::new(body, usize::MAX, exchange),
    })
}

#[cfg(not(target_os = "linux"))]
fn with_answer_body(
    response: Response,
    exchange: Exchange,
    _outgoing: Option<&Outgoing>,
) -> hyper::Response<AnswerBody> {
    response.map(|body| AnswerBody::new(body, usize::MAX, exchange))
}

/// A connection that counts the large heads and bodies of its requests in the account. Otherwise thousands of
/// incomplete heads would fill the memory.
#[derive(Debug)]
struct HeadAccount<S> {
    stream: S,
    connection: Arc<Connection>,
    settings: Arc<ServerSettings>,
    /// Bytes read since the last request began, or since the one before ended.
    read: usize,
    /// How many requests had begun at that moment.
    requests: u64,
    /// An exchange of the connection itself, with its share. hyper keeps a grown buffer as long as the connection
    /// lasts.
    large: Option<(Exchange, Share)>,
}

impl<S> HeadAccount<S> {
    fn note(&mut self, bytes: usize) -> io::Result<()> {
        let requests = self.connection.requests();
        if self.requests != requests {
            self.requests = requests;
            self.read = 0;
        }
        self.read = self.read.saturating_add(bytes);
        if self.read > HEAD_BYTES_FREE && self.large.is_none() {
            let whole = Exchange::of_connection(&self.connection);
            // While others need the memory, the server closes a connection whose client neither sends nor reads.
            whole.set_reading(true);
            let share = self
                .settings
                .account
                .try_take(&whole, HEAD_BYTES_MAX as u64);
            self.large = Some((whole, share.ok_or(io::ErrorKind::OutOfMemory)?));
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadAccount<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        let read = buffer.filled().len().saturating_sub(before);
        Poll::Ready(self.note(read))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadAccount<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // The system sends one slice faster than a list of slices.
        if let [slice] = slices {
            return Pin::new(&mut self.stream).poll_write(context, slice);
        }
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
