//! How many connections there may be.

use axum::body::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{application, settings};
use crate::server::{Limits, ServerSettings, serve};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";

async fn answered(client: &mut TcpStream) {
    let mut beginning = [0; 15];
    client.read_exact(&mut beginning).await.unwrap();
    assert_eq!(&beginning, b"HTTP/1.1 200 OK");
    let mut answer = Vec::new();
    while !answer.ends_with(b"well") {
        assert!(client.read_buf(&mut answer).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn a_connection_beyond_the_limit_closes_the_one_that_was_idle_for_longest() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let settings = ServerSettings {
        connections_max: 2,
        ..settings(Limits::default())
    };
    let application = application(|_| Body::from("all is well"));
    let serving = tokio::spawn(serve(listener, application, stop.clone(), settings));
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut second = TcpStream::connect(address).await.unwrap();
    for _ in 0..5 {
        second.write_all(REQUEST).await.unwrap();
        answered(&mut second).await;
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    third.write_all(REQUEST).await.unwrap();
    answered(&mut third).await;
    // It is closed without an answer. No other connection is closed.
    assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0);
    for client in [&mut second, &mut third] {
        client.write_all(REQUEST).await.unwrap();
        answered(client).await;
    }
    stop.cancel();
    drop((second, third));
    serving.await.unwrap().unwrap();
}
