//! What happens to every request and every answer, whatever it is about.
//!
//! One plain service around the router. axum's own layers run behind routing, too late to change the path, and cost an
//! allocation each; a service for each step cost another 0.3 µs for the requests and answers that they hand on.

pub(super) mod common_headers;
pub(super) mod normalize_path;
pub(super) mod read_only;
pub(super) mod request_log;
pub(super) mod shortcut;
pub(super) mod too_much;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::http::HeaderValue;
use axum::response::Response;
use axum::routing::future::RouteFuture;
use pin_project_lite::pin_project;
use tower::Service;

use common_headers::Surface;
use request_log::RequestSeen;

use super::state::AppState;
use crate::server::{Answered, Asked, Stack};

/// The router with everything around it.
pub(crate) fn stack(router: Router, state: AppState) -> impl Stack {
    let hsts = state.settings.hsts_max_age_secs;
    Middleware {
        router,
        hsts: hsts.and_then(common_headers::hsts),
        state,
    }
}

#[derive(Clone)]
struct Middleware {
    router: Router,
    state: AppState,
    hsts: Option<HeaderValue>,
}

impl Service<Asked> for Middleware {
    type Response = Answered;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<axum::extract::Request>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut asked: Asked) -> Answering {
        // The log shows the path as it came.
        let seen = RequestSeen::of(&asked);
        normalize_path::normalize(asked.request.uri_mut());
        let surface = Surface::of(asked.request.uri().path());
        let early = too_much::refuse(&asked)
            .or_else(|| read_only::refuse(&mut asked.request))
            .or_else(|| shortcut::take(&self.state, &asked));
        Answering {
            response: match early {
                Some(response) => Answer::Made {
                    response: Some(response),
                },
                None => Answer::Routed {
                    response: self.router.call(asked.into_request()),
                },
            },
            seen,
            surface,
            hsts: self.hsts.clone(),
        }
    }
}

pin_project! {
    struct Answering {
        #[pin]
        response: Answer,
        // Taken when the answer begins.
        seen: Option<RequestSeen>,
        surface: Surface,
        hsts: Option<HeaderValue>,
    }

    impl PinnedDrop for Answering {
        fn drop(this: Pin<&mut Self>) {
            if let Some(seen) = this.project().seen.take() {
                seen.log_abandoned();
            }
        }
    }
}

pin_project! {
    #[project = AnswerProjection]
    enum Answer {
        Made { response: Option<Response> },
        Routed { #[pin] response: RouteFuture<Infallible> },
    }
}

impl Future for Answering {
    type Output = Result<Answered, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = match this.response.project() {
            AnswerProjection::Routed { response } => ready!(response.poll(context))?,
            AnswerProjection::Made { response } => match response.take() {
                Some(response) => response,
                // Nobody polls a future that has ended.
                None => return Poll::Pending,
            },
        };
        common_headers::add_to(&mut response, *this.surface, this.hsts.take());
        Poll::Ready(Ok(match this.seen.take() {
            Some(seen) => seen.answered(response),
            None => response.into(),
        }))
    }
}
