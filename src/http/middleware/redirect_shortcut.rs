//! Answers the plain form of the one hot request, a redirect to a crate file, without going through the router.
//!
//! Routing, boxing and extracting cost as much as everything else that the mirror does for a redirect
//! (`benches/compare/redirect.sh`). Whatever is not plain (percent-encoding, JSON, HEAD, a bad name) takes the ordinary
//! way, and a test holds the two ways against each other.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::response::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::http::download;
use crate::http::state::AppState;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct RedirectShortcutLayer {
    pub(super) state: AppState,
}

impl<S> Layer<S> for RedirectShortcutLayer {
    type Service = RedirectShortcut<S>;

    fn layer(&self, inner: S) -> RedirectShortcut<S> {
        RedirectShortcut {
            inner,
            state: self.state.clone(),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct RedirectShortcut<S> {
    inner: S,
    state: AppState,
}

impl<S: Service<Request, Response = Response, Error = Infallible>> Service<Request>
    for RedirectShortcut<S>
{
    type Response = Response;
    type Error = Infallible;
    type Future = RedirectShortcutFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match download::plain_redirect(&self.state, &request) {
            Some(response) => RedirectShortcutFuture::Answered {
                response: Some(response),
            },
            None => RedirectShortcutFuture::Passed {
                inner: self.inner.call(request),
            },
        }
    }
}

pin_project! {
    /// See the module.
    #[project = Projection]
    pub(super) enum RedirectShortcutFuture<F> {
        Passed { #[pin] inner: F },
        Answered { response: Option<Response> },
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for RedirectShortcutFuture<F> {
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
