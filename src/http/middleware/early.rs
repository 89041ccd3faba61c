//! A layer that answers some requests itself and passes the others on.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::response::Response;
use pin_project_lite::pin_project;
use tower::Service;

use crate::http::serve::Asked;

/// What becomes of a request.
pub(super) enum Early {
    /// It is answered here.
    Answered(Response),
    /// It goes on to the next layer.
    Passed(Asked),
}

/// Asks `decide` about every request.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerEarly<S, F> {
    pub(super) inner: S,
    pub(super) decide: F,
}

impl<S, F> Service<Asked> for AnswerEarly<S, F>
where
    S: Service<Asked, Response = Response, Error = Infallible>,
    F: Fn(Asked) -> Early,
{
    type Response = Response;
    type Error = Infallible;
    type Future = EarlyFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, asked: Asked) -> Self::Future {
        match (self.decide)(asked) {
            Early::Answered(response) => EarlyFuture::Answered {
                response: Some(response),
            },
            Early::Passed(asked) => EarlyFuture::Passed {
                inner: self.inner.call(asked),
            },
        }
    }
}

pin_project! {
    /// See [`AnswerEarly`].
    #[project = Projection]
    pub(super) enum EarlyFuture<F> {
        Passed { #[pin] inner: F },
        Answered { response: Option<Response> },
    }
}

impl<F: Future<Output = Result<Response, Infallible>>> Future for EarlyFuture<F> {
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
