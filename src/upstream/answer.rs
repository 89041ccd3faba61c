//! What an upstream's status means.

use std::time::{Duration, SystemTime};

use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};

use super::fetch::TryError;

/// The longest pause that an upstream may ask for; a day would be a mistake.
const PAUSE_MAX: Duration = Duration::from_secs(600);

/// The pause after an upstream has had enough, where it names none.
const PAUSE_DEFAULT: Duration = Duration::from_secs(2);

/// Takes an answer whose body is the file.
pub(super) fn accept(response: Response, now: SystemTime) -> Result<Response, TryError> {
    match response.status() {
        StatusCode::OK => Ok(response),
        // S3 says 403 where a bucket may not be listed.
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

/// How long an upstream wants to be left alone (RFC 9110, section 10.2.3): seconds, or a date.
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
