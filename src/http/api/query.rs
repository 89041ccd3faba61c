//! The query strings of the API, with crates.io's error texts.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum_extra::extract::Query;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};

use crate::http::error::ApiError;

/// A query string, read into a struct. A failure is crates.io's: `Failed to deserialize query string: …`.
pub(in crate::http) struct ApiQuery<T>(pub(in crate::http) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ApiQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = Query::from_request_parts(parts, state).await;
        let Query(query) = query.map_err(|bad| ApiError::BadRequest(bad.body_text()))?;
        Ok(Self(query))
    }
}

/// A parameter that is there, even if its value is empty. By itself the library takes an empty value for none.
pub(in crate::http) fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// A text without a null byte. crates.io's database cannot store one, so its API refuses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextWithoutNull(pub(crate) String);

impl<'de> Deserialize<'de> for TextWithoutNull {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.contains('\0') {
            return Err(D::Error::custom("string contains null byte"));
        }
        Ok(Self(text))
    }
}

/// Refuses each part of `?include=`, a list with commas, that is not `allowed`. Empty parts mean nothing.
pub(super) fn check_include(text: Option<&str>, allowed: &str) -> Result<bool, ApiError> {
    let mut is_included = false;
    for part in text.unwrap_or_default().split(',') {
        if part == allowed {
            is_included = true;
        } else if !part.is_empty() {
            return Err(ApiError::BadRequest(format!(
                "invalid component for ?include= (expected '{allowed}')"
            )));
        }
    }
    Ok(is_included)
}
