//! The first bytes of a connection, connections without any, and clients that do not read.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::{application, serving, settings};
use crate::server::connection::{self, HTTP2_PREFACE, begins_with_http2};
use crate::server::tls::tests::certificate;
use crate::server::{Limits, ServerSettings};

/// Both ends of a connection.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    let client = client.unwrap();
    client.set_nodelay(true).unwrap();
    (client, accepted.unwrap().0)
}

#[tokio::test]
async fn http2_is_recognised_by_its_preface_in_any_pieces() {
    for cut in 1..=HTTP2_PREFACE.len() {
        let (mut client, mut server) = connected().await;
        let (beginning, rest) = HTTP2_PREFACE.split_at(cut);
        client.write_all(beginning).await.unwrap();
        let (seen, ()) = tokio::join!(begins_with_http2(&server), async {
            // The other side has looked at the bytes when this continues.
            tokio::task::yield_now().await;
            client.write_all(rest).await.unwrap();
        });
        assert!(seen.unwrap(), "{cut}");
        let mut read = vec![0; HTTP2_PREFACE.len()];
        server.read_exact(&mut read).await.unwrap();
        assert_eq!(read, HTTP2_PREFACE, "nothing was taken");
    }
}

#[tokio::test]
async fn every_other_beginning_goes_to_http1() {
    for bytes in [
        &b""[..],
        b"P",
        b"PR",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r",
        b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n",
        b"G",
        b"GET / HTTP/1.1\r\n\r\n",
        b"PROPFIND / HTTP/1.1\r\n\r\n",
        b"\0",
    ] {
        let (mut client, server) = connected().await;
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        assert!(!begins_with_http2(&server).await.unwrap(), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_part_of_the_preface_waits_without_a_busy_loop() {
    let (mut client, server) = connected().await;
    client.write_all(b"PR").await.unwrap();
    let mut looks = 0;
    let mut detection = pin!(begins_with_http2(&server));
    let counted = poll_fn(|context| {
        looks += 1;
        detection.as_mut().poll(context)
    });
    let waited = tokio::time::timeout(Duration::from_millis(200), counted).await;
    assert!(waited.is_err());
    assert!(looks < 10, "{looks}");
}

#[tokio::test]
async fn a_connection_without_a_complete_beginning_is_closed() {
    let limits = Limits {
        head_wait_max: Duration::from_millis(100),
        handshake_max: Duration::from_millis(100),
        ..Limits::default()
    };
    for (said, tls) in [
        ("", false),
        ("PRI * ", false),
        ("GET / HT", false),
        ("", true),
        // The first bytes of a handshake.
        ("\x16\x03\x01", true),
    ] {
        let (mut client, server) = connected().await;
        let (_draining, told) = watch::channel(());
        let application = application(|_| Body::empty());
        let certificate = tls.then(|| certificate().0);
        let serving = tokio::spawn(async move {
            let settings = ServerSettings {
                certificate,
                ..settings(limits)
            };
            let serving = serving(application, settings, told);
            Box::pin(connection::serve(server, serving)).await;
        });
        client.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The connection can end with an answer or without one.
        let _either_way = client.read_to_end(&mut answer).await;
        serving.await.unwrap();
    }
}

/// More than the system keeps for both ends of a connection.
const ANSWER_BYTES: usize = 64 * 1024 * 1024;

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_with_and_without_tls() {
    let limits = Limits {
        write_stall_max: Duration::from_millis(100),
        ..Limits::default()
    };
    let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    for tls in [false, true] {
        let (mut client, server) = connected().await;
        let (_draining, told) = watch::channel(());
        let application = application(|_| Body::from(vec![0; ANSWER_BYTES]));
        let (certificate, trusted) = certificate();
        let certificate = tls.then_some(certificate);
        let serving = tokio::spawn(async move {
            let settings = ServerSettings {
                certificate,
                ..settings(limits)
            };
            let serving = serving(application, settings, told);
            Box::pin(connection::serve(server, serving)).await;
        });
        if tls {
            let mut client = connector(trusted)
                .connect(ServerName::try_from("localhost").unwrap(), client)
                .await
                .unwrap();
            client.write_all(request).await.unwrap();
            client.flush().await.unwrap();
            serving.await.unwrap();
        } else {
            client.write_all(request).await.unwrap();
            serving.await.unwrap();
        }
    }
}

/// A client that trusts this certificate and speaks HTTP/1.1.
pub(crate) fn connector(trusted: CertificateDer<'static>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}
