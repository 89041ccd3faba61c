//! Endpoints about what no index tells: keywords, categories, users, authors, readmes and accounts. Their answers are
//! constants, and need no index.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::look_up::json;
use super::pages::{PageKinds, PageQuery};
use super::query::ApiQuery;
use crate::http::crate_in_path::{NameInPath, VersionInPath};
use crate::http::error::{ApiError, Envelope};

/// Pages of keywords and categories.
const PAGES: PageKinds = PageKinds {
    page_max: Some(u32::MAX),
    seek: false,
};

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SortQuery {
    /// `alpha` or `crates`. It makes no difference.
    #[serde(rename = "sort")]
    #[expect(
        dead_code,
        reason = "it is read so that two of them are refused, and so that it is documented"
    )]
    sort: Option<String>,
}

#[derive(Default, Serialize, ToSchema)]
pub(crate) struct NoneInTotal {
    /// Always 0.
    total: u32,
}

/// No keywords.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct KeywordsAnswer {
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    keywords: [(); 0],
    meta: NoneInTotal,
}

/// No categories.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct CategoriesAnswer {
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    categories: [(); 0],
    meta: NoneInTotal,
}

/// No categories.
#[derive(Serialize, ToSchema)]
pub(crate) struct CategorySlugsAnswer {
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    category_slugs: [(); 0],
}

/// The downloads of a user.
#[derive(Serialize, ToSchema)]
pub(crate) struct UserStatsAnswer {
    /// Always 0.
    total_downloads: u64,
}

/// No authors.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct AuthorsAnswer {
    /// Always empty.
    #[schema(value_type = Vec<Object>)]
    users: [(); 0],
    meta: AuthorNames,
}

#[derive(Default, Serialize, ToSchema)]
pub(crate) struct AuthorNames {
    /// Always empty.
    #[schema(value_type = Vec<String>)]
    names: [(); 0],
}

/// Lists keywords. The index has none.
#[utoipa::path(
    get,
    path = "/api/v1/keywords",
    tag = "other",
    params(SortQuery, PageQuery),
    responses((status = 200, body = KeywordsAnswer)),
)]
pub(crate) async fn list_keywords(
    ApiQuery(_sort): ApiQuery<SortQuery>,
    ApiQuery(pages): ApiQuery<PageQuery>,
) -> Result<Response, ApiError> {
    pages.check(PAGES)?;
    json(&KeywordsAnswer::default())
}

/// Lists categories. The index has none.
#[utoipa::path(
    get,
    path = "/api/v1/categories",
    tag = "other",
    params(SortQuery, PageQuery),
    responses((status = 200, body = CategoriesAnswer)),
)]
pub(crate) async fn list_categories(
    ApiQuery(_sort): ApiQuery<SortQuery>,
    ApiQuery(pages): ApiQuery<PageQuery>,
) -> Result<Response, ApiError> {
    pages.check(PAGES)?;
    json(&CategoriesAnswer::default())
}

/// Lists the identifiers of categories. The index has none.
#[utoipa::path(
    get,
    path = "/api/v1/category_slugs",
    tag = "other",
    responses((status = 200, body = CategorySlugsAnswer)),
)]
pub(crate) async fn list_category_slugs() -> Result<Response, ApiError> {
    json(&CategorySlugsAnswer { category_slugs: [] })
}

/// Shows a keyword. The index has none.
#[utoipa::path(
    get,
    path = "/api/v1/keywords/{keyword}",
    tag = "other",
    params(("keyword" = String, Path)),
    responses((status = 404, body = Envelope<'_>, description = "always")),
)]
pub(crate) async fn show_keyword(_name: NameInPath) -> ApiError {
    ApiError::NotFound
}

/// Shows a category. The index has none.
#[utoipa::path(
    get,
    path = "/api/v1/categories/{category}",
    tag = "other",
    params(("category" = String, Path)),
    responses((status = 404, body = Envelope<'_>, description = "always")),
)]
pub(crate) async fn show_category(_name: NameInPath) -> ApiError {
    ApiError::NotFound
}

/// Shows a user. The index names none.
#[utoipa::path(
    get,
    path = "/api/v1/users/{login}",
    tag = "owners",
    params(("login" = String, Path)),
    responses((status = 404, body = Envelope<'_>, description = "always")),
)]
pub(crate) async fn show_user(_name: NameInPath) -> ApiError {
    ApiError::NotFound
}

/// Shows a team. The index names none.
#[utoipa::path(
    get,
    path = "/api/v1/teams/{login}",
    tag = "owners",
    params(("login" = String, Path)),
    responses((status = 404, body = Envelope<'_>, description = "always")),
)]
pub(crate) async fn show_team(_name: NameInPath) -> ApiError {
    ApiError::NotFound
}

/// Shows the downloads of a user's crates. The mirror counts none.
#[utoipa::path(
    get,
    path = "/api/v1/users/{login}/stats",
    tag = "owners",
    params(("login" = i32, Path, description = "the id of a user")),
    responses((status = 200, body = UserStatsAnswer)),
)]
pub(crate) async fn show_user_stats(
    path: Result<Path<i32>, PathRejection>,
) -> Result<Response, ApiError> {
    path?;
    json(&UserStatsAnswer { total_downloads: 0 })
}

/// Lists the authors of a version. crates.io has none any more, and does not look whether there is such a version.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/{version}/authors",
    tag = "versions",
    params(("name" = String, Path, example = "itoa"), ("version" = String, Path, example = "1.0.0")),
    responses((status = 200, body = AuthorsAnswer)),
)]
pub(crate) async fn list_authors() -> Result<Response, ApiError> {
    json(&AuthorsAnswer::default())
}

/// Shows the readme of a version. The mirror has none.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/{version}/readme",
    tag = "versions",
    params(("name" = String, Path, example = "itoa"), ("version" = String, Path, example = "1.0.0")),
    responses((status = 404, body = Envelope<'_>, description = "always")),
)]
pub(crate) async fn show_readme(_wanted: VersionInPath) -> ApiError {
    ApiError::NotFound
}

/// Shows whether the user follows a crate. The mirror has no users.
#[utoipa::path(
    get,
    path = "/api/v1/crates/{name}/following",
    tag = "accounts",
    params(("name" = String, Path, example = "itoa")),
    responses((status = 403, body = Envelope<'_>, description = "always")),
)]
pub(crate) async fn show_following() -> ApiError {
    ApiError::NeedsLogin
}

/// Shows the user. The mirror has no users.
#[utoipa::path(
    get,
    path = "/api/v1/me",
    tag = "accounts",
    responses((status = 403, body = Envelope<'_>, description = "always")),
)]
pub(crate) async fn show_me() -> ApiError {
    ApiError::NeedsLogin
}

/// Shows what belongs to the user: tokens, updates, invitations. The mirror has no users.
#[utoipa::path(
    get,
    path = "/api/v1/me/{path}",
    tag = "accounts",
    params(("path" = String, Path, description = "any further path")),
    responses((status = 403, body = Envelope<'_>, description = "always")),
)]
pub(crate) async fn show_mine() -> ApiError {
    ApiError::NeedsLogin
}
