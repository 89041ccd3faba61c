//! What happens to every request and every answer, whatever they are about.
//!
//! One function around the router does all of it. axum's own layers run behind the routing, too late to change the path,
//! and cost an allocation each. A tower service for each step cost 0.3 µs more.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::future::RouteFuture;
use http_body_util::{BodyExt, Limited};
use tower::Service;

use super::crate_files::download;
use super::crate_in_path::VersionInPath;
use super::error::ApiError;
use super::index::sparse;
use super::path::{PathPrefix, normalize};
use super::request_log::RequestLog;
use super::router::router;
use super::semantics::accept::prefers_html;
use super::state::{AppState, RequestState};
use super::status::not_found;
use crate::observability::metrics::Route;
use crate::package::IndexPath;
use crate::server::{Admission, Answered, Application, Asked, Exchange};

/// How much of a refused upload the mirror reads and throws away. A connection that is closed with unread data makes the
/// client's side drop the answer, so whatever a real client sends should fit: crates.io accepts 10 MiB.
const DISCARDED_BYTES_MAX: usize = 128 * 1024 * 1024;

/// How long that may take.
const DISCARDING_TIME_MAX: Duration = Duration::from_secs(10);

/// For answers that crates.io gives to everybody: the API, the sparse index and crate files. Also for the change feed,
/// which contains nothing else. Their clients can run in a browser. Pages about this mirror name internal paths and
/// hosts, and are for its operators. The git index does not need the header: a browser asks before it posts to git, and
/// the mirror does not allow that.
const ANY_ORIGIN: (HeaderName, HeaderValue) = (
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    HeaderValue::from_static("*"),
);

/// For successful answers with content, and not for redirects to crate files.
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

/// The function that answers all requests.
pub(crate) fn application(state: Arc<AppState>) -> impl Application {
    let hsts = state.settings.hsts_max_age_secs;
    let every_request = Arc::new(EveryRequest {
        router: router(Arc::clone(&state)),
        hsts: hsts.and_then(|seconds| HeaderValue::try_from(format!("max-age={seconds}")).ok()),
        prefix: state
            .settings
            .public_url
            .as_deref()
            .and_then(PathPrefix::of),
        state,
    });
    move |asked| Arc::clone(&every_request).answer(asked)
}

struct EveryRequest {
    router: Router,
    state: Arc<AppState>,
    /// Tells browsers to come back over TLS only.
    hsts: Option<HeaderValue>,
    /// The path in `PUBLIC_URL`.
    prefix: Option<PathPrefix>,
}

impl EveryRequest {
    /// Everything that needs no waiting happens before the future exists. hyper moves the future, so it should be small.
    fn answer(self: Arc<Self>, mut asked: Asked) -> impl Future<Output = Answered> + Send {
        // The log shows the path as it came.
        let log = RequestLog::begin(&asked, &self.state);
        normalize(asked.request.uri_mut());
        if let Some(prefix) = &self.prefix {
            prefix.remove_from(asked.request.uri_mut());
        }
        let path = asked.request.uri().path();
        let surface = Surface::of(path);
        // Programs read the API, whatever they accept.
        let has_pages = !path.starts_with("/api/");
        let way = match refusal(&mut asked) {
            Some(refusal) => Way::Refused(Route::OTHER, refusal, false),
            None => self.way_of(asked),
        };
        async move {
            let (route, mut response, wants_page) = match way {
                Way::Refused(route, response, wants_page) => (route, response, wants_page),
                Way::Routed(routed, wants_page) => {
                    let response = routed.await.into_response();
                    (self.route_of(&response), response, wants_page)
                }
                Way::IndexFile(path, exchange, headers) => {
                    let state = Arc::clone(&self.state);
                    let request = RequestState { state, exchange };
                    let answer = sparse::answer(request, &headers, path.as_ref());
                    // Most files exist. The header is read for the others only.
                    let response = answer.await.into_response();
                    let wants_page = is_not_found(&response) && prefers_html(&headers);
                    (Route::INDEX_FILE, response, wants_page)
                }
                Way::CrateFile(route, wanted, exchange, headers) => {
                    let asked = (&Method::GET, &headers);
                    let answer = download::answer(&self.state, exchange, &wanted, asked);
                    let response = answer.await.into_response();
                    let wants_page = is_not_found(&response) && prefers_html(&headers);
                    (route, response, wants_page)
                }
            };
            if has_pages && is_not_found(&response) {
                if wants_page {
                    response = not_found::page(&self.state.settings, &response).into_response();
                }
                // Added, because the answer may depend on other headers, too.
                let accept = HeaderValue::from_static("accept");
                response.headers_mut().append(header::VARY, accept);
            }
            self.add_headers(&mut response, surface);
            log.answered(response, route)
        }
    }

    /// Finds the handler of a URL.
    ///
    /// Nearly all requests are for crate files and index files. For them axum's routing, boxing and extracting cost as much
    /// as everything else (`benches/compare/redirect.sh`). So this recognises their plain form, `GET` without
    /// percent-encoding. [`Way`] leads to the same functions that the router's handlers call.
    fn way_of(&self, asked: Asked) -> Way {
        let path = asked.request.uri().path();
        if asked.request.method() != Method::GET || path.contains('%') {
            return self.routed(asked);
        }
        // Fewer segments are `config.json`, or a crate's name.
        if let Some(path) = path.strip_prefix("/index/")
            && path.contains('/')
        {
            let path = IndexPath::parse(path);
            return Way::IndexFile(path, asked.exchange, asked.request.into_parts().0.headers);
        }
        let route = if path.starts_with("/crates/") {
            Route::CDN_DOWNLOAD
        } else {
            Route::DOWNLOAD
        };
        match version_in(path) {
            None => self.routed(asked),
            Some(Err(error)) => {
                let wants_page = prefers_html(asked.request.headers());
                Way::Refused(route, error.into_response(), wants_page)
            }
            Some(Ok(wanted)) => {
                let headers = asked.request.into_parts().0.headers;
                Way::CrateFile(route, wanted, asked.exchange, headers)
            }
        }
    }

