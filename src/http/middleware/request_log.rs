//! One log event for each request, when its answer begins.
//!
//! Never logged: query strings, `Authorization` and other headers that are not named here.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use axum::response::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use tracing::Level;

use crate::http::error::Cause;

/// The target of these events, so that `RUST_LOG` can turn them off by name.
const TARGET: &str = "crates_io_mirror::request";

/// Set by Heroku's router and by most others.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest part of a path or a header that is logged: events wait in memory to be written.
const LOGGED_BYTES_MAX: usize = 400;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLogLayer;

impl<S> Layer<S> for RequestLogLayer {
    type Service = RequestLog<S>;

    fn layer(&self, inner: S) -> RequestLog<S> {
        RequestLog { inner }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLog<S> {
    inner: S,
}

impl<S: Service<Request, Response = Response>> Service<Request> for RequestLog<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = RequestLogFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // Where not even failures are logged, nothing needs to be kept.
        let is_logged = tracing::enabled!(target: TARGET, Level::WARN);
        let seen = is_logged.then(|| Seen::of(&request));
        RequestLogFuture {
            inner: self.inner.call(request),
            seen,
        }
    }
}

pin_project! {
    /// See the module.
    pub(super) struct RequestLogFuture<F> {
        #[pin]
        inner: F,
        // Taken when the request is logged.
        seen: Option<Seen>,
    }

    impl<F> PinnedDrop for RequestLogFuture<F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(seen) = this.project().seen.take() {
                seen.log_abandoned();
            }
        }
    }
}

impl<F: Future<Output = Result<Response, E>>, E> Future for RequestLogFuture<F> {
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(context))?;
        if let Some(seen) = this.seen.take() {
            seen.log(&response);
        }
        Poll::Ready(Ok(response))
    }
}

/// What is known of a request before it is answered. Cloning these copies reference counts, not texts.
struct Seen {
    began: Instant,
    method: Method,
    uri: Uri,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
}

impl Seen {
    fn of(request: &Request) -> Self {
        Self {
            began: Instant::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            user_agent: request.headers().get(header::USER_AGENT).cloned(),
            request_id: request.headers().get(X_REQUEST_ID).cloned(),
        }
    }

    fn log(&self, response: &Response) {
        let status = response.status();
        let (method, path) = (&self.method, beginning(self.uri.path()));
        let duration_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let commit = shown_in(response.headers());
        let (user_agent, request_id) = (
            shown(self.user_agent.as_ref()),
            shown(self.request_id.as_ref()),
        );
        let cause = response
            .extensions()
            .get::<Cause>()
            .map(|Cause(cause)| cause.as_ref());
        // The level of an event is fixed where it is written, so each level has a place of its own.
        macro_rules! log {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    target: TARGET,
                    method = %method,
                    path,
                    status = status.as_u16(),
                    duration_us,
                    user_agent,
                    request_id,
                    commit,
                    error = cause,
                    $message
                )
            };
        }
        if cause.is_some() {
            log!(warn, "request failed");
        } else {
            log!(info, "request answered");
        }
    }
}

impl Seen {
    /// The client went away before there was an answer.
    fn log_abandoned(&self) {
        tracing::info!(
            target: TARGET,
            method = %self.method,
            path = beginning(self.uri.path()),
            duration_us = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX),
            user_agent = shown(self.user_agent.as_ref()),
            request_id = shown(self.request_id.as_ref()),
            "request abandoned by the client"
        );
    }
}

fn shown_in(headers: &HeaderMap) -> Option<&str> {
    shown(headers.get("x-index-commit"))
}

/// The beginning of a header's value, if it is visible ASCII.
fn shown(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok().map(beginning)
}

/// Paths and headers that get here are ASCII, so that a cut falls between characters.
fn beginning(text: &str) -> &str {
    text.get(..LOGGED_BYTES_MAX).unwrap_or(text)
}
