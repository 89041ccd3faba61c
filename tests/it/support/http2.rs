//! A client for HTTP/2 and HTTP/1.1, with and without TLS, with many requests at a time.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Authority;

/// An HTTP/2 connection. It is cheap to clone, for requests at the same time.
#[derive(Clone)]
pub(crate) struct Http2 {
    sender: http2::SendRequest<Body>,
    /// Done when the connection has ended.
    pub(crate) ended: Arc<JoinHandle<hyper::Result<()>>>,
    authority: String,
}

/// A complete answer.
pub(crate) struct Http2Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Http2 {
    /// Connects without TLS, with prior knowledge.
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        Self::with(address, http2::Builder::new(TokioExecutor::new())).await
    }

    /// Connects without TLS, with prior knowledge and a window of this many bytes for each answer.
    pub(crate) async fn with_window(address: SocketAddr, bytes: u32) -> Self {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(bytes);
        Self::with(address, builder).await
    }

    async fn with(address: SocketAddr, builder: http2::Builder<TokioExecutor>) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::on(stream, address, builder).await
    }

    /// Connects over TLS, which must choose HTTP/2.
    pub(crate) async fn over_tls(address: SocketAddr, authority: &Authority) -> Self {
        let stream = tls(address, authority, &[b"h2", b"http/1.1"])
            .await
            .unwrap();
        assert_eq!(chosen(&stream), Some(&b"h2"[..]));
        Self::on(stream, address, http2::Builder::new(TokioExecutor::new())).await
    }

    async fn on(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        address: SocketAddr,
        builder: http2::Builder<TokioExecutor>,
    ) -> Self {
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
        Self {
            sender,
            ended: Arc::new(tokio::spawn(connection)),
            authority: address.to_string(),
        }
    }

    /// Sends a request, and returns the answer when it begins.
    pub(crate) async fn begin(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> hyper::Result<hyper::Response<Incoming>> {
        let uri = format!("http://{}{path}", self.authority);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut sender = self.sender.clone();
        sender.ready().await?;
        sender.send_request(request.body(body).unwrap()).await
    }

    /// Sends a request without a body and reads the answer.
    pub(crate) async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Http2Answer {
        let answer = self
            .begin(method, path, headers, Body::empty())
            .await
            .unwrap();
        Http2Answer::read(answer).await.unwrap()
    }

    /// `GET`s a path.
    pub(crate) async fn get(&self, path: &str) -> Http2Answer {
        self.request("GET", path, &[]).await
    }
}

impl Http2Answer {
    /// Reads an answer to its end.
    pub(crate) async fn read(answer: hyper::Response<Incoming>) -> hyper::Result<Self> {
        let (head, body) = answer.into_parts();
        Ok(Self {
            status: head.status,
            headers: head.headers,
            body: body.collect().await?.to_bytes(),
        })
    }
}

/// A connection over TLS that offers these protocols.
pub(crate) async fn tls(
    address: SocketAddr,
    authority: &Authority,
    protocols: &[&[u8]],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate()).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// The protocol that TLS has chosen.
pub(crate) fn chosen(stream: &TlsStream<TcpStream>) -> Option<&[u8]> {
    stream.get_ref().1.alpn_protocol()
}

/// The certificate of the mirror.
pub(crate) fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    let chain = stream.get_ref().1.peer_certificates().unwrap();
    chain[0].clone().into_owned()
}

/// Sends a `GET` over HTTP/1.1, on a connection that is closed afterwards.
pub(crate) async fn get_by_http1(stream: TlsStream<TcpStream>, path: &str) -> Http2Answer {
    let shaken: (http1::SendRequest<Body>, _) =
        http1::handshake(TokioIo::new(stream)).await.unwrap();
    let (mut sender, connection) = shaken;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header("host", "localhost");
    let answer = sender.send_request(request.body(Body::empty()).unwrap());
    let answer = Http2Answer::read(answer.await.unwrap()).await.unwrap();
    drop(sender);
    connection.await.unwrap().unwrap();
    answer
}
