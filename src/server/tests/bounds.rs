//! The limits of HTTP/2, with a clock that jumps ahead.

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{Builder, Connection, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{application, serving, settings};
use crate::server::{Application, Limits, http2};

const MEGABYTE: usize = 1024 * 1024;

type Client = SendRequest<Empty<Bytes>>;
type ClientConnection = Connection<TokioIo<DuplexStream>, Empty<Bytes>, TokioExecutor>;

/// A served connection, as the test sees it.
struct Scene {
    client: Client,
    /// The client's side of it, until it ends.
    connection: JoinHandle<hyper::Result<()>>,
    server: JoinHandle<std::io::Result<()>>,
    draining: watch::Sender<()>,
}

/// A connection whose client grants a window of this size at first.
async fn scene(application: impl Application, window: u32) -> Scene {
    let (stream, draining, server) = serve(application);
    let shaken: (Client, ClientConnection) = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(window)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    Scene {
        client: shaken.0,
        connection: tokio::spawn(shaken.1),
        server,
        draining,
    }
}

fn serve(
    application: impl Application,
) -> (
    DuplexStream,
    watch::Sender<()>,
    JoinHandle<std::io::Result<()>>,
) {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let (draining, told) = watch::channel(());
    let server = tokio::spawn(async move {
        // In a box, for it is large.
        let mut serving = serving(application, settings(Limits::default()), told);
        Box::pin(http2::serve(theirs, &mut serving)).await
    });
    (ours, draining, server)
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://h{path}"))
        .body(Empty::new())
        .unwrap()
}

/// A body of a megabyte, and a way to see whether it was freed.
fn watched_megabyte() -> (
    impl Fn(&str) -> Body + Clone + Send + Sync + 'static,
    Weak<()>,
) {
    struct Held(Vec<u8>, #[expect(dead_code, reason = "counts")] Arc<()>);
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let held = Arc::new(());
    let seen = Arc::downgrade(&held);
    let body = Bytes::from_owner(Held(vec![0; MEGABYTE], held));
    let body = std::sync::Mutex::new(Some(body));
    let body = Arc::new(body);
    let answer = move |_path: &str| Body::from(body.lock().unwrap().take().unwrap());
    (answer, seen)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_grants_no_window_is_cut_and_its_answer_is_freed() {
    for window in [0, 1, 65_535] {
        let (answer, held) = watched_megabyte();
        let mut scene = scene(application(answer), window).await;
        let answer = scene.client.send_request(get("/")).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let began = Instant::now();
        assert!(held.strong_count() > 0);
        let ended = scene.server.await.unwrap();
        assert!(
            ended
                .unwrap_err()
                .to_string()
                .contains("does not take its answers")
        );
        let waited = began.elapsed().as_secs();
        assert!((29..=61).contains(&waited), "{window}: {waited} s");
        drop(scene.connection.await.unwrap());
        tokio::task::yield_now().await;
        assert_eq!(held.strong_count(), 0, "{window}");
        drop(answer);
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_answer_that_the_client_does_not_read_counts_too() {
    // All of it was handed over, so nothing is left to be polled.
    let answer = application(|_| Body::from(vec![0; 1_000]));
    let mut scene = scene(answer, 10).await;
    let answer = scene.client.send_request(get("/")).await.unwrap();
    let ended = scene.server.await.unwrap();
    assert!(ended.is_err());
    drop(answer);
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_of_the_mirror_is_not_cut() {
    let (send, frames) = mpsc::channel::<Bytes>(1);
    let frames = Arc::new(std::sync::Mutex::new(Some(frames)));
    let application = application(move |_| {
        let frames = frames.lock().unwrap().take().unwrap();
        Body::new(Slow(frames))
    });
    let mut scene = scene(application, 65_535).await;
    let answer = scene.client.send_request(get("/")).await.unwrap();
    let producer = tokio::spawn(async move {
        for _ in 0..5 {
            sleep(Duration::from_secs(300)).await;
            send.send(Bytes::from_static(b"piece")).await.unwrap();
        }
    });
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.len(), 25);
    producer.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_that_makes_progress_is_not_cut() {
    let mut scene = scene(application(|_| Body::from(vec![7; MEGABYTE])), 16 * 1024).await;
    let answer = scene.client.send_request(get("/")).await.unwrap();
    let mut body = answer.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.unwrap().into_data().unwrap().len();
        sleep(Duration::from_secs(15)).await;
    }
    assert_eq!(read, MEGABYTE);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_ends_after_a_goodbye_frame() {
    let mut scene = scene(application(|_| Body::empty()), 65_535).await;
    let answer = scene.client.send_request(get("/")).await.unwrap();
    drop(answer);
    let began = Instant::now();
    scene.connection.await.unwrap().unwrap();
    // The client may be gone before the last frame.
    drop(scene.server.await.unwrap());
    let waited = began.elapsed().as_secs();
    assert!((119..=122).contains(&waited), "{waited} s");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_answers_no_ping_is_cut() {
    let (mut stream, _draining, server) = serve(application(|_| Body::empty()));
    // The preface and empty settings. The client answers no ping.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .await
        .unwrap();
    let began = Instant::now();
    let mut sent = Vec::new();
    stream.read_to_end(&mut sent).await.unwrap();
    drop(server.await.unwrap());
    assert!(began.elapsed() < Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_cut() {
    let (mut stream, _draining, server) = serve(application(|_| Body::empty()));
    let began = Instant::now();
    let mut sent = Vec::new();
    stream.read_to_end(&mut sent).await.unwrap();
    assert!(server.await.unwrap().is_err());
    assert!(began.elapsed() < Duration::from_secs(160));
}

#[tokio::test(start_paused = true)]
async fn a_request_in_progress_finishes_when_the_mirror_stops() {
    let (send, frames) = mpsc::channel::<Bytes>(1);
    let frames = Arc::new(std::sync::Mutex::new(Some(frames)));
    let application = application(move |_| Body::new(Slow(frames.lock().unwrap().take().unwrap())));
    let mut scene = scene(application, 65_535).await;
    let answer = scene.client.send_request(get("/")).await.unwrap();
    scene.draining.send_replace(());
    sleep(Duration::from_secs(20)).await;
    assert!(
        scene.client.send_request(get("/")).await.is_err(),
        "no new request is taken"
    );
    send.send(Bytes::from_static(b"the end")).await.unwrap();
    drop(send);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body.as_ref(), b"the end");
    drop(scene.server.await.unwrap());
    scene.draining.closed().await;
}

/// A body whose pieces the test sends.
struct Slow(mpsc::Receiver<Bytes>);

impl axum::body::HttpBody for Slow {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        let polled = self.0.poll_recv(context);
        polled.map(|bytes| bytes.map(|bytes| Ok(hyper::body::Frame::data(bytes))))
    }
}
