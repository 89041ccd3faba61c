//! The time in `GET /at/{time}/index/config.json` and `GET /at/{time}/index/{path}`: the sparse index as of a time.
//!
//! A file has the lines that were published by then, byte for byte. They come from the current view, so the rules and the
//! yanked flags are those of now: time travel is no way around the rules.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::NaiveDate;
use percent_encoding::percent_decode_str;

use super::index_guard::IndexGuard;
use crate::http::error::ApiError;
use crate::package::Timestamp;

/// The text for a path whose time is malformed.
const USAGE: &str = "use /at/2026-01-01/index/ or /at/2026-01-01T00:00:00Z/index/";

/// The time in a path; `None` without one. It is read apart from the rest, so that it is refused whatever follows it.
#[derive(Debug)]
pub(in crate::http) struct TimeInPath(pub(super) Option<Timestamp>);

impl<S: Send + Sync> FromRequestParts<S> for TimeInPath {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        // Every route with a time has it behind `/at/`.
        let Some(path) = parts.uri.path().strip_prefix("/at/") else {
            return Ok(Self(None));
        };
        let time = path.split('/').next().unwrap_or_default();
        let time = percent_decode_str(time).decode_utf8().ok();
        let time = time.and_then(|time| parse(&time));
        let bad = || ApiError::BadRequest(USAGE.to_owned());
        Ok(Self(Some(time.ok_or_else(bad)?)))
    }
}

impl TimeInPath {
    /// Refuses a time of which the mirror does not know the index yet.
    pub(super) fn check(&self, index: &IndexGuard) -> Result<(), ApiError> {
        let now = index.view.policy_time();
        match &self.0 {
            Some(time) if now.is_none_or(|now| *time > now) => {
                Err(ApiError::BadRequest(format!("{time} is in the future")))
            }
            _ => Ok(()),
        }
    }
}

/// A time as people write it: a day means its first second.
fn parse(text: &str) -> Option<Timestamp> {
    let day = text.get(..10)?;
    let time = match text.len() {
        10 => Timestamp::try_from(format!("{day}T00:00:00Z")),
        _ => Timestamp::try_from(text.to_owned()),
    };
    // A typing error such as 2026-02-30 would otherwise mean some day of March.
    let is_in_calendar = NaiveDate::parse_from_str(day, "%Y-%m-%d").is_ok();
    time.ok().filter(|_| is_in_calendar)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_day_or_a_second_in_utc() {
        for (text, expected) in [
            ("2026-01-01", "2026-01-01T00:00:00Z"),
            ("2024-02-29", "2024-02-29T00:00:00Z"),
            ("2026-03-31T12:34:56Z", "2026-03-31T12:34:56Z"),
            ("2016-12-31T23:59:60Z", "2016-12-31T23:59:60Z"),
            ("0001-01-01", "0001-01-01T00:00:00Z"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), expected, "{text}");
        }
        for bad in [
            "",
            "now",
            "2026",
            "2026-01",
            "2026-1-1",
            "2026-13-01",
            "2026-02-30",
            "2025-02-29T00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01t00:00:00z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.5Z",
            "2026-01-01T00:00:00+00:00",
            " 2026-01-01",
            "2026-01-01Z",
            "2026-01-01/",
            "+026-01-01",
            "20260101T0",
            "1767225600",
            "２026-01-01",
            "2026-01-0１",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
