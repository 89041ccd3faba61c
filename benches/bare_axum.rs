//! The least that an axum server can do: the same redirect for every request. `benches/compare/redirect.sh` measures the
//! mirror beside it.
//!
//! Takes the port as its argument. Without one, as `cargo bench` starts it, it does nothing.

use std::error::Error;
use std::net::Ipv4Addr;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

const LOCATION: &str =
    "https://crates-io.s3.us-west-1.amazonaws.com/crates/serde/serde-1.0.0.crate";

fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().find_map(|argument| argument.parse::<u16>().ok());
    let Some(port) = port else {
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(port))
}

/// What `axum::serve` does; the mirror builds axum without it.
async fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    let router = Router::new().route(
        "/api/v1/crates/{name}/{version}/download",
        get(|| async { (StatusCode::FOUND, [(header::LOCATION, LOCATION)]) }),
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (connection, _peer) = listener.accept().await?;
        let service = TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let server = auto::Builder::new(TokioExecutor::new());
            let _peer_left = server
                .serve_connection_with_upgrades(TokioIo::new(connection), service)
                .await;
        });
    }
}
