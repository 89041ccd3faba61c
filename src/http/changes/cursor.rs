//! Where a client of the feed has come to, and how its requests say that.

use std::fmt;
use std::str::FromStr;

use chrono::DateTime;

use crate::catalog::PublishPlace;
use crate::http::api::pages::{read_token, token};
use crate::http::error::ApiError;
use crate::journal::StepCursor;

/// A place in the feed. Clients treat its text as opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    /// After a step of the journal.
    Step(StepCursor),
    /// In the list of versions by publish time. After the end of the list the journal goes on.
    Publish(PublishPlace, StepCursor),
}

/// Where a client wants to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// At the end: it has nothing yet.
    Now,
    /// After a place.
    Cursor(Cursor),
    /// With the versions that were published at this time and later. Seconds since 1970.
    Time(i64),
}

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotACursor;

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Step(step) => step.fmt(formatter),
            Self::Publish(place, step) => {
                formatter.write_str(&token(&(step.number, step.mark, place)))
            }
        }
    }
}

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        if let Ok(step) = text.parse() {
            return Ok(Self::Step(step));
        }
        let (number, mark, place) = read_token(text).ok_or(NotACursor)?;
        Ok(Self::Publish(place, StepCursor { number, mark }))
    }
}

impl Since {
    /// What the parameter `since` says.
    ///
    /// # Errors
    /// 400 for a time that is none, and 410 for everything else that is no cursor: the mirror made every cursor, so it does
    /// not know this one.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, ApiError> {
        let Some(text) = text else {
            return Ok(Self::Now);
        };
        if let Ok(cursor) = text.parse() {
            return Ok(Self::Cursor(cursor));
        }
        // Clients forget to encode the plus sign of an offset. The query has a space then.
        let time = DateTime::parse_from_rfc3339(&text.replace(' ', "+"));
        if let Ok(time) = time {
            // Publish times have whole seconds, so a part of one more begins with the next one.
            let begun = i64::from(time.timestamp_subsec_nanos() > 0);
            return Ok(Self::Time(time.timestamp() + begun));
        }
        if text.is_empty() || is_like_a_date(text) {
            return Err(ApiError::BadRequest(
                "since must be a cursor of an earlier answer, or a time like 2026-01-01T00:00:00Z"
                    .to_owned(),
            ));
        }
        Err(ApiError::CursorGone)
    }
}

/// Whether a text begins like a date, and was probably meant to be a time.
fn is_like_a_date(text: &str) -> bool {
    let mut bytes = text.bytes();
    let year = bytes.by_ref().take(4).filter(u8::is_ascii_digit).count();
    year == 4 && bytes.next() == Some(b'-')
}

#[cfg(test)]
mod tests {
    use axum::http::StatusCode;
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_cursor_is_what_its_text_says() {
        let step = StepCursor {
            number: 3,
            mark: -7,
        };
        let place = PublishPlace {
            time: 1_764_201_600,
            file: "serde".to_owned(),
            version: "1.0.0+a".to_owned(),
        };
        for cursor in [Cursor::Step(step), Cursor::Publish(place, step)] {
            let text = cursor.to_string();
            assert_eq!(text.parse(), Ok(cursor.clone()));
            assert_eq!(Since::parse(Some(&text)).unwrap(), Since::Cursor(cursor));
            let needs_no_encoding =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            assert!(text.bytes().all(needs_no_encoding), "{text}");
        }
    }

    #[test]
    fn since_is_a_time_a_cursor_or_nothing() {
        assert_eq!(Since::parse(None).unwrap(), Since::Now);
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01T00:00:01.000Z", 1),
            ("1970-01-01T00:00:01.5Z", 2),
            ("1970-01-01T01:00:00+01:00", 0),
            ("1970-01-01T01:00:00 01:00", 0),
            ("2026-11-27t00:00:00z", 1_795_737_600),
        ] {
            assert_eq!(
                Since::parse(Some(text)).unwrap(),
                Since::Time(seconds),
                "{text}"
            );
        }
        for (text, status) in [
            ("", StatusCode::BAD_REQUEST),
            ("2026-01-01", StatusCode::BAD_REQUEST),
            ("2026-13-01T00:00:00Z", StatusCode::BAD_REQUEST),
            ("2026-01-01T00:00:00", StatusCode::BAD_REQUEST),
            ("yesterday", StatusCode::GONE),
            ("3", StatusCode::GONE),
            ("W10", StatusCode::GONE),
            ("é", StatusCode::GONE),
        ] {
            let refused = Since::parse(Some(text)).unwrap_err();
            assert_eq!(refused.into_response().status(), status, "{text}");
        }
    }
}
