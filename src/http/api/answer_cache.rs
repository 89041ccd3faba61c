//! Answers of the web API in memory, as long as nothing can change them.
//!
//! One view gives one answer to a question, except for the sizes of stored crate files. So an answer that was made from the current view is sent again, whoever asks,
//! until there is another view. That costs no permit and no look at the index: a crate with a hundred versions is answered
//! ten times as fast (`benches/compare/api.sh`).

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use crate::http::index::bounded_cache::{BoundedCache, Weighed, bounded};
use crate::http::index::index_guard::ShownVersions;
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

/// What an answer was made from.
#[derive(Clone, Debug)]
pub(crate) struct MadeFrom {
    /// The view.
    pub(crate) view: Arc<View>,
    /// What the policy has to do with it.
    pub(crate) shown: ShownVersions,
}

/// An answer that has this among its extensions has more the next time, so it is made anew.
#[derive(Clone, Debug)]
pub(crate) struct NotYetComplete;

/// What an answer depends on besides the question and the view. Answers tell the sizes of stored crate files. This process
/// knows at once what it stores itself, so the answers from before are forgotten. Others may store something, too, so no
/// answer is older than a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) stored_files: u64,
    pub(super) stored_bytes: u64,
    pub(super) second: u64,
}

/// The answers of the newest view that was asked for something.
#[derive(Debug, Default)]
pub(crate) struct AnswerCache(ArcSwapOption<ViewAnswers>);

/// The answers of one view.
#[derive(Debug)]
pub(super) struct ViewAnswers {
    /// It does not keep the view alive, but its address: no other view can have it.
    view: Weak<View>,
    /// `None` if no crate files are stored.
    moment: Option<Moment>,
    answers: BoundedCache<Box<str>, Answer>,
}

#[derive(Debug)]
struct Answer {
    headers: HeaderMap,
    body: Bytes,
    shown: ShownVersions,
}

impl Weighed for Answer {
    fn bytes(&self) -> usize {
        self.body.len() + ENTRY_BYTES
    }
}

impl AnswerCache {
    /// The answers of this view at this moment.
    pub(super) fn of(&self, view: &Arc<View>, moment: Option<Moment>) -> Arc<ViewAnswers> {
        let known = self.0.load();
        if let Some(known) = known.as_ref()
            && known.is_of(view)
            && known.moment == moment
        {
            return Arc::clone(known);
        }
        let new = Arc::new(ViewAnswers {
            view: Arc::downgrade(view),
            moment,
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
    pub(super) fn get(&self, question: &str) -> Option<(Response, ShownVersions)> {
        let answer = self.answers.get(question)?;
        let mut response = Response::new(Body::from(answer.body.clone()));
        *response.headers_mut() = answer.headers.clone();
        Some((response, answer.shown))
    }

    /// Keeps an answer if it was made from this view: the catalog may answer from the one before.
    pub(super) async fn remember(&self, question: Box<str>, response: Response) -> Response {
        let made_from = response.extensions().get::<MadeFrom>();
        let Some(made_from) = made_from.filter(|made| self.is_of(&made.view)) else {
            return response;
        };
        let shown = made_from.shown;
        let bytes = response.body().size_hint().exact();
        let is_small = bytes.is_some_and(|bytes| bytes <= ANSWER_BYTES_MAX);
        let is_complete = response.extensions().get::<NotYetComplete>().is_none();
        if response.status() != StatusCode::OK || !is_small || !is_complete {
            return response;
        }
        let (head, body) = response.into_parts();
        // It is in memory as a whole, so this neither waits nor fails.
        let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
        let answer = Answer {
            headers: head.headers.clone(),
            body: body.clone(),
            shown,
        };
        self.answers.insert(question, Arc::new(answer));
        Response::from_parts(head, Body::from(body))
    }
}
