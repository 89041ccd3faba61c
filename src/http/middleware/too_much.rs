//! Refuses requests that a connection has no memory for.

use axum::body::Body;
use axum::response::IntoResponse;

use super::early::Early;
use crate::http::error::ApiError;
use crate::http::serve::{Admission, Asked};

/// Passes everything else on, and what tells whether the mirror is alive.
pub(super) fn refuse(asked: Asked) -> Early {
    let error = match asked.admission {
        Admission::Granted => return Early::Passed(asked),
        Admission::NoShare if matches!(asked.request.uri().path(), "/livez" | "/readyz") => {
            return Early::Passed(asked);
        }
        Admission::NoShare => ApiError::Busy,
        Admission::TooManyHeaders => ApiError::TooManyHeaders,
    };
    // Without a body, for which the client would have to grant a window.
    Early::Answered(error.into_response().map(|_text| Body::empty()))
}
