//! The meaning of an upstream's answer: a crate file, or why this try failed.

use std::time::{Duration, SystemTime};

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};

use crate::package::Checksum;

/// The longest pause that an upstream can ask for. A day would be an error of the upstream.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// The pause for an upstream that is busy and names none.
const PAUSE_DEFAULT: Duration = Duration::from_secs(2);

/// Why one try failed, by what to do next.
#[derive(Debug)]
pub(super) enum TryError {
    /// There is no such file at this upstream.
    Missing,
    /// The bytes have another checksum.
    Corrupt { actual: Checksum },
    /// It did not send anything in time.
    TimedOut,
    /// It asks for a pause.
    Busy(Duration),
    /// Another try may help.
    Transient(String),
    /// Another try does not help.
    Useless(String),
}

/// Accepts an answer whose body is the file.
pub(super) fn accept(response: Response, now: SystemTime) -> Result<Response, TryError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        // S3 answers 403 for a missing file if the bucket may not be listed.
        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => Err(TryError::Missing),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Err(TryError::Busy(pause(&response, now)))
        }
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Err(TryError::Transient(
            format!("it answered {}", response.status()),
        )),
        status if status.is_server_error() => {
            Err(TryError::Transient(format!("it answered {status}")))
        }
        status => Err(TryError::Useless(format!("it answered {status}"))),
    }
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
