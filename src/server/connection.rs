//! One connection from its first byte to its last: TLS or not, which HTTP, and how long a client may take for each step.
//!
//! What does not live here: the bounds of HTTP/2 (`http2`).

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::answer::AnswerBody;
use super::exchange::{Admission, Answered, Asked, Connection, Exchange};
use super::peer::TrustedProxies;
#[cfg(target_os = "linux")]
use super::send_file::Outgoing;
use super::send_file::SendFileStream;
use super::shares::{Share, Shares};
use super::tls::{ALPN_HTTP2, CurrentCertificate};
use super::{Stack, http2};

/// Elsewhere no system sends files.
#[cfg(not(target_os = "linux"))]
type Outgoing = Infallible;

/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// So much of a head is read without an account of it: more than cargo, git and browsers send.
const HEAD_BYTES_FREE: usize = 8 * 1024;

/// What a client sends first if it knows that the server speaks HTTP/2 (RFC 9113, section 3.4). No request of HTTP/1 can
/// begin in this way.
pub(crate) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long clients may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The longest wait for the head of a request, the first one or, with HTTP/1, the next one on a connection that is
    /// kept open.
    pub(crate) head_wait_max: Duration,
    /// The longest wait for the end of a TLS handshake.
    pub(crate) handshake_max: Duration,
    /// How long a client may take to accept the next piece of an answer. One that stalls holds memory.
    pub(crate) write_stall_max: Duration,
    /// How long a connection with HTTP/2 may be without a request. Long, for it is worth more than one with HTTP/1:
    /// cargo uses it for everything.
    pub(crate) idle_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_wait_max: Duration::from_secs(60),
            handshake_max: Duration::from_secs(15),
            write_stall_max: Duration::from_secs(30),
            idle_max: Duration::from_secs(120),
        }
    }
}

/// Tells a connection that the mirror stops; held until the connection has ended.
pub(crate) type Draining = watch::Receiver<()>;

/// What all connections have in common.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    /// How long clients may take.
    pub(crate) limits: Limits,
    /// The account of the memory that is kept for clients.
    pub(crate) account: Shares,
    /// Proxies that are trusted to name the client.
    pub(crate) trusted_proxies: TrustedProxies,
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    stream: TcpStream,
    connection: Arc<Connection>,
    stack: impl Stack,
    certificate: Option<CurrentCertificate>,
    common: Common,
    mut draining: Draining,
) {
    let served = match certificate {
        None => serve_plain(stream, &connection, stack, common, &mut draining).await,
        // TLS needs far more memory than most connections have use for.
        Some(certificate) => {
            let serving = serve_tls(
                stream,
                &connection,
                stack,
                &certificate,
                common,
                &mut draining,
            );
            Box::pin(serving).await
        }
    };
    // A client that breaks the protocol or goes away is its own affair.
    if let Err(error) = served {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

async fn serve_plain(
    stream: TcpStream,
    connection: &Arc<Connection>,
    stack: impl Stack,
    common: Common,
    draining: &mut Draining,
) -> io::Result<()> {
    let limits = common.limits;
    let asking = tokio::time::timeout(limits.head_wait_max, begins_with_http2(&stream));
    let speaks_http2 = tokio::select! {
        biased;
        asked = asking => asked??,
        _ = draining.changed() => return Ok(()),
    };
    if speaks_http2 {
        let stream = with_write_timeout(stream, limits);
        return Box::pin(http2::serve(stream, connection, stack, common, draining)).await;
    }
    #[cfg(target_os = "linux")]
    {
        connection.set_sends_files();
        let outgoing = Outgoing::default();
        let stream = SendFileStream::new(stream, outgoing.clone());
        let stream = with_write_timeout(stream, limits);
        serve_http1(stream, connection, stack, common, Some(outgoing), draining).await
    }
    #[cfg(not(target_os = "linux"))]
    {
        let stream = with_write_timeout(stream, limits);
        serve_http1(stream, connection, stack, common, None, draining).await
    }
}

async fn serve_tls(
    stream: TcpStream,
    connection: &Arc<Connection>,
    stack: impl Stack,
    certificate: &CurrentCertificate,
    common: Common,
    draining: &mut Draining,
) -> io::Result<()> {
    let limits = common.limits;
    let stream = with_write_timeout(stream, limits);
    let handshake = TlsAcceptor::from(certificate.server()).accept(stream);
    let stream = tokio::select! {
        biased;
        shaken = tokio::time::timeout(limits.handshake_max, handshake) => shaken??,
        _ = draining.changed() => return Ok(()),
    };
    if speaks_http2(&stream) {
        return Box::pin(http2::serve(stream, connection, stack, common, draining)).await;
    }
    serve_http1(stream, connection, stack, common, None, draining).await
}

fn speaks_http2<S>(stream: &TlsStream<S>) -> bool {
    let (_, session) = stream.get_ref();
    session.alpn_protocol() == Some(ALPN_HTTP2)
}

fn with_write_timeout<S: AsyncRead + AsyncWrite>(
    stream: S,
    limits: Limits,
) -> Pin<Box<TimeoutStream<S>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_stall_max));
    Box::pin(stream)
}

