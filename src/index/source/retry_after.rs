//! Reads the `Retry-After` header that a git host sends with status 429 or 503.
//!
//! libgit2 has no function for response headers, but its trace shows each piece of a response. So the mirror honours
//! `Retry-After` without a second request to an overloaded host.

use std::cell::RefCell;
use std::time::{Duration, SystemTime};

use git2::{TraceLevel, trace_set};

/// The beginning of a trace message with received bytes.
const RECEIVED: &[u8] = b"Received:\n";

/// The beginning of a response head.
const STATUS_LINE: &[u8] = b"HTTP/1.";

/// The end of a response head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// The bytes of a head that are kept.
const HEAD_BYTES_MAX: usize = 8 * 1024;

/// The longest pause that the mirror honours: the default of `MAX_STALENESS_SECS`.
const PAUSE_MAX: Duration = Duration::from_secs(3_600);

thread_local! {
    /// The head of the last response on this thread.
    static HEAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Turns on libgit2's trace. Must be called before the first fetch.
pub(crate) fn watch() {
    // libgit2 calls this on the thread of the transfer, so a thread-local keeps transfers apart.
    let _no_trace = trace_set(TraceLevel::Trace, |_level, message| {
        if let Some(received) = message.strip_prefix(RECEIVED) {
            note(received);
        }
    });
}

/// Forgets the responses of earlier transfers of this thread.
pub(crate) fn forget() {
    HEAD.with_borrow_mut(Vec::clear);
}

/// The value of `Retry-After`, if the last response on this thread has status 429 or 503.
pub(super) fn of_last_answer() -> Option<String> {
    HEAD.with_borrow(|head| value_in(head))
}

/// Collects the pieces of a head. Ignores the body, which follows it.
fn note(received: &[u8]) {
    HEAD.with_borrow_mut(|head| {
        if received.starts_with(STATUS_LINE) {
            head.clear();
        // Ignores bytes before the first head, and bytes after the end of a head, which are the body.
        } else if head.is_empty() || head.windows(HEAD_END.len()).any(|end| end == HEAD_END) {
            return;
        }
        let free = HEAD_BYTES_MAX.saturating_sub(head.len());
        head.extend(received.iter().take(free));
    });
}

fn value_in(head: &[u8]) -> Option<String> {
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?;
    if !matches!(status, "429" | "503") {
        return None;
    }
    let mut headers = lines.take_while(|line| !line.is_empty());
    headers.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_wanted = name.eq_ignore_ascii_case("retry-after");
        is_wanted.then(|| value.trim().to_owned())
    })
}

/// The pause of a `Retry-After` value (RFC 9110, section 10.2.3): seconds, or a date.
pub(crate) fn pause_of(value: &str, now: SystemTime) -> Option<Duration> {
    let pause = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_not_seconds) => {
            let then = httpdate::parse_http_date(value).ok()?;
            // A date in the past asks for no pause.
            then.duration_since(now).unwrap_or_default()
        }
    };
    Some(pause.min(PAUSE_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_head_of_the_last_response_sets_the_pause() {
        forget();
        for (pieces, expected) in [
            (
                &["HTTP/1.1 429 Too Many Requests\r\nRetry-After: 120\r\n\r\nbody"][..],
                Some("120"),
            ),
            (
                &["HTTP/1.1 503 x\r\na: b\r\nretry-", "after:7\r\n\r\n"],
                Some("7"),
            ),
            (&["HTTP/1.1 200 OK\r\nRetry-After: 120\r\n\r\n"], None),
            (&["HTTP/1.1 503 x\r\n\r\nRetry-After: 120\r\n\r\n"], None),
            (
                &["HTTP/1.1 503 x\r\n\r\n", "Retry-After: 120\r\n\r\n"],
                None,
            ),
            (
                &[
                    "HTTP/1.1 503 x\r\nRetry-After: 1\r\n\r\n",
                    "HTTP/1.1 200 OK\r\n\r\n",
                ],
                None,
            ),
            (&["HTTP/1.1"], None),
        ] {
            for piece in pieces {
                note(piece.as_bytes());
            }
            assert_eq!(of_last_answer().as_deref(), expected, "{pieces:?}");
        }
        note(b"HTTP/1.1 503 x\r\n");
        for _ in 0..3 * HEAD_BYTES_MAX {
            note(b"x");
        }
        assert_eq!(HEAD.with_borrow(Vec::len), HEAD_BYTES_MAX);
        forget();
        assert_eq!(of_last_answer(), None);
    }

    #[test]
    fn a_pause_is_seconds_or_a_date_and_bounded() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (value, expected) in [
            ("120", seconds(120)),
            ("0", seconds(0)),
            ("86400", Some(PAUSE_MAX)),
            ("Sun, 09 Sep 2001 01:47:40 GMT", seconds(60)),
            ("Sun, 09 Sep 2001 01:40:00 GMT", seconds(0)),
            ("Sun, 09 Sep 2091 01:40:00 GMT", Some(PAUSE_MAX)),
            ("", None),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(pause_of(value, now), expected, "{value}");
        }
    }
}
