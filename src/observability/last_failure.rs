//! Failures that last, such as an upstream that is down or a full disk: the log tells of each one once, and of its end.
//!
//! A task that tries again every minute would otherwise write the same line 1,440 times a day. `/readyz` and `/metrics` say
//! that a failure lasts.

use std::fmt::Display;

use parking_lot::Mutex;

/// The last failure of one kind of work.
#[derive(Debug, Default)]
pub(crate) struct LastFailure(Mutex<Option<String>>);

impl LastFailure {
    /// Notes a failure. Returns whether it is another one than the last time.
    pub(crate) fn note_failure(&self, why: &str) -> bool {
        let mut last = self.0.lock();
        let is_news = last.as_deref() != Some(why);
        if is_news {
            *last = Some(why.to_owned());
        }
        is_news
    }

    /// Notes a success. Returns whether it ends a failure.
    pub(crate) fn note_success(&self) -> bool {
        self.0.lock().take().is_some()
    }

    /// Notes an outcome. Returns the text of a failure that is news.
    pub(crate) fn news_of<T>(&self, outcome: &Result<T, impl Display>) -> Option<String> {
        match outcome {
            Ok(_) => {
                self.note_success();
                None
            }
            Err(error) => Some(error.to_string()).filter(|why| self.note_failure(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_news_once_and_its_end_as_well() {
        let last = LastFailure::default();
        assert!(!last.note_success());
        let seen = ["down", "down", "full", "full", "down"].map(|why| last.note_failure(why));
        assert_eq!(seen, [true, false, true, false, true]);
        assert!(last.note_success() && !last.note_success());
        assert!(last.note_failure("down"));
        let outcomes = [Err("down"), Err("full"), Ok(()), Err("full")];
        let news = outcomes.map(|outcome| last.news_of(&outcome));
        assert_eq!(
            news,
            [None, Some("full".to_owned()), None, Some("full".to_owned())]
        );
    }
}
