//! `GET /api/v1/crates/{name}/{version}/download`.
//!
//! A pure function of name, version and template, as on crates.io: no look-up, since the index may be minutes behind a
//! publish. Only a template with `{sha256-checksum}` needs the index.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::index_answer;
use super::state::AppState;
use crate::package::{CrateName, CrateVersion};

/// The redirect to the crate file, or its URL as JSON for a client that asks for that.
pub(super) async fn redirect(
    State(state): State<AppState>,
    path: Result<Path<(String, String)>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path((name, version)) = path?;
    let (name, version) = parse(name, version)?;
    let template = &state.settings.download;
    if template.needs_checksum() {
        let wants_json = wants_json(&headers);
        return index_answer::with_crate(&state, name, move |name, history, state| {
            let found = history.find(&version).and_then(|release| release.line.checksum());
            let checksum = found.ok_or_else(|| ApiError::VersionNotFound {
                name: name.to_string(),
                version: version.to_string(),
            })?;
            answer(state.settings.download.expand(name, &version, Some(&checksum)), wants_json)
        })
        .await;
    }
    answer(template.expand(&name, &version, None), wants_json(&headers))
}

/// The version is checked first, as on crates.io: a bad one is 400 whatever the name.
pub(super) fn parse(name: String, version: String) -> Result<(CrateName, CrateVersion), ApiError> {
    let version = CrateVersion::try_from(version)
        .map_err(|not_semver| ApiError::BadRequest(format!("Invalid URL: {not_semver}")))?;
    Ok((parse_name(name)?, version))
}

/// A text that cannot be a crate's name is the name of no crate.
pub(super) fn parse_name(name: String) -> Result<CrateName, ApiError> {
    if let Ok(name) = CrateName::try_from(name.clone()) {
        return Ok(name);
    }
    Err(ApiError::CrateNotFound(name))
}

fn answer(url: String, wants_json: bool) -> Result<Response, ApiError> {
    #[derive(Serialize)]
    struct Found {
        url: String,
    }

    if wants_json {
        let vary = [(header::VARY, "accept, accept-encoding")];
        return Ok((vary, axum::Json(Found { url })).into_response());
    }
    let location = HeaderValue::from_maybe_shared(axum::body::Bytes::from(url)).map_err(ApiError::internal)?;
    let mut response = StatusCode::FOUND.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Whether any `Accept` line holds `json`, which is all that crates.io looks for.
fn wants_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::ACCEPT).iter();
    lines.any(|line| line.as_bytes().windows(4).any(|window| window == b"json"))
}
