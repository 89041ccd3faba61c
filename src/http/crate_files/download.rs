//! `GET /api/v1/crates/{name}/{version}/download`, and the paths that crate files have on crates.io's CDN, for tools that
//! build those: `/crates/{name}/{name}-{version}.crate` and `/crates/{name}/{version}/download`.
//!
//! In the mode `redirect` a pure function of name, version and template, as on crates.io: no look-up, since the index may
//! be minutes behind a publish. Only a template with `{sha256-checksum}` needs the index. In the other modes the mirror
//! sends the file itself (`crate_file`).

use axum::Extension;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::crate_file;
use crate::http::error::ApiError;
use crate::http::index_answer;
use crate::http::state::AppState;
use crate::package::{CrateName, CrateVersion, canonical_order};
use crate::server::{Asked, Exchange};

/// The crate file, or the way to it.
pub(crate) async fn download(
    State(state): State<AppState>,
    Extension(exchange): Extension<Exchange>,
    path: Result<Path<(String, String)>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path((name, version)) = path?;
    send(&state, &exchange, (name, version), &method, &headers).await
}

/// The same for `{name}/{name}-{version}.crate`.
pub(crate) async fn download_file(
    State(state): State<AppState>,
    Extension(exchange): Extension<Exchange>,
    path: Result<Path<(String, String)>, PathRejection>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Path((name, file)) = path?;
    let version = version_in(&name, &file).ok_or(ApiError::NotFound)?;
    let version = version.to_owned();
    send(&state, &exchange, (name, version), &method, &headers).await
}

/// The version in the name of a crate file. It is told from the name of the crate, which may have a `-` itself, and is
/// the same name whatever its case, and whether it is written with `-` or `_`.
fn version_in<'a>(name: &str, file: &'a str) -> Option<&'a str> {
    let (its_name, rest) = file.split_at_checked(name.len())?;
    let version = rest.strip_prefix('-')?.strip_suffix(".crate")?;
    canonical_order(its_name, name).is_eq().then_some(version)
}

async fn send(
    state: &AppState,
    exchange: &Exchange,
    (name, version): (String, String),
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let (name, version) = parse(name, version)?;
    match &state.keeper {
        Some(keeper) => {
            let asking = crate_file::Asking {
                state,
                exchange,
                keeper,
            };
            asking.send((name, version), method, headers).await
        }
        None => redirect(state, exchange, name, version, wants_json(headers)).await,
    }
}

/// The redirect to the crate file, or its URL as JSON for a client that asks for that.
async fn redirect(
    state: &AppState,
    exchange: &Exchange,
    name: CrateName,
    version: CrateVersion,
    wants_json: bool,
) -> Result<Response, ApiError> {
    let template = &state.settings.download;
    if template.needs_checksum() {
        let wanted = (name.clone(), version.clone());
        return index_answer::with_version(state, exchange, wanted, move |_, release, lookup| {
            let missing = || ApiError::version_not_found(&name, &version);
            let checksum = release.line.checksum().ok_or_else(missing)?;
            let template = &lookup.settings.download;
            answer(
                template.expand(&name, &version, Some(&checksum)),
                wants_json,
            )
        })
        .await;
    }
    answer(template.expand(&name, &version, None), wants_json)
}

/// The file or the redirect, for a plain request that can be answered at once; `None` where the router must decide. The
/// answers of both ways are the same.
pub(crate) fn at_once(state: &AppState, asked: &Asked) -> Option<Response> {
    let request = &asked.request;
    if request.method() != Method::GET {
        return None;
    }
    let path = request.uri().path();
    let of_the_cdn = || path.strip_prefix("/crates/");
    let path = path.strip_prefix("/api/v1/crates/").or_else(of_the_cdn)?;
    let (name, version) = path.strip_suffix("/download")?.split_once('/')?;
    // A slash or a percent sign is in no version and no name, so that what is left needs no decoding.
    let version = CrateVersion::try_from(version.to_owned()).ok()?;
    let name = CrateName::try_from(name.to_owned()).ok()?;
    if let Some(keeper) = &state.keeper {
        return crate_file::send_now(state, keeper, (name, version), asked);
    }
    let template = &state.settings.download;
    if template.needs_checksum() || wants_json(request.headers()) {
        return None;
    }
    answer(template.expand(&name, &version, None), false).ok()
}

/// The version is checked first, as on crates.io: a bad one is 400 whatever the name.
pub(crate) fn parse(name: String, version: String) -> Result<(CrateName, CrateVersion), ApiError> {
    let version = CrateVersion::try_from(version)
        .map_err(|not_semver| ApiError::BadRequest(format!("Invalid URL: {not_semver}")))?;
    Ok((parse_name(name)?, version))
}

/// A text that cannot be a crate's name is the name of no crate.
pub(crate) fn parse_name(name: String) -> Result<CrateName, ApiError> {
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
fn wants_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(header::ACCEPT).iter();
    lines.any(|line| line.as_bytes().windows(4).any(|window| window == b"json"))
}
