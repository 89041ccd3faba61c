//! The count, the log event and the span of each request, made when its answer has been sent or cut.
//!
//! The log never contains query strings, `Authorization`, or any header that is not named here.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;
use tracing::Level;

use super::error::Cause;
use super::index::index_guard::X_INDEX_COMMIT;
use super::state::AppState;
use crate::observability::metrics::Route;
#[cfg(feature = "otlp")]
use crate::observability::traces::{Ended, Traces};
use crate::server::{Answered, Asked, Sent};

/// The target of these events, so that `RUST_LOG` can turn them off by name.
const TARGET: &str = "crates_io_mirror::request";

/// Set by Heroku's router and by most others, and returned with every answer.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest request id that is taken from a request.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// The longest part of a path or a header in the log. Events wait in memory until they are written.
const LOGGED_BYTES_MAX: usize = 400;

/// Counts a request and writes its event. If this is dropped without an answer, both say so.
pub(super) struct RequestLog(
    /// `None` after the answer.
    Option<RequestSeen>,
);

/// What is known of the request. Cloning the parts copies reference counts, not texts.
struct RequestSeen {
    state: Arc<AppState>,
    began: Instant,
    method: Method,
    request_id: HeaderValue,
    /// `None` if the log level excludes failures, too, and no collector takes spans. Then nothing more is needed.
    shown: Option<RequestShown>,
}

/// What only the event and the span say of the request.
struct RequestShown {
    client: IpAddr,
    uri: Uri,
    user_agent: Option<HeaderValue>,
    /// The span that the request names, and whether a trusted proxy did.
    #[cfg(feature = "otlp")]
    named: (opentelemetry::Context, bool),
}

/// What is known of the answer when it begins.
struct AnswerSeen {
    began: Instant,
    route: Route,
    status: StatusCode,
    commit: Option<HeaderValue>,
    cause: Option<Arc<str>>,
}

impl RequestLog {
    /// The request has come.
    pub(super) fn begin(asked: &Asked, state: &Arc<AppState>) -> Self {
        state.metrics.requests.begin();
        let headers = asked.request.headers();
        let is_shown = tracing::enabled!(target: TARGET, Level::WARN);
        #[cfg(feature = "otlp")]
        let is_shown = is_shown || state.settings.traces.is_some();
        Self(Some(RequestSeen {
            state: Arc::clone(state),
            began: Instant::now(),
            method: asked.request.method().clone(),
            request_id: request_id(headers),
            shown: is_shown.then(|| RequestShown {
                client: asked.exchange.client(),
                uri: asked.request.uri().clone(),
                user_agent: headers.get(header::USER_AGENT).cloned(),
                #[cfg(feature = "otlp")]
                named: if state.settings.traces.is_some() {
                    let connected = asked.exchange.connection().address;
                    let is_trusted = state.settings.trusted_proxies.contains(connected);
                    (Traces::named_by(headers), is_trusted)
                } else {
                    (opentelemetry::Context::default(), false)
                },
            }),
        }))
    }

    /// The answer begins, and gets the request id. The event is written when the answer has been sent or cut.
    pub(super) fn answered(mut self, mut response: Response, route: Route) -> Answered {
        let Some(request) = self.0.take() else {
            return response.into();
        };
        let cause = response.extensions().get::<Cause>();
        let answer = AnswerSeen {
            began: Instant::now(),
            route,
            status: response.status(),
            commit: response.headers().get(X_INDEX_COMMIT).cloned(),
            cause: cause.map(|Cause(cause)| Arc::clone(cause)),
        };
        let headers = response.headers_mut();
        headers.insert(X_REQUEST_ID, request.request_id.clone());
        if response.body().is_end_stream() {
            request.end(&answer, Sent::default());
            return response.into();
        }
        Answered {
            response,
            end: Some(Box::new(move |sent| request.end(&answer, sent))),
        }
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        if let Some(request) = self.0.take() {
            request.abandoned();
        }
    }
}

impl RequestSeen {
    /// Counts and logs. The last byte was sent, or no more will be sent.
    fn end(&self, answer: &AnswerSeen, sent: Sent) {
        let (method, status) = (self.method.as_str(), Some(answer.status.as_u16()));
        let took = self.began.elapsed();
        let requests = &self.state.metrics.requests;
        requests.end(answer.route, method, status, took, sent.bytes);
        if let Some(shown) = &self.shown {
            #[cfg(feature = "otlp")]
            self.trace(shown, took, Some((answer, &sent)));
            self.log(shown, answer, sent);
        }
    }

