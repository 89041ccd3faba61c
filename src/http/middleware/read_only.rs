//! Refuses every write to the API before routing, whatever it is aimed at.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::{Method, header};
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};

use crate::http::error::ApiError;

/// How much of a refused upload is read and thrown away. Closing a connection with unread data makes the client's side
/// drop the answer, so whatever a real client sends should fit: crates.io accepts 10 MiB.
const DISCARDED_BYTES_MAX: usize = 128 * 1024 * 1024;

/// How long that may take.
const DISCARDING_TIME_MAX: Duration = Duration::from_secs(10);

/// The answer to a write.
pub(super) fn refuse(request: &mut Request) -> Option<Response> {
    if !is_write(request) {
        return None;
    }
    // A client that waits for `100 Continue` is told before it sends anything.
    let expects_continue = request.headers().contains_key(header::EXPECT);
    let upload = std::mem::take(request.body_mut());
    if !upload.is_end_stream() && !expects_continue {
        // The answer is whole and goes out at once, while the client may still send. The task ends with the upload, the
        // connection or the time, whichever comes first.
        tokio::spawn(tokio::time::timeout(DISCARDING_TIME_MAX, discard(upload)));
    }
    Some(ApiError::ReadOnly.into_response())
}

fn is_write(request: &Request) -> bool {
    let method = request.method();
    // The common case first: it is decided by the method alone.
    method != Method::GET
        && [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
        && request.uri().path().starts_with("/api/v1/")
}

/// Reads an upload and throws it away.
async fn discard(upload: Body) {
    let mut upload = Limited::new(upload, DISCARDED_BYTES_MAX);
    while let Some(Ok(_frame)) = upload.frame().await {}
}
