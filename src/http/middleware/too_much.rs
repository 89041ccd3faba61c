//! Refuses requests of a peer that has more than its share of the memory already, when nothing is left.

use axum::body::Body;
use axum::response::IntoResponse;

use super::early::Early;
use crate::http::error::ApiError;
use crate::http::serve::Asked;

/// Passes everything else on, and what tells whether the mirror is alive.
pub(super) fn refuse(asked: Asked) -> Early {
    if !asked.is_too_much || matches!(asked.request.uri().path(), "/livez" | "/readyz") {
        return Early::Passed(asked);
    }
    // Without a body, for which the client would have to grant a window.
    Early::Answered(ApiError::Busy.into_response().map(|_text| Body::empty()))
}
