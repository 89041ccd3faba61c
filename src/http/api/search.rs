//! `GET /api/v1/crates`: search, and lists of crates in several orders.

use axum::extract::RawQuery;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::json::CrateView;
use super::look_up::accounted_json;
use super::pages::{
    PAGE_MAX, PageKinds, PageQuery, PageRequest, PageStart, query_with, read_seek_token, token,
};
use super::query::{ApiQuery, TextWithoutNull, given};
use crate::catalog::{CrateFilter, CrateOrder, CrateSummary, Page, Place, Search, Start};
use crate::http::error::{ApiError, Envelope};
use crate::http::index::index_guard::IndexGuard;
use crate::http::state::RequestState;
use crate::package::canonical_order;

/// How many results of a search by relevance have pages with numbers.
const RELEVANT_MAX: usize = 1_000;

/// What a client searches for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SearchQuery {
    /// A text in the name of a crate. Case does not matter, and `-` equals `_`. A text of one or two bytes matches only at
    /// the beginning of a word.
    #[param(value_type = Option<String>)]
    #[serde(default, deserialize_with = "given")]
    q: Option<TextWithoutNull>,
    /// `relevance` (the default with `q`), `alphabetical` (the default without), `downloads`, `recent-downloads`,
    /// `recent-updates` or `new`. The mirror has no downloads, so it sorts by id instead.
    #[serde(default, deserialize_with = "given")]
    sort: Option<String>,
    /// Any value but `yes` leaves out crates of which every version is yanked.
    #[serde(default, deserialize_with = "given")]
    include_yanked: Option<String>,
    /// The index has no categories: the answer is empty.
    #[param(value_type = Option<String>)]
    #[serde(default, deserialize_with = "given")]
    category: Option<TextWithoutNull>,
    /// The index has no keywords: the answer is empty.
    #[param(value_type = Option<String>)]
    #[serde(default, deserialize_with = "given")]
    all_keywords: Option<TextWithoutNull>,
    /// The index has no keywords: the answer is empty.
    #[param(value_type = Option<String>)]
    #[serde(default, deserialize_with = "given")]
    keyword: Option<TextWithoutNull>,
    /// The first character of the name.
    #[param(value_type = Option<String>, min_length = 1)]
    #[serde(default, deserialize_with = "given")]
    letter: Option<TextWithoutNull>,
    /// The index has no owners: the answer is empty.
    #[serde(default, deserialize_with = "given")]
    user_id: Option<i32>,
    /// The index has no owners: the answer is empty.
    #[serde(default, deserialize_with = "given")]
    team_id: Option<i32>,
    /// Needs a login, which the mirror does not have.
    #[serde(default, deserialize_with = "given")]
    following: Option<String>,
    /// Exact names of crates.
    #[serde(rename = "ids[]", default)]
    #[param(value_type = Vec<String>, required = false)]
    ids: Vec<TextWithoutNull>,
}

/// Crates on a page.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchAnswer<'a> {
    crates: Vec<CrateView<'a>>,
    meta: SearchMeta,
}

/// The pages around this one.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchMeta {
    /// The number of crates on all pages; 0 if this page is empty.
    total: usize,
    /// The query string of the next page; null if this one is not full.
    next_page: Option<String>,
    /// The query string of the page before; null without a `page`.
    prev_page: Option<String>,
}

