//! `GET /changes`: what has changed in the served index, as lines of JSON, or as events for a client that follows on.
//!
//! The journal keeps the changes, and the catalog answers which versions were published since a time. Both are read part by
//! part, when the part before was sent. So an answer takes little memory, and no client keeps the journal from forgetting.

mod cursor;
mod events;
pub(super) mod followers;
mod page;

use std::io;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;

use super::api::query::{ApiQuery, given};
use super::error::ApiError;
use super::index::index_guard::{commit_header, current_view};
use super::semantics::accept::asks_for;
use super::semantics::body_of_unknown_length;
use super::state::{AppState, RequestState};
use cursor::Since;
use events::Following;
use page::Page;

/// How many changes an answer has at most, unless one step has more.
const CHANGES_MAX: usize = 1_000;

const LINES: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";

/// What a client that follows has seen last.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tells nginx and others to pass each event on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The query.
#[derive(Debug, Deserialize)]
pub(crate) struct FeedQuery {
    /// Where to begin: a cursor, or a time.
    #[serde(default, deserialize_with = "given")]
    since: Option<String>,
    /// How many changes to send, unless one step has more.
    #[serde(default, deserialize_with = "given")]
    limit: Option<usize>,
}

/// The changes after a place.
pub(crate) async fn show(
    request: RequestState,
    method: Method,
    headers: HeaderMap,
    query: Result<ApiQuery<FeedQuery>, ApiError>,
) -> Response {
    let answer = answer(request, (&method, &headers), query).await;
    let mut response = answer.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("accept"));
    response
}

async fn answer(
    request: RequestState,
    (method, headers): (&Method, &HeaderMap),
    query: Result<ApiQuery<FeedQuery>, ApiError>,
) -> Result<Response, ApiError> {
    let ApiQuery(query) = query?;
    let limit = query.limit.unwrap_or(CHANGES_MAX);
    if !(1..=CHANGES_MAX).contains(&limit) {
        let text = format!("limit must be a number from 1 to {CHANGES_MAX}");
        return Err(ApiError::BadRequest(text));
    }
    let follows = asks_for(headers, EVENTS, LINES);
    let seen = headers.get(LAST_EVENT_ID).filter(|_| follows);
    let seen = seen.and_then(|id| id.to_str().ok());
    let since = Since::parse(seen.filter(|id| !id.is_empty()).or(query.since.as_deref()))?;
    // An operator must hear why there is no index, and not only that there is no journal.
    current_view(&request.state)?;
    let has_body = method != Method::HEAD;
    let RequestState { state, exchange } = &request;
    let place = if follows && has_body {
        let follower = state.followers.admit(exchange)?;
        Some((follower, state.follower_permits.take(exchange, 1).await?))
    } else {
        None
    };
    let memory = state
        .account
        .take(exchange, Page::cost(&since, limit))
        .await?;
    let page = Page::after(&request, &since, limit).await?;
    let commit = page.head.commit.parse().ok().and_then(commit_header);
    let body = match place {
        _ if !has_body => body_of_unknown_length(),
        Some(place) => Following::begin(request, (page, limit), place).body(),
        None => {
            exchange.keep(memory);
            lines(Arc::clone(state), page)
        }
    };
    let kind = [(header::CONTENT_TYPE, if follows { EVENTS } else { LINES })];
    let mut response = (kind, body).into_response();
    let answer = response.headers_mut();
    answer.extend(commit);
    if follows {
        answer.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    }
    Ok(response)
}

/// The lines of a page, and its head. An answer that is cut has no head, so the client asks again.
fn lines(state: Arc<AppState>, page: Page) -> Body {
    Body::from_stream(stream::try_unfold(Some(page), move |page| {
        let state = Arc::clone(&state);
        async move {
            let Some(mut page) = page else {
                return Ok::<_, io::Error>(None);
            };
            let parts = page.next(&state).await.map_err(io::Error::other)?;
            let mut lines = Vec::new();
            for part in parts.into_iter().flatten() {
                lines.extend(part.lines);
            }
            if !page.is_empty() {
                return Ok(Some((Bytes::from(lines), Some(page))));
            }
            lines.extend(page.head.line());
            Ok(Some((Bytes::from(lines), None)))
        }
    }))
}
