//! What happens to every request and every answer, in this order from the outside in.
//!
//! These wrap the router as plain services: axum's own layers run behind routing, too late to change the path, and cost
//! an allocation each.

mod common_headers;
mod normalize_path;
mod read_only;
mod request_log;
mod shortcut;

use axum::Router;
use tower::Layer;

use common_headers::CommonHeadersLayer;
use normalize_path::NormalizePathLayer;
use read_only::ReadOnlyLayer;
use request_log::RequestLogLayer;
use shortcut::ShortcutLayer;

use super::serve::Stack;
use super::state::AppState;

/// The router with everything around it.
pub(crate) fn stack(router: Router, state: AppState) -> impl Stack {
    // From the inside out: the log sees the path as it came and the answer as it goes.
    let service = ShortcutLayer { state }.layer(router);
    let service = ReadOnlyLayer.layer(service);
    let service = NormalizePathLayer.layer(service);
    let service = CommonHeadersLayer.layer(service);
    RequestLogLayer.layer(service)
}