/// Searches crates by name, or lists crates.
///
/// The answer has only what the index tells: names and versions. `downloads` are 0 and descriptions are null. A filter by
/// keyword, category or owner finds nothing.
#[utoipa::path(
    get,
    path = "/api/v1/crates",
    tag = "crates",
    params(SearchQuery, PageQuery),
    responses(
        (status = 200, body = SearchAnswer<'_>, headers(("x-index-commit" = String))),
        (status = 403, body = Envelope<'_>, description = "`following` needs a login"),
    ),
)]
pub(crate) async fn search_crates(
    request: RequestState,
    ApiQuery(query): ApiQuery<SearchQuery>,
    ApiQuery(pages): ApiQuery<PageQuery>,
    RawQuery(raw_query): RawQuery,
) -> Result<Response, ApiError> {
    let filter = query.filter()?;
    let page = pages.check(PageKinds {
        page_max: Some(PAGE_MAX),
        seek: true,
    })?;
    let page = Paged {
        query: raw_query.unwrap_or_default(),
        page,
    };
    let text = query.text();
    if query.is_by_relevance() && page.page.skip() >= RELEVANT_MAX {
        return Err(ApiError::BadRequest(
            "Cannot page beyond the first 1000 results when sorting by relevance. Please take a look at \
             https://crates.io/data-access for alternatives."
                .to_owned(),
        ));
    }
    let start = match &page.page.start {
        PageStart::Beginning | PageStart::Number(_) => Start::Skip(page.page.skip()),
        PageStart::After(token) => Start::After(read_seek_token(token)?),
    };
    let mut index = IndexGuard::take(request)?;
    let Some(filter) = filter else {
        let nothing = page.answer(0, &[], None, text);
        return Ok(index.mark_repeatable(accounted_json(&index, &nothing).await));
    };
    let search = Search {
        text: text.to_owned(),
        filter,
        include_yanked: query.include_yanked.as_deref().is_none_or(|it| it == "yes"),
        order: query.order(),
        page: Page {
            start,
            limit: page.page.per_page,
        },
    };
    let found = index.state.catalog.search(search).await?;
    index.view = found.view;
    index.count_list(found.crates.iter().map(|found| found.name.as_str()));
    let answer = page.answer(found.total, &found.crates, found.last.as_ref(), text);
    Ok(index.mark_repeatable(accounted_json(&index, &answer).await))
}

impl SearchQuery {
    /// The text to search for; empty for all crates.
    fn text(&self) -> &str {
        self.q.as_ref().map_or("", |TextWithoutNull(text)| text)
    }

    /// The filter. Of several, the first one in this order counts, as on crates.io. `None` if no crate can meet it, because
    /// the index does not tell.
    fn filter(&self) -> Result<Option<CrateFilter>, ApiError> {
        let letter = match &self.letter {
            None => None,
            Some(TextWithoutNull(text)) => Some(text.chars().next().ok_or_else(|| {
                ApiError::BadRequest("letter value must contain 1 character".to_owned())
            })?),
        };
        if self.following.is_some() {
            return Err(ApiError::NeedsLogin);
        }
        if self.category.is_some() || self.all_keywords.is_some() || self.keyword.is_some() {
            return Ok(None);
        }
        if let Some(letter) = letter {
            return Ok(Some(CrateFilter::Letter(letter)));
        }
        if self.user_id.is_some() || self.team_id.is_some() {
            return Ok(None);
        }
        if self.ids.is_empty() {
            return Ok(Some(CrateFilter::None));
        }
        let names = self.ids.iter().map(|TextWithoutNull(name)| name.clone());
        Ok(Some(CrateFilter::Names(names.collect())))
    }

    /// Whether crates.io would sort by relevance. The mirror then sorts by name: nothing in the index ranks names.
    fn is_by_relevance(&self) -> bool {
        !self.text().is_empty() && self.sort.as_deref().is_none_or(|sort| sort == "relevance")
    }

    fn order(&self) -> CrateOrder {
        match self.sort.as_deref() {
            // No crate has downloads, so only the order among equals is left.
            Some("downloads" | "recent-downloads") => CrateOrder::Id,
            Some("recent-updates") => CrateOrder::Updated,
            Some("new") => CrateOrder::Created,
            _ => CrateOrder::Name,
        }
    }
}

/// A page and the query that asked for it.
struct Paged {
    query: String,
    page: PageRequest,
}

impl Paged {
    fn answer<'a>(
        &self,
        total: usize,
        crates: &'a [CrateSummary],
        last: Option<&Place>,
        text: &str,
    ) -> SearchAnswer<'a> {
        let is_exact = |found: &CrateSummary| canonical_order(&found.name, text).is_eq();
        let views = crates
            .iter()
            .map(|found| CrateView::in_list(found, is_exact(found)));
        let is_full = self.page.is_full(crates.len());
        let (next_page, prev_page) = match (&self.page.start, last) {
            (PageStart::Number(page), _) => (
                is_full.then(|| self.page_number(page.saturating_add(1))),
                (*page > 1).then(|| self.page_number(page.saturating_sub(1))),
            ),
            (_, Some(last)) if is_full => {
                (Some(query_with(&self.query, "seek", &token(last))), None)
            }
            (_, _) => (None, None),
        };
        SearchAnswer {
            crates: views.collect(),
            meta: SearchMeta {
                total: if crates.is_empty() { 0 } else { total },
                next_page,
                prev_page,
            },
        }
    }

    fn page_number(&self, number: u32) -> String {
        query_with(&self.query, "page", &number.to_string())
    }
}
