//! One log event for each request, written when its answer has been sent or cut.
//!
//! The log never contains query strings, `Authorization`, or any header that is not named here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::HttpBody;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use tracing::Level;

use super::error::Cause;
use super::index::index_guard::X_INDEX_COMMIT;
use crate::server::{Answered, Asked, Sent};

/// The target of these events, so that `RUST_LOG` can turn them off by name.
const TARGET: &str = "crates_io_mirror::request";

/// Set by Heroku's router and by most others.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest part of a path or a header in the log. Events wait in memory until they are written.
const LOGGED_BYTES_MAX: usize = 400;

/// Writes the event of a request. If this is dropped without an answer, the event says so.
pub(super) struct RequestLog(
    /// `None` after the answer, and where the log takes not even failures: then nothing needs to be kept.
    Option<RequestSeen>,
);

/// What the event says of the request. Cloning these copies reference counts, not texts.
struct RequestSeen {
    began: Instant,
    client: IpAddr,
    method: Method,
    uri: Uri,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
}

/// What the event says of the answer when it begins.
struct AnswerSeen {
    began: Instant,
    status: StatusCode,
    commit: Option<HeaderValue>,
    cause: Option<Arc<str>>,
}

impl AnswerSeen {
    fn of(response: &Response) -> Self {
        Self {
            began: Instant::now(),
            status: response.status(),
            commit: response.headers().get(X_INDEX_COMMIT).cloned(),
            cause: response
                .extensions()
                .get::<Cause>()
                .map(|Cause(cause)| Arc::clone(cause)),
        }
    }
}

impl RequestLog {
    /// The request has come.
    pub(super) fn begin(asked: &Asked) -> Self {
        let is_logged = tracing::enabled!(target: TARGET, Level::WARN);
        Self(is_logged.then(|| {
            let headers = asked.request.headers();
            RequestSeen {
                began: Instant::now(),
                client: asked.exchange.client(),
                method: asked.request.method().clone(),
                uri: asked.request.uri().clone(),
                user_agent: headers.get(header::USER_AGENT).cloned(),
                request_id: headers.get(X_REQUEST_ID).cloned(),
            }
        }))
    }

    /// The answer begins. The event is written when the answer has been sent or cut.
    pub(super) fn answered(mut self, response: Response) -> Answered {
        let Some(request) = self.0.take() else {
            return response.into();
        };
        let answer = AnswerSeen::of(&response);
        if response.body().is_end_stream() {
            request.log(&answer, Sent::default());
            return response.into();
        }
        Answered {
            response,
            end: Some(Box::new(move |sent| request.log(&answer, sent))),
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        if let Some(request) = self.0.take() {
            request.log_abandoned();
        }
    }
}

impl RequestSeen {
    /// `duration_us` is the time until the answer began. How long the client then takes to read it depends on the client.
    fn log(&self, answer: &AnswerSeen, sent: Sent) {
        let (method, path) = (&self.method, beginning(self.uri.path()));
        let duration_us = microseconds(answer.began.duration_since(self.began));
        let commit = shown(answer.commit.as_ref());
        let (user_agent, request_id) = (
            shown(self.user_agent.as_ref()),
            shown(self.request_id.as_ref()),
        );
        let cause = answer.cause.as_deref();
        // The level of an event is fixed at its macro call, so each level needs a call of its own.
        macro_rules! log {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    target: TARGET,
                    client = %self.client,
                    method = %method,
                    path,
                    status = answer.status.as_u16(),
                    bytes = sent.bytes,
                    cut = sent.is_cut.then_some(true),
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
        } else if sent.is_cut {
            log!(info, "answer cut");
        } else {
            log!(info, "request answered");
        }
    }

    /// The client left before there was an answer, or the server ended the request for the sake of others.
    fn log_abandoned(&self) {
        tracing::info!(
            target: TARGET,
            client = %self.client,
            method = %self.method,
            path = beginning(self.uri.path()),
            duration_us = microseconds(self.began.elapsed()),
            user_agent = shown(self.user_agent.as_ref()),
            request_id = shown(self.request_id.as_ref()),
            "request ended without an answer"
        );
    }
}

fn microseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// The beginning of a header's value, if it is visible ASCII.
fn shown(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok().map(beginning)
}

/// The beginning of a text. hyper accepts any UTF-8 in a path, so the cut looks for the end of a character.
fn beginning(text: &str) -> &str {
    // `floor_char_boundary` would need Rust 1.91, which is more than any dependency needs.
    let mut end = text.len().min(LOGGED_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_text_is_bounded_whatever_its_characters_are() {
        for text in ["a", "é", "京", "💩", "a京"] {
            let long = text.repeat(20_000);
            let shown = beginning(&long);
            assert!(long.starts_with(shown));
            assert!((LOGGED_BYTES_MAX - 3..=LOGGED_BYTES_MAX).contains(&shown.len()));
            assert_eq!(beginning(text), text);
        }
    }
}