    fn routed(&self, asked: Asked) -> Way {
        let request = asked.into_request();
        let wants_page = prefers_html(request.headers());
        let routed = self.router.clone().call(request);
        Way::Routed(Box::pin(routed), wants_page)
    }

    /// The route of an answer that came from the router.
    fn route_of(&self, response: &Response) -> Route {
        match response.extensions().get::<MatchedPath>() {
            // `{*path}` is axum's way to say that there may be slashes in it.
            Some(matched) => {
                let template = matched.as_str().replace("{*", "{");
                self.state.metrics.requests.route(&template)
            }
            None => Route::OTHER,
        }
    }

    fn add_headers(&self, response: &mut Response, surface: Surface) {
        let has_content = has_content(response.status());
        let is_not_modified = response.status() == StatusCode::NOT_MODIFIED;
        let headers = response.headers_mut();
        if is_not_modified {
            // axum notes the length of the empty body. Here it would have to be that of the file (RFC 9110, section 8.6).
            headers.remove(header::CONTENT_LENGTH);
        }
        if matches!(surface, Surface::Api | Surface::Index) {
            headers.extend([ANY_ORIGIN]);
        }
        if matches!(surface, Surface::Api | Surface::Other) && has_content {
            for (name, value) in WITH_CONTENT {
                headers.insert(name, value);
            }
        }
        if let Some(hsts) = &self.hsts {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
        }
    }
}

/// The way of a request to its answer.
enum Way {
    /// This and the next one say whether the client gets a page instead of a `404` for programs.
    Refused(Route, Response, bool),
    Routed(Pin<Box<RouteFuture<Infallible>>>, bool),
    /// The path is `None` if it can be that of no index file.
    IndexFile(Option<IndexPath>, Exchange, HeaderMap),
    CrateFile(Route, VersionInPath, Exchange, HeaderMap),
}

/// The version whose crate file a path without percent-encoding asks for.
fn version_in(path: &str) -> Option<Result<VersionInPath, ApiError>> {
    let of_the_cdn = || path.strip_prefix("/crates/");
    let path = path.strip_prefix("/api/v1/crates/").or_else(of_the_cdn)?;
    let (name, version) = path.strip_suffix("/download")?.split_once('/')?;
    let is_one_segment = !version.contains('/');
    is_one_segment.then(|| VersionInPath::parse(name.to_owned(), version.to_owned()))
}

/// Whose answers get which headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Surface {
    /// The API, with its downloads, and the change feed.
    Api,
    /// The sparse index, now and as of earlier times. Cargo reads it thousands of times a day, and has no use for what browsers need.
    Index,
    /// The git index.
    Git,
    /// Pages about this mirror, and what does not exist.
    Other,
}

impl Surface {
    /// The surface of a normalised path.
    fn of(path: &str) -> Self {
        if path.starts_with("/api/") || path.starts_with("/crates/") || path == "/changes" {
            Self::Api
        } else if path.starts_with("/index/") || path.starts_with("/at/") {
            Self::Index
        } else if path.starts_with("/git/") {
            Self::Git
        } else {
            Self::Other
        }
    }
}

fn is_not_found(response: &Response) -> bool {
    response.status() == StatusCode::NOT_FOUND
}

fn has_content(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 201 | 203 | 204 | 206 | 301 | 303 | 304 | 307 | 308
    )
}

/// The answer to a request that is refused, whatever it is about.
fn refusal(asked: &mut Asked) -> Option<Response> {
    let error = match asked.admission {
        Admission::Granted => return refuse_write(&mut asked.request),
        // A platform restarts a mirror that does not answer, so a busy mirror must answer these two.
        Admission::NoShare if matches!(asked.request.uri().path(), "/livez" | "/readyz") => {
            return None;
        }
        Admission::NoShare => ApiError::Busy,
        Admission::TooManyHeaders => ApiError::TooManyHeaders,
    };
    // Without a body, because the client would have to grant a window for it.
    Some(error.into_response().map(|_text| Body::empty()))
}

/// Refuses a write to the API, whether there is such an endpoint or not.
fn refuse_write(request: &mut Request) -> Option<Response> {
    if !is_write(request) {
        return None;
    }
    // A client that waits for `100 Continue` gets the answer before it sends anything.
    let expects_continue = request.headers().contains_key(header::EXPECT);
    let upload = std::mem::take(request.body_mut());
    if !upload.is_end_stream() && !expects_continue {
        // The answer is complete and goes out at once, while the client may still send. The task ends with the upload, the
        // connection or the time, whichever comes first.
        tokio::spawn(tokio::time::timeout(DISCARDING_TIME_MAX, discard(upload)));
    }
    Some(ApiError::ReadOnly.into_response())
}

fn is_write(request: &Request) -> bool {
    let method = request.method();
    // The common case first: the method alone decides it.
    method != Method::GET
        && [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
        && request.uri().path().starts_with("/api/v1/")
}

/// Reads an upload and throws it away.
async fn discard(upload: Body) {
    let mut upload = Limited::new(upload, DISCARDED_BYTES_MAX);
    while let Some(Ok(_frame)) = upload.frame().await {}
}
