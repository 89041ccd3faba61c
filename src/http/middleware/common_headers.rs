//! The headers that crates.io puts on every answer of its site and API, and the few of them that its index has, too.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::http::serve::Asked;

/// On every answer, of the index, too: whatever reads it may run in a browser.
const ANY_ORIGIN: (HeaderName, HeaderValue) = (
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    HeaderValue::from_static("*"),
);

/// On every answer of the site and the API.
const ONLY_TLS: (HeaderName, HeaderValue) = (
    header::STRICT_TRANSPORT_SECURITY,
    HeaderValue::from_static("max-age=31536000"),
);

/// On successful answers with content; not on the redirects to crate files.
const WITH_CONTENT: [(HeaderName, HeaderValue); 3] = [
    (
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    ),
    (
        header::X_FRAME_OPTIONS,
        HeaderValue::from_static("SAMEORIGIN"),
    ),
    (header::X_XSS_PROTECTION, HeaderValue::from_static("0")),
];

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommonHeadersLayer;

impl<S> Layer<S> for CommonHeadersLayer {
    type Service = CommonHeaders<S>;

    fn layer(&self, inner: S) -> CommonHeaders<S> {
        CommonHeaders { inner }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommonHeaders<S> {
    inner: S,
}

impl<S: Service<Asked, Response = Response>> Service<Asked> for CommonHeaders<S> {
    type Response = Response;
    type Error = S::Error;
    type Future = CommonHeadersFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, asked: Asked) -> Self::Future {
        CommonHeadersFuture {
            is_index: is_index(asked.request.uri().path()),
            inner: self.inner.call(asked),
        }
    }
}

/// cargo, which reads the index thousands of times a day, has no use for what is meant for browsers.
fn is_index(path: &str) -> bool {
    path.starts_with("/index/") || path.starts_with("/git/")
}

pin_project! {
    /// See the module.
    pub(super) struct CommonHeadersFuture<F> {
        #[pin]
        inner: F,
        is_index: bool,
    }
}

impl<F: Future<Output = Result<Response, E>>, E> Future for CommonHeadersFuture<F> {
    type Output = Result<Response, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(context))?;
        let carries_content = carries_content(response.status());
        let not_modified = response.status() == StatusCode::NOT_MODIFIED;
        let headers = response.headers_mut();
        if not_modified {
            // axum notes the length of the empty body; here it would have to be that of the file (RFC 9110, 8.6).
            headers.remove(header::CONTENT_LENGTH);
        }
        headers.extend([ANY_ORIGIN]);
        if !*this.is_index {
            headers.extend([ONLY_TLS]);
            if carries_content {
                headers.extend(WITH_CONTENT);
            }
        }
        Poll::Ready(Ok(response))
    }
}

fn carries_content(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 201 | 203 | 204 | 206 | 301 | 303 | 304 | 307 | 308
    )
}
