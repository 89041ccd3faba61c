//! `GET /api/v1/crates/{name}/owners`, `…/owner_user` and `…/owner_team`. The index does not name the owners of a crate, so
//! the lists are empty.

use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::look_up::existing;
use crate::http::crate_in_path::NameInPath;
use crate::http::error::ApiError;
use crate::http::state::RequestState;

/// No users.
#[derive(Serialize, ToSchema)]
pub(crate) struct UsersAnswer {
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    users: [(); 0],
}

/// No teams.
#[derive(Serialize, ToSchema)]
pub(crate) struct TeamsAnswer {
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    teams: [(); 0],
}

/// Lists the owners of a crate. The index names none.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/owners",
    tag = "owners",
    params(("name" = String, Path, example = "itoa")),
    responses((status = 200, body = UsersAnswer, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn list_owners(
    request: RequestState,
    name: NameInPath,
) -> Result<Response, ApiError> {
    existing(request, name.parse()?, None, &UsersAnswer { users: [] }).await
}

/// Lists the users who own a crate. The index names none.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/owner_user",
    tag = "owners",
    params(("name" = String, Path, example = "itoa")),
    responses((status = 200, body = UsersAnswer, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn list_user_owners(
    request: RequestState,
    name: NameInPath,
) -> Result<Response, ApiError> {
    existing(request, name.parse()?, None, &UsersAnswer { users: [] }).await
}

/// Lists the teams that own a crate. The index names none.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/owner_team",
    tag = "owners",
    params(("name" = String, Path, example = "itoa")),
    responses((status = 200, body = TeamsAnswer, headers(("x-index-commit" = String)))),
)]
pub(crate) async fn list_team_owners(
    request: RequestState,
    name: NameInPath,
) -> Result<Response, ApiError> {
    existing(request, name.parse()?, None, &TeamsAnswer { teams: [] }).await
}