/// Whether the first bytes are those of HTTP/2. They are looked at and left where they are, so that HTTP/1, the common
/// case, costs one call more for a connection and nothing for a request.
pub(crate) async fn begins_with_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut beginning = [0; HTTP2_PREFACE.len()];
    loop {
        let length = stream.peek(&mut beginning).await?;
        let seen = beginning.get(..length).unwrap_or_default();
        if seen.is_empty() || !HTTP2_PREFACE.starts_with(seen) {
            return Ok(false);
        }
        if seen == HTTP2_PREFACE {
            return Ok(true);
        }
        // Only a part of it is there, and would be there at the next look, too. This makes tokio wait for news of the
        // socket instead. None is lost: the event loop runs on this thread, and so not since the look.
        let _always_would_block: io::Result<()> =
            stream.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
        if stream.ready(Interest::READABLE).await?.is_read_closed() {
            return Ok(false);
        }
    }
}

async fn serve_http1<S>(
    stream: S,
    connection: &Arc<Connection>,
    stack: impl Stack,
    common: Common,
    outgoing: Option<Outgoing>,
    draining: &mut Draining,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(common.limits.head_wait_max)
        // Chunks of a body are never copied; `send_file` relies on it.
        .writev(true)
        .max_buf_size(HEAD_BYTES_MAX);
    let stream = HeadAccount {
        stream,
        connection: Arc::clone(connection),
        account: common.account,
        read: 0,
        requests: 0,
        large: None,
    };
    let service = PerConnection {
        stack,
        connection: Arc::clone(connection),
        trusted_proxies: common.trusted_proxies,
        outgoing,
    };
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        ended = &mut connection => return ended.map_err(io::Error::other),
        _ = draining.changed() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}

/// Most requests have no body, and need no block of memory for it.
pub(crate) fn body_of(incoming: Incoming) -> Body {
    if incoming.is_end_stream() {
        Body::empty()
    } else {
        Body::new(incoming)
    }
}

/// The stack as hyper calls it. Every layer of it is always ready, as axum's `Router` is, so `poll_ready` is left out.
struct PerConnection<S> {
    stack: S,
    connection: Arc<Connection>,
    trusted_proxies: TrustedProxies,
    /// Where the system sends files, if it can on this connection.
    outgoing: Option<Outgoing>,
}

impl<S: Stack> hyper::service::Service<hyper::Request<Incoming>> for PerConnection<S> {
    type Response = hyper::Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answering<S::Future>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        let client = self
            .trusted_proxies
            .client(self.connection.address(), request.headers());
        let exchange = Exchange::begin(&self.connection, client);
        let asked = Asked {
            request: request.map(body_of),
            exchange: exchange.clone(),
            admission: Admission::Granted,
        };
        Answering {
            answered: self.stack.clone().call(asked),
            exchange,
            outgoing: self.outgoing.clone(),
        }
    }
}

pin_project! {
    /// An answer that is being made.
    struct Answering<F> {
        #[pin]
        answered: F,
        exchange: Exchange,
        outgoing: Option<Outgoing>,
    }
}

impl<F: Future<Output = Result<Answered, Infallible>>> Future for Answering<F> {
    type Output = Result<hyper::Response<AnswerBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answered = ready!(this.answered.poll(context))?;
        let exchange = this.exchange;
        let response = exchange.answer(answered);
        #[cfg(target_os = "linux")]
        if let Some(outgoing) = this.outgoing {
            let mut response = response;
            let file = outgoing.file_of(&mut response);
            return Poll::Ready(Ok(response.map(|body| match file {
                Some(file) => AnswerBody::of_file(file, exchange.clone()),
                None => AnswerBody::new(body, usize::MAX, exchange.clone()),
            })));
        }
        Poll::Ready(Ok(
            response.map(|body| AnswerBody::new(body, usize::MAX, exchange.clone()))
        ))
    }
}

/// A connection whose large heads and bodies of requests are accounted for: thousands of them, half sent, would otherwise
/// fill the memory.
#[derive(Debug)]
struct HeadAccount<S> {
    stream: S,
    connection: Arc<Connection>,
    account: Shares,
    /// Bytes that were read since the last request began, or since the end of the one before.
    read: usize,
    /// How many requests had begun then.
    requests: u64,
    /// The connection itself, with its share: hyper keeps a buffer that has grown for as long as the connection lasts.
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
            // While others need the memory, a connection is closed whose client neither sends nor takes anything.
            whole.set_reading(true);
            let share = self.account.try_take(&whole, HEAD_BYTES_MAX as u64);
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
        // The system takes one slice faster than a list of them.
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
