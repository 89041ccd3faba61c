//! `GET /`: how to point cargo at the mirror, and its state, for people. No page here lists crates.
//!
//! The page shows no paths of the server, no hosts behind it and no raw errors: those are in `/status` and `/readyz`.

use std::time::{Duration, SystemTime};

use askama::Template;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::Response;
use indicatif::{HumanCount, HumanDuration};

use super::health::{MirrorState, Readiness, utc};
use super::html::html;
use super::report::mode;
use super::set_up::SetUp;
use crate::clock::Clock;
use crate::http::error::ApiError;
use crate::http::policy::PolicyReport;
use crate::http::semantics::base_url::{BASE_URL_VARIES, root_path};
use crate::http::state::RequestState;

/// How often a browser asks again while the index is cloned, in seconds. It is a header: a `meta` element would be an
/// obstacle for people who use a screen reader.
const REFRESH_SECONDS: HeaderValue = HeaderValue::from_static("5");

#[derive(Template)]
#[template(path = "page.html", config = "src/http/status/askama.toml")]
struct Page<'a> {
    root: &'a str,
    set_up: SetUp,
    state: MirrorState,
    readiness: Readiness,
    index_time: Option<Moment>,
    last_check: Option<Moment>,
    mode: &'static str,
    /// `None` without a policy, and before the first view.
    policy: Option<PolicyReport>,
    uptime: HumanDuration,
}

/// A time, and how long ago it was.
struct Moment {
    /// In UTC (RFC 3339).
    utc: String,
    /// `None` if it is ahead of the clock.
    age: Option<HumanDuration>,
}

impl Moment {
    /// `None` for a time that no calendar has.
    fn new(time: SystemTime, clock: &Clock) -> Option<Self> {
        Some(Self {
            utc: utc(time)?,
            age: clock.age(time).map(HumanDuration),
        })
    }

    /// The time as people write it.
    fn shown(&self) -> String {
        self.utc.replace('T', " ").replace('Z', " UTC")
    }
}

/// A number with separators. Templates pass references.
fn count(count: &usize) -> HumanCount {
    HumanCount(*count as u64)
}

/// A time that has passed, in words.
fn ago(seconds: &u64) -> String {
    format!("{} ago", HumanDuration(Duration::from_secs(*seconds)))
}

/// How many versions are in a state, in words.
fn versions(count: &u64, state: &str) -> String {
    let noun = if *count == 1 { "version" } else { "versions" };
    format!("{} {noun} {state}", HumanCount(*count))
}

/// The page.
pub(crate) async fn show(
    RequestState { state, exchange }: RequestState,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let readiness = Readiness::of(&state);
    let moment = |time| Moment::new(time, &state.settings.clock);
    let page = Page {
        root: root_path(&state.settings),
        set_up: SetUp::of(&state, &uri, &headers)?,
        state: readiness.state(),
        index_time: readiness.index.commit_time.and_then(moment),
        last_check: readiness.index.last_success.and_then(moment),
        readiness,
        mode: mode(&state),
        policy: PolicyReport::now(&state).filter(|policy| policy.settings.is_some()),
        uptime: HumanDuration(Duration::from_secs(state.started.elapsed().as_secs())),
    };
    // The longest page by far: clients that do not read it must not take more memory than others.
    let response = html(StatusCode::OK, &page)?;
    let mut response = state.keep(&exchange, response).await?;
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static(BASE_URL_VARIES));
    if page.state == MirrorState::Cloning {
        headers.insert(header::REFRESH, REFRESH_SECONDS);
    }
    Ok(response)
}
