//! The least that an axum server can do: the same redirect for every request. `benches/compare/redirect.sh` measures the
//! mirror beside it.
//!
//! Takes the port as its argument. Without one, as `cargo bench` starts it, it does nothing.

use std::error::Error;
use std::net::Ipv4Addr;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
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

async fn serve(port: u16) -> Result<(), Box<dyn Error>> {
    let router = Router::new().route(
        "/api/v1/crates/{name}/{version}/download",
        get(|| async { (StatusCode::FOUND, [(header::LOCATION, LOCATION)]) }),
    );
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    axum::serve(listener, router).await?;
    Ok(())
}
