//! Pages of long lists: the parameters `page`, `per_page` and `seek`, and the queries of the pages around one.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::form_urlencoded;
use utoipa::IntoParams;

use super::query::given;
use crate::http::error::ApiError;

/// The most entries on one page.
const PER_PAGE_MAX: u32 = 100;

/// The entries on a page whose query does not say how many.
const PER_PAGE_DEFAULT: u32 = 10;

/// The highest number of a page of search and of reverse dependencies.
pub(super) const PAGE_MAX: u32 = 200;

/// Which page of a list a client wants.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PageQuery {
    /// The number of the page, beginning with 1. It excludes `seek`.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    #[serde(default, deserialize_with = "given")]
    page: Option<NonZeroU32>,
    /// The number of entries on a page: 10 by default.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 100)]
    #[serde(default, deserialize_with = "given")]
    pub(super) per_page: Option<NonZeroU32>,
    /// The token of a page, from `meta.next_page` of the page before. It excludes `page`.
    #[serde(default, deserialize_with = "given")]
    seek: Option<String>,
}

/// Which kinds of pages an endpoint has.
#[derive(Clone, Copy, Debug)]
pub(super) struct PageKinds {
    /// The highest number of a page; `None` for pages without numbers.
    pub(super) page_max: Option<u32>,
    /// Whether a page can begin after the last entry of another one.
    pub(super) seek: bool,
}

/// The page that a client wants, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageRequest {
    pub(super) start: PageStart,
    /// The number of entries at most.
    pub(super) per_page: usize,
}

/// Where a page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PageStart {
    /// With the first entry. The query does not say how to go on.
    Beginning,
    /// The page has this number, beginning with 1.
    Number(u32),
    /// After the entry that this token names.
    After(String),
}

impl PageQuery {
    /// Checks the query in the order of crates.io.
    pub(super) fn check(self, kinds: PageKinds) -> Result<PageRequest, ApiError> {
        let bad = |text: &str| Err(ApiError::BadRequest(text.to_owned()));
        let start = match (self.page, self.seek) {
            (Some(_), Some(_)) => return bad("providing both ?page= and ?seek= is unsupported"),
            (None, None) => PageStart::Beginning,
            (Some(page), None) => match kinds.page_max {
                None => return bad("?page= is not supported for this request"),
                Some(max) if page.get() > max => {
                    return bad(&format!(
                        "Page {page} is unavailable for performance reasons. Please take a look at \
                         https://crates.io/data-access for alternatives."
                    ));
                }
                Some(_) => PageStart::Number(page.get()),
            },
            (None, Some(_)) if !kinds.seek => {
                return bad("?seek= is not supported for this request");
            }
            (None, Some(token)) => PageStart::After(token),
        };
        let per_page = self.per_page.map_or(PER_PAGE_DEFAULT, NonZeroU32::get);
        if per_page > PER_PAGE_MAX {
            return bad("cannot request more than 100 items");
        }
        Ok(PageRequest {
            start,
            per_page: usize::try_from(per_page).unwrap_or(usize::MAX),
        })
    }
}

impl PageRequest {
    /// How many entries come before a page with a number.
    pub(super) fn skip(&self) -> usize {
        let page = match self.start {
            PageStart::Number(page) => page,
            PageStart::Beginning | PageStart::After(_) => 1,
        };
        let pages_before = usize::try_from(page.saturating_sub(1)).unwrap_or(usize::MAX);
        pages_before.saturating_mul(self.per_page)
    }

    /// Whether a page with so many entries is full. A full page has a next one, even if nothing comes after it.
    pub(super) fn is_full(&self, entries: usize) -> bool {
        entries == self.per_page
    }
}

/// A value as the text of a token, which clients do not look into.
pub(in crate::http) fn token(value: &impl Serialize) -> String {
    // Numbers and texts can always be serialised.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(value).unwrap_or_default())
}

/// What a token was made from.
pub(in crate::http) fn read_token<T: DeserializeOwned>(token: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(token).ok()?;
    serde_json::from_slice(&json).ok()
}

/// What the token of the parameter `seek` was made from.
pub(super) fn read_seek_token<T: DeserializeOwned>(token: &str) -> Result<T, ApiError> {
    read_token(token).ok_or_else(|| ApiError::BadRequest("invalid seek parameter".to_owned()))
}

/// A query string with another value for one parameter: the others keep their order, and this one comes last.
pub(super) fn query_with(query: &str, key: &str, value: &str) -> String {
    let mut changed = form_urlencoded::Serializer::for_suffix(String::from("?"), 1);
    changed.extend_pairs(form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != key));
    changed.append_pair(key, value).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_of_another_page_keeps_the_other_parameters_in_their_order() {
        for (query, expected) in [
            ("", "?page=3"),
            ("page=2&per_page=1", "?per_page=1&page=3"),
            (
                "ids[]=foo&per_page=1&page=2",
                "?ids%5B%5D=foo&per_page=1&page=3",
            ),
            ("q=a%20b+c&page=2&page=9", "?q=a+b+c&page=3"),
        ] {
            assert_eq!(query_with(query, "page", "3"), expected);
        }
    }

    #[test]
    fn a_token_gives_back_what_it_was_made_from() {
        assert_eq!(token(&2), "Mg");
        assert_eq!(read_seek_token::<i32>("Mg").unwrap(), 2);
        for bad in ["", "!", "Mg==", "W10"] {
            assert!(read_seek_token::<i32>(bad).is_err(), "{bad}");
        }
    }
}
