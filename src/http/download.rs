//! `GET /api/v1/crates/{name}/{version}/download`.
//!
//! A pure function of name, version and template, as on crates.io: no look-up, since the index may be minutes behind a
//! publish. Only a template with `{sha256-checksum}` needs the index.

use std::convert::Infallible;

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
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
    WantsJson(wants_json): WantsJson,
) -> Result<Response, ApiError> {
    let Path((name, version)) = path?;
    let (name, version) = parse(name, version)?;
    let template = &state.settings.download;
    if template.needs_checksum() {
        return index_answer::with_crate(&state, name, move |name, history, state| {
            let found = history
                .find(&version)
                .and_then(|release| release.line.checksum());
            let checksum = found.ok_or_else(|| ApiError::VersionNotFound {
                name: name.to_string(),
                version: version.to_string(),
            })?;
            answer(
                state
                    .settings
                    .download
                    .expand(name, &version, Some(&checksum)),
                wants_json,
            )
        })
        .await;
    }
    answer(template.expand(&name, &version, None), wants_json)
}

/// The redirect, for a request that asks for one and nothing else; `None` where the router must decide. The answers of
/// both ways are the same.
pub(super) fn plain_redirect(state: &AppState, request: &Request) -> Option<Response> {
    let template = &state.settings.download;
    if request.method() != Method::GET || template.needs_checksum() || wants_json(request.headers())
    {
        return None;
    }
    let path = request.uri().path().strip_prefix("/api/v1/crates/")?;
    let (name, version) = path.strip_suffix("/download")?.split_once('/')?;
    // A slash or a percent sign is in no version and no name, so that what is left needs no decoding.
    let version = CrateVersion::try_from(version.to_owned()).ok()?;
    let name = CrateName::try_from(name.to_owned()).ok()?;
    answer(template.expand(&name, &version, None), false).ok()
}

/// The version is checked first, as on crates.io: a bad one is 400 whatever the name.
pub(super) fn parse(name: String, version: String) -> Result<(CrateName, CrateVersion), ApiError> {
    let version = CrateVersion::try_from(version)
        .map_err(|not_semver| ApiError::BadRequest(format!("Invalid URL: {not_semver}")))?;
    Ok((parse_name(name)?, version))
}

/// A text that cannot be a crate's name is the name of no crate.
pub(super) fn parse_name(name: String) -> Result<CrateName, ApiError> {
    CrateName::try_from(name).map_err(|not_a_name| ApiError::CrateNotFound(not_a_name.text))
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
    let location =
        HeaderValue::from_maybe_shared(axum::body::Bytes::from(url)).map_err(ApiError::internal)?;
    let mut response = StatusCode::FOUND.into_response();
    response.headers_mut().insert(header::LOCATION, location);
    response
        .headers_mut()
        .insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(response)
}

/// Whether any `Accept` line holds `json`, which is all that crates.io looks for.
pub(super) struct WantsJson(bool);

impl<S: Sync> FromRequestParts<S> for WantsJson {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Infallible> {
        Ok(Self(wants_json(&parts.headers)))
    }
}

fn wants_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::ACCEPT).iter();
    lines.any(|line| line.as_bytes().windows(4).any(|window| window == b"json"))
}
