//! Clients that read an answer slowly or not at all, over a real socket with the system's own buffers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_util::sync::CancellationToken;

use super::first_bytes::connector;
use super::settings;
use crate::server::tls::tests::certificate;
use crate::server::{Answered, Application, Asked, Limits, Sent, ServerSettings, serve};

/// Much more than the system keeps for both ends of a connection.
const ANSWER_BYTES: usize = 12 * 1024 * 1024;

/// How long a client may read nothing: a hundredth of the value outside of tests.
const STALL_MAX: Duration = Duration::from_millis(300);

/// How often the slow client reads.
const TICK: Duration = Duration::from_millis(10);

/// How much it reads each time: a hundred times the rate of a client that reads 20 kB/s.
const TICK_BYTES: usize = 20 * 1024;

struct Scene {
    address: SocketAddr,
    trusted: Option<CertificateDer<'static>>,
    sent: mpsc::UnboundedReceiver<Sent>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

async fn scene(tls: bool) -> Scene {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits {
        write_stall_max: STALL_MAX,
        ..Limits::default()
    };
    let (certificate, trusted) = certificate();
    let settings = ServerSettings {
        certificate: tls.then_some(certificate),
        ..settings(limits)
    };
    let (tell, sent) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let serving = serve(listener, telling(tell), stop.clone(), settings);
    Scene {
        address,
        trusted: tls.then_some(trusted),
        sent,
        stop,
        serving: tokio::spawn(async move {
            serving.await.unwrap();
        }),
    }
}

/// An application that reports the end of each answer.
fn telling(tell: mpsc::UnboundedSender<Sent>) -> impl Application {
    let body = Bytes::from(vec![7; ANSWER_BYTES]);
    move |_asked: Asked| {
        let tell = tell.clone();
        let answered = Answered {
            response: Response::new(Body::from(body.clone())),
            end: Some(Box::new(move |sent| tell.send(sent).unwrap())),
        };
        async move { answered }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Scene {
    /// A client that has sent its request.
    async fn ask(&self) -> Box<dyn Stream> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let mut stream: Box<dyn Stream> = match &self.trusted {
            None => Box::new(stream),
            Some(trusted) => {
                let name = ServerName::try_from("localhost").unwrap();
                let connector = connector(trusted.clone());
                Box::new(connector.connect(name, stream).await.unwrap())
            }
        };
        let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        stream.flush().await.unwrap();
        stream
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.unwrap();
    }
}

#[tokio::test]
async fn a_steady_client_gets_everything_however_long_it_takes() {
    let read = async |tls: bool| {
        let mut scene = scene(tls).await;
        let mut client = scene.ask().await;
        // The test is about the pace, so the client reads exactly this much at each tick.
        let mut ticks = tokio::time::interval(TICK);
        let mut buffer = vec![0; TICK_BYTES];
        let mut read = 0;
        loop {
            ticks.tick().await;
            match client.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(bytes) => read += bytes,
            }
        }
        assert!(read > ANSWER_BYTES, "TLS {tls}: {read} bytes and no more");
        let sent = scene.sent.recv().await.unwrap();
        let bytes = ANSWER_BYTES as u64;
        assert_eq!(
            sent,
            Sent {
                bytes,
                is_cut: false
            }
        );
        scene.end().await;
    };
    tokio::join!(read(false), read(true));
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut_and_the_log_says_so() {
    for tls in [false, true] {
        let mut scene = scene(tls).await;
        let client = scene.ask().await;
        let sent = scene.sent.recv().await.unwrap();
        assert!(sent.is_cut, "{sent:?}");
        let some = 1..ANSWER_BYTES as u64;
        assert!(some.contains(&sent.bytes), "{sent:?}");
        drop(client);
        scene.end().await;
    }
}

#[tokio::test]
async fn http2_reports_complete_answers_as_complete() {
    let mut scene = scene(false).await;
    let client = Arc::new(hyper::client::conn::http2::Builder::new(
        hyper_util::rt::TokioExecutor::new(),
    ));
    let stream = TcpStream::connect(scene.address).await.unwrap();
    let (mut sender, connection) = client
        .handshake(hyper_util::rt::TokioIo::new(stream))
        .await
        .unwrap();
    let connection = tokio::spawn(connection);
    for leaves in [false, true] {
        let request = hyper::Request::get("http://h/")
            .body(http_body_util::Empty::<Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let mut read = 0;
        if !leaves {
            let body = http_body_util::BodyExt::collect(answer.into_body()).await;
            read = body.unwrap().to_bytes().len() as u64;
            assert_eq!(read, ANSWER_BYTES as u64);
        }
        let sent = scene.sent.recv().await.unwrap();
        assert_eq!(sent.is_cut, leaves);
        assert!(sent.bytes >= read && (sent.bytes < ANSWER_BYTES as u64) == leaves);
    }
    drop(sender);
    let _ended = connection.await.unwrap();
    scene.end().await;
}
