//! One connection from its first byte to its last: TLS or not, which HTTP, and how long a client may take for each step.
//!
//! What does not live here: the bounds of HTTP/2 (`http2`).

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::HttpService;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

#[cfg(target_os = "linux")]
use super::send_file::{FileBody, Outgoing, SendFileStream, WithFiles};
use super::tls::{ALPN_HTTP2, CurrentCertificate};
use super::{Stack, http2};

/// The largest head of a request.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// What a client sends first if it knows that the server speaks HTTP/2 (RFC 9113, section 3.4). No request of HTTP/1 can
/// begin in this way.
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
pub(super) type Draining = watch::Receiver<()>;

/// Serves one connection to its end.
pub(super) async fn serve(
    stream: TcpStream,
    stack: impl Stack,
    certificate: Option<CurrentCertificate>,
    limits: Limits,
    mut draining: Draining,
) {
    let served = match certificate {
        None => serve_plain(stream, stack, limits, &mut draining).await,
        // TLS needs far more room than most connections have use for.
        Some(certificate) => {
            Box::pin(serve_tls(
                stream,
                stack,
                &certificate,
                limits,
                &mut draining,
            ))
            .await
        }
    };
    // A client that breaks the protocol or goes away is its own affair.
    if let Err(error) = served {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

async fn serve_plain(
    stream: TcpStream,
    stack: impl Stack,
    limits: Limits,
    draining: &mut Draining,
) -> io::Result<()> {
    let asking = tokio::time::timeout(limits.head_wait_max, begins_with_http2(&stream));
    let speaks_http2 = tokio::select! {
        biased;
        asked = asking => asked??,
        _ = draining.changed() => return Ok(()),
    };
    if speaks_http2 {
        let stream = with_write_timeout(stream, limits);
        Box::pin(http2::serve(stream, stack, limits, draining)).await
    } else {
        serve_plain_http1(stream, stack, limits, draining).await
    }
}

/// The system sends crate files itself.
#[cfg(target_os = "linux")]
async fn serve_plain_http1(
    stream: TcpStream,
    stack: impl Stack,
    limits: Limits,
    draining: &mut Draining,
) -> io::Result<()> {
    let outgoing = Outgoing::default();
    let stream = SendFileStream::new(stream, outgoing.clone());
    let stream = with_write_timeout(stream, limits);
    let service = SendingFiles { stack, outgoing };
    serve_http1(stream, service, limits, draining).await
}

#[cfg(not(target_os = "linux"))]
async fn serve_plain_http1(
    stream: TcpStream,
    stack: impl Stack,
    limits: Limits,
    draining: &mut Draining,
) -> io::Result<()> {
    let stream = with_write_timeout(stream, limits);
    serve_http1(stream, PerConnection(stack), limits, draining).await
}

async fn serve_tls(
    stream: TcpStream,
    stack: impl Stack,
    certificate: &CurrentCertificate,
    limits: Limits,
    draining: &mut Draining,
) -> io::Result<()> {
    let stream = with_write_timeout(stream, limits);
    let handshake = TlsAcceptor::from(certificate.server()).accept(stream);
    let stream = tokio::select! {
        biased;
        shaken = tokio::time::timeout(limits.handshake_max, handshake) => shaken??,
        _ = draining.changed() => return Ok(()),
    };
    if speaks_http2(&stream) {
        Box::pin(http2::serve(stream, stack, limits, draining)).await
    } else {
        serve_http1(stream, PerConnection(stack), limits, draining).await
    }
}

fn speaks_http2<S>(stream: &TlsStream<S>) -> bool {
    let (_, session) = stream.get_ref();
    session.alpn_protocol() == Some(ALPN_HTTP2)
}

fn with_write_timeout<S: AsyncRead + AsyncWrite>(
    stream: S,
    limits: Limits,
) -> std::pin::Pin<Box<TimeoutStream<S>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_stall_max));
    Box::pin(stream)
}

/// Whether the first bytes are those of HTTP/2. They are looked at and left where they are, so that HTTP/1, the common
/// case, costs one call more for a connection and nothing for a request.
pub(super) async fn begins_with_http2(stream: &TcpStream) -> io::Result<bool> {
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

async fn serve_http1<S, V, B>(
    stream: S,
    service: V,
    limits: Limits,
    draining: &mut Draining,
) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    V: HttpService<Incoming, ResBody = B, Error = Infallible>,
    B: HttpBody<Error = axum::Error> + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_wait_max)
        // Chunks of a body are never copied; `send_file` relies on it.
        .writev(true)
        .max_buf_size(HEAD_BYTES_MAX);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        biased;
        ended = &mut connection => return ended.map_err(io::Error::other),
        _ = draining.changed() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(io::Error::other)
}

/// Most requests have no body, and need no block of memory for it.
pub(super) fn body_of(incoming: Incoming) -> Body {
    if incoming.is_end_stream() {
        Body::empty()
    } else {
        Body::new(incoming)
    }
}

/// The stack as hyper calls it. Every layer of it is always ready, as axum's `Router` is, so `poll_ready` is left out.
struct PerConnection<S>(S);

impl<S: Stack> hyper::service::Service<hyper::Request<Incoming>> for PerConnection<S> {
    type Response = Response;
    type Error = Infallible;
    type Future = S::Future;

    fn call(&self, request: hyper::Request<Incoming>) -> S::Future {
        self.0.clone().call(request.map(body_of))
    }
}

/// The same, on a connection that has the system send files.
#[cfg(target_os = "linux")]
struct SendingFiles<S> {
    stack: S,
    outgoing: Outgoing,
}

#[cfg(target_os = "linux")]
impl<S: Stack> hyper::service::Service<hyper::Request<Incoming>> for SendingFiles<S> {
    type Response = hyper::Response<FileBody>;
    type Error = Infallible;
    type Future = WithFiles<S::Future>;

    fn call(&self, request: hyper::Request<Incoming>) -> Self::Future {
        WithFiles {
            answer: self.stack.clone().call(request.map(body_of)),
            outgoing: self.outgoing.clone(),
        }
    }
}
