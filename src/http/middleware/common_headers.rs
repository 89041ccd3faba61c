//! The headers that many answers have in common: who may read them in a browser, and what a browser may do with them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::http::serve::Asked;

/// On what crates.io serves to everybody: the API, the sparse index and crate files. Whatever reads those may run in a
/// browser. The pages about this mirror name internal paths and hosts, and are for its operators. The git index has no use
/// for it: a browser asks before it posts to git, and nobody answers that.
const ANY_ORIGIN: (HeaderName, HeaderValue) = (
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    HeaderValue::from_static("*"),
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
#[derive(Clone, Debug)]
pub(super) struct CommonHeadersLayer {
    hsts: Option<HeaderValue>,
}

impl CommonHeadersLayer {
    /// `hsts_max_age_secs` is for browsers, on every answer: `None` for a mirror that leaves them alone.
    pub(super) fn new(hsts_max_age_secs: Option<u32>) -> Self {
        let max_age = |seconds| HeaderValue::try_from(format!("max-age={seconds}")).ok();
        Self {
            hsts: hsts_max_age_secs.and_then(max_age),
        }
    }
}

impl<S> Layer<S> for CommonHeadersLayer {
    type Service = CommonHeaders<S>;

    fn layer(&self, inner: S) -> CommonHeaders<S> {
        CommonHeaders {
            inner,
            hsts: self.hsts.clone(),
        }
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct CommonHeaders<S> {
    inner: S,
    hsts: Option<HeaderValue>,
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
            surface: Surface::of(asked.request.uri().path()),
            hsts: self.hsts.clone(),
            inner: self.inner.call(asked),
        }
    }
}

/// What a path belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Surface {
    /// The API, with its downloads.
    Api,
    /// The sparse index. cargo reads it thousands of times a day, and has no use for what is meant for browsers.
    Index,
    /// The git index.
    Git,
    /// Pages about this mirror, and what does not exist.
    Other,
}

impl Surface {
    fn of(path: &str) -> Self {
        if path.starts_with("/api/") || path.starts_with("/crates/") {
            Self::Api
        } else if path.starts_with("/index/") {
            Self::Index
        } else if path.starts_with("/git/") {
            Self::Git
        } else {
            Self::Other
        }
    }
}

pin_project! {
    /// See the module.
    pub(super) struct CommonHeadersFuture<F> {
        #[pin]
        inner: F,
        surface: Surface,
        hsts: Option<HeaderValue>,
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
        if matches!(this.surface, Surface::Api | Surface::Index) {
            headers.extend([ANY_ORIGIN]);
        }
        if matches!(this.surface, Surface::Api | Surface::Other) && carries_content {
            headers.extend(WITH_CONTENT);
        }
        if let Some(hsts) = this.hsts.take() {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts);
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
