//! Answers the plain forms of the hot requests, redirects to crate files and index files that are in memory, without
//! going through the router.
//!
//! Routing, boxing and extracting cost as much as everything else that the mirror does for them
//! (`benches/compare/redirect.sh`). Whatever is not plain (percent-encoding, JSON, HEAD, a bad name, a file that must be
//! read) takes the ordinary way, and tests hold the two ways against each other.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::http::state::AppState;
use crate::http::{download, sparse};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct ShortcutLayer {
    pub(super) state: AppState,
}

impl<S> Layer<S> for ShortcutLayer {
    type Service = Shortcut<S>;

    fn layer(&self, inner: S) -> Shortcut<S> {
        Shortcut {
            inner,
            state: self.state.clone(),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Shortcut<S> {
    inner: S,
    state: AppState,
}

impl<S: Service<Request, Response = Response, Error = Infallible>> Service<Request>
    for Shortcut<S>
{
    type Response = Response;
    type Error = Infallible;
    type Future = ShortcutFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let answer = download::plain_redirect(&self.state, &request)
            .or_else(|| sparse::file_from_memory(&self.state, &request));
        match answer {
            Some(response) => ShortcutFuture::Answered {
                response: Some(response),
            },
            None => ShortcutFuture::Passed {
                inner: self.inner.call(request),
            },
        }
    }
}

pin_project! {
    /// See the module.
    #[project = Projection]
    pub(super) enum ShortcutFuture<F> {
        Passed { #[pin] inner: F },
        Answered { response: Option<Response> },
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for ShortcutFuture<F> {
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            Projection::Passed { inner } => inner.poll(context),
            Projection::Answered { response } => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending,
            },
        }
    }
}
