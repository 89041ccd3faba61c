//! Connections on their own, with a service made for the test.

mod accepting;
mod bounds;
mod first_bytes;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;

use super::Stack;

/// A stack that answers every request with what `answer` makes of its path.
fn stack(answer: impl Fn(&str) -> Body + Clone + Send + 'static) -> impl Stack {
    tower::service_fn(move |request: Request| {
        let body = answer(request.uri().path());
        async move { Ok(Response::new(body)) }
    })
}
