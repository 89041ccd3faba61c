//! What happens to every request and every answer, in this order from the outside in.
//!
//! These wrap the router as plain services: axum's own layers run behind routing, too late to change the path, and cost
//! an allocation each.

mod common_headers;
mod early;
mod normalize_path;
mod read_only;
mod request_log;
mod shortcut;
mod too_much;

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use tower::{Layer, Service};

use common_headers::CommonHeadersLayer;
use early::AnswerEarly;
use normalize_path::NormalizePathLayer;
use request_log::RequestLogLayer;

use super::serve::{Asked, Stack};
use super::state::AppState;

/// The router with everything around it.
pub(crate) fn stack(router: Router, state: AppState) -> impl Stack {
    let common_headers = CommonHeadersLayer::new(state.settings.hsts_max_age_secs);
    // From the inside out: the log sees the path as it came and the answer as it goes.
    let service = AnswerEarly {
        inner: Routed(router),
        decide: move |request| shortcut::take(&state, request),
    };
    let service = AnswerEarly {
        inner: service,
        decide: read_only::refuse_writes,
    };
    let service = AnswerEarly {
        inner: service,
        decide: too_much::refuse,
    };
    // The headers depend on what is really asked for: on the path without `//` and dots.
    let service = common_headers.layer(service);
    let service = NormalizePathLayer.layer(service);
    RequestLogLayer.layer(service)
}

/// The router, whose handlers find the exchange among the extensions of the request.
#[derive(Clone)]
struct Routed(Router);

impl Service<Asked> for Routed {
    type Response = <Router as Service<Request>>::Response;
    type Error = Infallible;
    type Future = <Router as Service<Request>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, asked: Asked) -> Self::Future {
        self.0.call(asked.into_request())
    }
}
