//! The meaning of an upstream's answer: a crate file, or why this try failed.

use std::time::{Duration, SystemTime};

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};

use crate::package::Checksum;

/// The longest pause that an upstream can ask for. A day would be an error of the upstream.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// The pause for an upstream that is busy and names none.
const PAUSE_DEFAULT: Duration = Duration::from_secs(2);

/// Why a file could not be fetched, by what to do next. `E` is the error of the receiver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchError<E> {
    /// No upstream has the file.
    #[error("no upstream has it")]
    Missing,
    /// The bytes do not have the checksum of the index.
    #[error("the checksum of what came is {actual}, the index says {expected}")]
    Corrupt {
        /// The checksum in the index.
        expected: Checksum,
        /// The checksum of the bytes.
        actual: Checksum,
    },
    /// An upstream did not answer in time.
    #[error("an upstream timed out")]
    TimedOut,
    /// An upstream asks for a pause.
    #[error("an upstream has too much to do")]
    Busy(Duration),
    /// An upstream cannot be reached, or answers with an error. Another try may help.
    #[error("{0}")]
    Transient(String),
    /// The same, and another try does not help.
    #[error("{0}")]
    Useless(String),
    /// The receiver could not take the bytes.
    #[error("the bytes could not be written")]
    Receiver(E),
}

/// Accepts an answer whose body is the file.
pub(super) fn accept<E>(response: Response, now: SystemTime) -> Result<Response, FetchError<E>> {
    Err(match response.status() {
        StatusCode::OK => return Ok(response),
        // S3 answers 403 for a missing file if the bucket may not be listed.
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => FetchError::Missing,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            FetchError::Busy(pause(&response, now))
        }
        status if status.is_server_error() || status == StatusCode::REQUEST_TIMEOUT => {
            FetchError::Transient(format!("it answered {status}"))
        }
        status => FetchError::Useless(format!("it answered {status}")),
    })
}

/// The pause that an upstream asks for in `Retry-After` (RFC 9110, section 10.2.3): seconds, or a date.
fn pause(response: &Response, now: SystemTime) -> Duration {
    let text = response.headers().get(RETRY_AFTER);
    let text = text
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let pause = match text.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_not_seconds) => match httpdate::parse_http_date(text.trim()) {
            Ok(then) => then.duration_since(now).unwrap_or_default(),
            Err(_nothing) => PAUSE_DEFAULT,
        },
    };
    pause.min(PAUSE_MAX)
}
