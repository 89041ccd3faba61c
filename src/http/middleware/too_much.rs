//! Refuses requests that a connection has no memory for.

use axum::body::Body;
use axum::response::{IntoResponse, Response};

use crate::http::error::ApiError;
use crate::server::{Admission, Asked};

/// The answer to such a request, unless it asks whether the mirror is alive.
pub(super) fn refuse(asked: &Asked) -> Option<Response> {
    let error = match asked.admission {
        Admission::Granted => return None,
        Admission::NoShare if matches!(asked.request.uri().path(), "/livez" | "/readyz") => {
            return None;
        }
        Admission::NoShare => ApiError::Busy,
        Admission::TooManyHeaders => ApiError::TooManyHeaders,
    };
    // Without a body, for which the client would have to grant a window.
    Some(error.into_response().map(|_text| Body::empty()))
}
