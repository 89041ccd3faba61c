//! What the server gives to the application for each request, and what it gets back.

use std::future::Future;

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header;
use axum::response::Response;
use hyper::body::Incoming;

use super::exchange::{End, Exchange, Sent};

/// A function that answers requests. Each connection has a clone of it.
pub(crate) trait Application:
    Fn(Asked) -> <Self as Application>::Answering + Clone + Send + Sync + 'static
{
    /// An answer that is being made.
    type Answering: Future<Output = Answered> + Send;
}

impl<A, F> Application for A
where
    A: Fn(Asked) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answered> + Send,
{
    type Answering = F;
}

/// A request, and the exchange that it begins.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The request.
    pub(crate) request: Request,
    /// See [`Exchange`].
    pub(crate) exchange: Exchange,
    /// Whether it may be answered.
    pub(crate) admission: Admission,
}

/// Whether a request may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// There is memory for it.
    Granted,
    /// Its peer already has more than its fair share, and nothing is left.
    NoShare,
    /// It has more headers than any client has a reason to send.
    TooManyHeaders,
}

impl Asked {
    /// A request as hyper reads it.
    pub(super) fn new(request: hyper::Request<Incoming>, exchange: Exchange) -> Self {
        Self {
            // Most requests have no body, and need no allocation for it.
            request: request.map(|incoming| {
                if incoming.is_end_stream() {
                    Body::empty()
                } else {
                    Body::new(incoming)
                }
            }),
            exchange,
            admission: Admission::Granted,
        }
    }

    /// The request, with the exchange among its extensions.
    pub(crate) fn into_request(self) -> Request {
        let mut request = self.request;
        request.extensions_mut().insert(self.exchange);
        request
    }
}

/// An answer, and a callback for its end.
pub(crate) struct Answered {
    /// The answer.
    pub(crate) response: Response,
    /// Called when the answer was sent or cut.
    pub(crate) end: Option<End>,
}

impl Answered {
    /// Begins to send the answer. An answer without a body has been sent already.
    pub(super) fn begin(self, exchange: &Exchange) -> Response {
        let Self { response, end } = self;
        if !response.body().is_end_stream() {
            // hyper sends as many bytes as the header says, and then no longer asks whether the body is at its end.
            let in_header = || {
                let length = response.headers().get(header::CONTENT_LENGTH)?;
                length.to_str().ok()?.parse().ok()
            };
            let length = response.body().size_hint().exact().or_else(in_header);
            exchange.begin_body(length, end);
        } else if let Some(end) = end {
            end(Sent::default());
        }
        response
    }
}

impl From<Response> for Answered {
    fn from(response: Response) -> Self {
        Self {
            response,
            end: None,
        }
    }
}
