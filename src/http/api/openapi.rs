//! `GET /api/openapi.json`: a description of everything under `/api/` and of `/policy`, made from the handlers and the types
//! of the answers.

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::Schema;
use utoipa::openapi::{
    Content, Header, Info, ObjectBuilder, Ref, RefOr, ResponseBuilder, Server, Type,
};
use utoipa::{Modify, OpenApi};

use super::{
    downloads, metadata, not_in_index, owners, reverse_dependencies, search, site_metadata,
    summary, versions,
};
use crate::build_info;
use crate::http::crate_files::download;
use crate::http::error::{ApiError, Envelope};
use crate::http::policy;
use crate::http::semantics::base_url::base_url;
use crate::http::state::RequestState;

/// What a reader should know before anything else.
const DESCRIPTION: &str = "The read half of the web API of crates.io, answered from a copy of its index. \
    What the index does not tell is null, 0 or empty. \
    `HEAD` works wherever `GET` does. \
    Every write is 403. \
    Every error is `{\"errors\":[{\"detail\":\"…\"}]}`. \
    `x-index-commit` names the commit of the index that an answer was made from, and `x-policy` the decisions of the policy. \
    Equal values of both mean equal answers. \
    A version that the policy holds or denies is shown as yanked, with the reason in `yank_message`.";

/// The only fields that may be absent from an answer, with their objects. All others are there, if only as null.
const MAY_BE_ABSENT: [(&str, &str); 2] = [
    ("CrateDownloadsAnswer", "versions"),
    ("VersionsMeta", "release_tracks"),
];

#[derive(OpenApi)]
#[openapi(
    paths(
        downloads::list_crate_downloads,
        downloads::list_version_downloads,
        download::download,
        metadata::list_dependencies,
        metadata::show_crate,
        metadata::show_version,
        not_in_index::list_authors,
        not_in_index::list_categories,
        not_in_index::list_category_slugs,
        not_in_index::list_keywords,
        not_in_index::show_category,
        not_in_index::show_following,
        not_in_index::show_keyword,
        not_in_index::show_me,
        not_in_index::show_mine,
        not_in_index::show_readme,
        not_in_index::show_team,
        not_in_index::show_user,
        not_in_index::show_user_stats,
        owners::list_owners,
        owners::list_team_owners,
        owners::list_user_owners,
        policy::show,
        policy::show_crate,
        policy::show_version,
        reverse_dependencies::list_reverse_dependencies,
        search::search_crates,
        show,
        site_metadata::show_site_metadata,
        summary::show_summary,
        versions::list_versions,
    ),
    components(schemas(Envelope<'_>)),
    modifiers(&Common),
)]
struct Description;

/// The description as JSON, without the address of the mirror. Written once, because that takes milliseconds.
static DESCRIPTION_JSON: LazyLock<serde_json::Result<String>> =
    LazyLock::new(|| serde_json::to_string(&Description::openapi()));

/// Shows this description.
#[utoipa::path(
    get,
    path = "/api/openapi.json",
    tag = "other",
    responses((status = 200, description = "an OpenAPI 3.1 document", body = Object)),
)]
pub(crate) async fn show(
    RequestState { state, exchange }: RequestState,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let url = base_url(&state.settings, &uri, &headers)?;
    let described = DESCRIPTION_JSON.as_ref().map_err(ApiError::internal)?;
    let members = described.strip_prefix('{').unwrap_or(described);
    let server = serde_json::to_string(&Server::new(url)).map_err(ApiError::internal)?;
    // First the account: every client gets a copy.
    let bytes = (server.len() + described.len()) as u64;
    state.account.keep(&exchange, bytes).await?;
    let body = format!("{{\"servers\":[{server}],{members}");
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], body).into_response())
}

/// What holds for all endpoints.
struct Common;

impl Modify for Common {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        description.info = Info::new("crates-io-mirror", build_info::VERSION);
        description.info.description = Some(DESCRIPTION.to_owned());
        for (path, item) in &mut description.paths.paths {
            if let Some(operation) = &mut item.get {
                add_errors(operation, path.contains('{'));
            }
        }
        let components = description.components.iter_mut();
        for (name, schema) in components.flat_map(|components| &mut components.schemas) {
            if let RefOr::T(Schema::Object(object)) = schema {
                let fields = object.properties.keys();
                let is_there =
                    |field: &&String| !MAY_BE_ABSENT.contains(&(name.as_str(), field.as_str()));
                object.required = fields.filter(is_there).cloned().collect();
            }
        }
    }
}

/// The errors that every endpoint may have. `has_name`: whether the path names something that may not exist.
fn add_errors(operation: &mut Operation, has_name: bool) {
    let text = || ObjectBuilder::new().schema_type(Type::String).build();
    let envelope = |description: &str| {
        let content = Content::new(Some(Ref::from_schema_name("Errors")));
        ResponseBuilder::new()
            .description(description)
            .content("application/json", content)
    };
    let bad = envelope("the path, the query or the `Host` is malformed").build();
    let unknown = envelope("there is no such thing").build();
    let later = envelope("the index or the catalog is not there yet, or the mirror is busy")
        .header("retry-after", Header::new(text()))
        .build();
    let responses = &mut operation.responses.responses;
    for response in responses.values_mut() {
        let RefOr::T(response) = response else {
            continue;
        };
        if response.description.is_empty() {
            // OpenAPI asks for one. The schema of the answer says more.
            response.description.push_str("the answer");
        }
        if response.headers.contains_key("x-index-commit") {
            let mut policy = Header::new(text());
            policy.description = Some("absent without a policy that is enforced".to_owned());
            response
                .headers
                .insert("x-policy".to_owned(), RefOr::T(policy));
        }
    }
    responses.insert("400".to_owned(), RefOr::T(bad));
    responses.insert("503".to_owned(), RefOr::T(later));
    if has_name {
        let place = responses.entry("404".to_owned());
        place.or_insert(RefOr::T(unknown));
    }
}
