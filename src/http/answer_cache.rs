//! Answers of the web API in memory, as long as nothing can change them.
//!
//! An answer depends on the question, the view, and the sizes of the stored crate files. As long as all of these stay, it is
//! sent again, whoever asks. That costs no permit and no look at the index (`benches/compare/api.sh`).

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::bounded_cache::{BoundedCache, Weighed, bounded};
use crate::index::View;

/// All answers together, in bytes.
const CACHE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The number of answers for which the cache is made.
const TYPICAL_ANSWERS: usize = 1_024;

/// A larger answer is made anew each time. The largest real one, with all versions of a crate, has two megabytes.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// What an answer takes besides its body, with its question.
const ENTRY_BYTES: usize = 1_536;

/// Few parts, so that the largest answer fits into one.
const CACHE_PARTS: usize = 2;

/// What an answer was made from: an extension of the response.
#[derive(Clone, Debug)]
pub(crate) struct MadeFrom {
    /// The view.
    pub(crate) view: Arc<View>,
    /// What was counted for it.
    pub(crate) counted: PolicyStates,
}

/// Whether an answer shows versions that are held, denied and frozen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PolicyStates(pub(super) [bool; 3]);

/// An answer that has this among its extensions has more the next time, so it is made anew.
#[derive(Clone, Debug)]
pub(crate) struct NotYetComplete;

/// What stands for the sizes of the stored crate files. What this process stores counts at once. Other processes may store
/// files, too, so no answer is older than a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// How many files are stored.
    pub(super) stored_files: u64,
    /// How many bytes they have.
    pub(super) stored_bytes: u64,
    /// The time, in seconds.
    pub(super) second: u64,
}

/// The answers that were made from one view: the newest one when the last question came.
#[derive(Debug, Default)]
pub(crate) struct AnswerCache(ArcSwapOption<ViewAnswers>);

/// The answers of one view.
#[derive(Debug)]
pub(super) struct ViewAnswers {
    /// As long as it is here, no other view has the same address. The view itself may be gone.
    view: Weak<View>,
    answers: BoundedCache<Box<str>, Answer>,
}

#[derive(Debug)]
struct Answer {
    headers: HeaderMap,
    body: Bytes,
    counted: PolicyStates,
    /// `None` if answers have no sizes of stored files.
    moment: Option<Moment>,
}

impl Weighed for Answer {
    fn bytes(&self) -> usize {
        self.body.len() + ENTRY_BYTES
    }
}

impl AnswerCache {
    /// The bytes of the answers in it.
    pub(crate) fn bytes(&self) -> u64 {
        let answers = self.0.load();
        answers.as_ref().map_or(0, |known| known.answers.weight())
    }

    /// The answers of this view.
    pub(super) fn of(&self, view: &Arc<View>) -> Arc<ViewAnswers> {
        let known = self.0.load();
        if let Some(known) = known.as_ref()
            && known.is_of(view)
        {
            return Arc::clone(known);
        }
        let new = Arc::new(ViewAnswers {
            view: Arc::downgrade(view),
            answers: bounded(CACHE_BYTES_MAX, TYPICAL_ANSWERS, CACHE_PARTS),
        });
        // Of two requests that come first, the answers of one are forgotten.
        self.0.store(Some(Arc::clone(&new)));
        new
    }
}

impl ViewAnswers {
    fn is_of(&self, view: &Arc<View>) -> bool {
        std::ptr::eq(self.view.as_ptr(), Arc::as_ptr(view))
    }

    /// The answer to this question, which is a path with its query, and what the policy has to do with it.
    pub(super) fn get(
        &self,
        question: &str,
        moment: Option<Moment>,
    ) -> Option<(Response, PolicyStates)> {
        let answer = self.answers.get(question);
        let answer = answer.filter(|answer| answer.moment == moment)?;
        let mut response = Response::new(Body::from(answer.body.clone()));
        *response.headers_mut() = answer.headers.clone();
        Some((response, answer.counted))
    }

    /// Keeps an answer if it was made from this view: the catalog may answer from the one before.
    pub(super) async fn remember(
        &self,
        question: Box<str>,
        moment: Option<Moment>,
        response: Response,
    ) -> Response {
        let made_from = response.extensions().get::<MadeFrom>();
        let Some(made_from) = made_from.filter(|made| self.is_of(&made.view)) else {
            return response;
        };
        let counted = made_from.counted;
        let bytes = response.body().size_hint().exact();
        let is_small = bytes.is_some_and(|bytes| bytes <= ANSWER_BYTES_MAX);
        let is_complete = response.extensions().get::<NotYetComplete>().is_none();
        if response.status() != StatusCode::OK || !is_small || !is_complete {
            return response;
        }
        let (head, body) = response.into_parts();
        // It is in memory as a whole, so this neither waits nor fails.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        // A copy of exactly its size: the buffer of a serialiser may be twice as large.
        let body = Bytes::copy_from_slice(&body);
        let answer = Answer {
            headers: head.headers.clone(),
            body: body.clone(),
            counted,
            moment,
        };
        self.answers.insert(question, Arc::new(answer));
        Response::from_parts(head, Body::from(body))
    }
}
