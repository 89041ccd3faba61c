//! One connection from its first byte to its last: with or without TLS, HTTP/1 or HTTP/2.

use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::TcpStream;
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;

use super::application::Application;
#[cfg(target_os = "linux")]
use super::send_file::{Outgoing, SendFileStream};
use super::settings::{Limits, Serving};
use super::tls::{ALPN_HTTP2, CurrentCertificate};
use super::{http1, http2};

/// What a client sends first if it knows that the server speaks HTTP/2 (RFC 9113, section 3.4). No request of HTTP/1 can
/// begin in this way.
pub(super) const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves one connection to its end.
pub(super) async fn serve(stream: TcpStream, mut serving: Serving<impl Application>) {
    let certificate = serving.settings.certificate.as_ref();
    let served = match certificate.map(CurrentCertificate::server) {
        None => serve_plain(stream, &mut serving).await,
        // In a box, because TLS needs far more memory than a plain connection.
        Some(server) => Box::pin(serve_tls(stream, server.into(), &mut serving)).await,
    };
    // Clients that violate the protocol or disconnect do not matter here.
    if let Err(error) = served {
        tracing::debug!(error = %error, "a connection ended early");
    }
}

async fn serve_plain(stream: TcpStream, serving: &mut Serving<impl Application>) -> io::Result<()> {
    let limits = serving.settings.limits;
    let asking = tokio::time::timeout(limits.head_wait_max, begins_with_http2(&stream));
    let speaks_http2 = tokio::select! {
        biased;
        asked = asking => asked??,
        _ = serving.draining.changed() => return Ok(()),
    };
    if speaks_http2 {
        let stream = with_write_timeout(stream, limits);
        return Box::pin(http2::serve(stream, serving)).await;
    }
    #[cfg(target_os = "linux")]
    let (stream, outgoing) = {
        serving.connection.set_sends_files();
        let outgoing = Outgoing::default();
        (
            SendFileStream::new(stream, outgoing.clone()),
            Some(outgoing),
        )
    };
    #[cfg(not(target_os = "linux"))]
    let outgoing = None;
    http1::serve(with_write_timeout(stream, limits), serving, outgoing).await
}

async fn serve_tls(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    serving: &mut Serving<impl Application>,
) -> io::Result<()> {
    let limits = serving.settings.limits;
    let handshake = acceptor.accept(with_write_timeout(stream, limits));
    let stream = tokio::select! {
        biased;
        shaken = tokio::time::timeout(limits.handshake_max, handshake) => shaken??,
        _ = serving.draining.changed() => return Ok(()),
    };
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() == Some(ALPN_HTTP2) {
        return Box::pin(http2::serve(stream, serving)).await;
    }
    http1::serve(stream, serving, None).await
}

fn with_write_timeout<S: AsyncRead + AsyncWrite>(
    stream: S,
    limits: Limits,
) -> Pin<Box<TimeoutStream<S>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(limits.write_stall_max));
    Box::pin(stream)
}

/// Whether the first bytes are those of HTTP/2. Reads them without removing them. So HTTP/1, the common case, costs one
/// more call for a connection and nothing for a request.
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
        // There is only a part of the preface, and the next check would find it again at once. This call makes tokio
        // wait for news of the socket instead. No news is lost: the event loop runs on this thread, so it has not run
        // since the check.
        let _always_would_block: io::Result<()> =
            stream.try_io(Interest::READABLE, || Err(io::ErrorKind::WouldBlock.into()));
        if stream.ready(Interest::READABLE).await?.is_read_closed() {
            return Ok(false);
        }
    }
}
