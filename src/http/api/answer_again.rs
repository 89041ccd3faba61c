//! What happens before the handlers of the web API: an answer that is in memory is sent again.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;

use crate::http::answer_cache::Moment;
use crate::http::index::index_guard::IndexGuard;
use crate::http::index::policy_guard::count_policy;
use crate::http::state::RequestState;
use crate::observability::metrics::PolicySurface;

/// The length of the path and the query of a question that is remembered, in bytes.
const QUESTION_BYTES_MAX: usize = 512;

/// Sends an answer of the current view again, or lets the handler make it. 503 if the account has no memory for it.
pub(in crate::http) async fn answer(
    request_state: RequestState,
    request: Request,
    next: Next,
) -> Response {
    let uri = request.uri();
    let question = uri
        .path_and_query()
        .map_or_else(|| uri.path(), |all| all.as_str());
    // The answer to HEAD has no body here.
    let is_asked = request.method() == Method::GET && question.len() <= QUESTION_BYTES_MAX;
    let view = request_state.state.index.view().filter(|_| is_asked);
    let Some(view) = view else {
        return next.run(request).await;
    };
    let index = IndexGuard::of(request_state, view);
    let moment = index.sized_files().map(|files| Moment {
        stored_files: files.counters().stored_files.get(),
        stored_bytes: files.counters().stored_bytes.get(),
        second: index.state.started.elapsed().as_secs(),
    });
    let answers = index.state.answer_cache.of(&index.view);
    if let Some((response, counted)) = answers.get(question, moment) {
        // What waits here must not keep the answers of an old view in memory.
        drop(answers);
        let kept = index.state.keep(&index.exchange, response).await;
        return match kept {
            Ok(response) => {
                count_policy(&index.state, &index.view, PolicySurface::Api, counted);
                response
            }
            Err(exhausted) => index.mark(Err(exhausted.into())),
        };
    }
    let (question, answers) = (Box::from(question), Arc::downgrade(&answers));
    drop(index);
    let response = next.run(request).await;
    match answers.upgrade() {
        Some(answers) => answers.remember(question, moment, response).await,
        None => response,
    }
}