    /// `duration_us` is the time until the answer began. How long the client then takes to read it depends on the client.
    fn log(&self, request: &RequestShown, answer: &AnswerSeen, sent: Sent) {
        let path = beginning(request.uri.path());
        let duration_us = microseconds(answer.began.duration_since(self.began));
        let commit = shown(answer.commit.as_ref());
        let user_agent = shown(request.user_agent.as_ref());
        let request_id = shown(Some(&self.request_id));
        let cause = answer.cause.as_deref();
        // The level of an event is fixed at its macro call, so each level needs a call of its own.
        macro_rules! log {
            ($level:ident, $message:literal) => {
                tracing::$level!(
                    target: TARGET,
                    client = %request.client,
                    method = %self.method,
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
        } else if answer.route.is_probe() {
            log!(debug, "request answered");
        } else {
            log!(info, "request answered");
        }
    }

    /// The client left before there was an answer, or the server ended the request for the sake of others.
    fn abandoned(&self) {
        let took = self.began.elapsed();
        let requests = &self.state.metrics.requests;
        requests.end(Route::OTHER, self.method.as_str(), None, took, 0);
        let Some(request) = &self.shown else {
            return;
        };
        #[cfg(feature = "otlp")]
        self.trace(request, took, None);
        tracing::info!(
            target: TARGET,
            client = %request.client,
            method = %self.method,
            path = beginning(request.uri.path()),
            duration_us = microseconds(took),
            user_agent = shown(request.user_agent.as_ref()),
            request_id = shown(Some(&self.request_id)),
            "request ended without an answer"
        );
    }
}

#[cfg(feature = "otlp")]
impl RequestSeen {
    /// Makes the span. Its name and attributes are those of OpenTelemetry's conventions for HTTP servers.
    fn trace(&self, request: &RequestShown, took: Duration, answer: Option<(&AnswerSeen, &Sent)>) {
        use opentelemetry::KeyValue;

        let Some(traces) = &self.state.settings.traces else {
            return;
        };
        // Clients must not choose names of spans freely.
        let known = [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::PATCH,
        ];
        let method = known.iter().find(|method| **method == self.method);
        let method = method.map(Method::as_str);
        let route =
            answer.and_then(|(answer, _)| self.state.metrics.requests.template(answer.route));
        let mut attributes = vec![
            KeyValue::new("http.request.method", method.unwrap_or("_OTHER").to_owned()),
            KeyValue::new("url.path", beginning(request.uri.path()).to_owned()),
            KeyValue::new("client.address", request.client.to_string()),
        ];
        let texts = [
            ("http.route", route),
            ("request_id", shown(Some(&self.request_id))),
            ("user_agent.original", shown(request.user_agent.as_ref())),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, text?)));
        attributes.extend(texts.map(|(name, text)| KeyValue::new(name, text.to_owned())));
        if let Some((answer, sent)) = answer {
            let (status, bytes) = (answer.status.as_u16(), sent.bytes);
            attributes.extend([
                KeyValue::new("http.response.status_code", i64::from(status)),
                KeyValue::new(
                    "http.response.body.size",
                    i64::try_from(bytes).unwrap_or(i64::MAX),
                ),
            ]);
            if sent.is_cut {
                attributes.push(KeyValue::new("cut", true));
            }
        }
        let method = method.unwrap_or("HTTP");
        traces.record(Ended {
            named: &request.named.0,
            is_trusted: request.named.1,
            name: route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}")),
            took,
            has_failed: answer.is_some_and(|(answer, _)| answer.status.is_server_error()),
            attributes,
        });
    }
}

/// The request id of a client or a proxy, if it is harmless, else one of our own: 16 hexadecimal digits.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(X_REQUEST_ID);
    if let Some(given) = given.filter(|given| is_request_id(given.as_bytes())) {
        return given.clone();
    }
    let mut number = fastrand::u64(..);
    let mut digits = [b'0'; 16];
    for digit in &mut digits {
        // Less than 16, so it fits.
        *digit = char::from_digit((number & 0xf) as u32, 16).map_or(b'0', |digit| digit as u8);
        number >>= 4;
    }
    HeaderValue::from_bytes(&digits).unwrap_or(HeaderValue::from_static("none"))
}

/// 1 to 128 characters of `A-Z a-z 0-9 . _ -`.
fn is_request_id(text: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=REQUEST_ID_BYTES_MAX).contains(&text.len()) && text.iter().all(is_plain)
}

fn microseconds(duration: Duration) -> u64 {
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
    fn a_request_id_is_taken_if_it_is_harmless_and_made_otherwise() {
        let of = |given: &[u8]| {
            let value = HeaderValue::from_bytes(given).unwrap();
            request_id(&[(X_REQUEST_ID, value)].into_iter().collect())
        };
        let long = [b'x'; REQUEST_ID_BYTES_MAX];
        for good in [b"a".as_slice(), b"A.z_0-9", &long] {
            assert_eq!(of(good).as_bytes(), good);
        }
        for bad in [
            b"".as_slice(),
            b"a b",
            b"a=b",
            b"\xc3\xa9",
            b"a\tb",
            b"a/b",
            &[b'x'; 129],
        ] {
            let made = of(bad);
            assert_eq!(made.len(), 16);
            assert!(is_request_id(made.as_bytes()));
            assert_ne!(made, of(bad));
        }
    }

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
