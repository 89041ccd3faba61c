//! A bound on the memory of large answers: those that are on their way to clients hold a part of a fixed budget.
//!
//! A client that reads slowly, or many at a time, would otherwise keep megabytes each.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;

/// From this size on, in bytes, an answer counts as large. One connection with HTTP/2 may hold a hundred smaller ones.
pub(super) const LARGE_ANSWER_BYTES_MIN: u64 = 32 * 1024;

/// How long a large answer may wait for others to be read by their clients.
const BUDGET_WAIT_MAX: Duration = Duration::from_secs(10);

/// The budget of large answers; cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct AnswerBudget {
    room: Arc<Semaphore>,
    kib: u32,
}

impl AnswerBudget {
    /// A budget of so many KiB, of which nothing is spent.
    pub(super) fn new(kib: u32) -> Self {
        Self {
            room: Arc::new(Semaphore::new(kib as usize)),
            kib,
        }
    }

    /// Waits for room, and gives it back when the answer is sent or given up.
    ///
    /// # Errors
    /// 503 if there is none in time.
    pub(super) async fn admit(&self, response: Response) -> Result<Response, ApiError> {
        let room = self.room_for(response.body().size_hint().lower()).await?;
        Ok(room.hold(response))
    }

    /// Waits for room for an answer of so many bytes.
    ///
    /// # Errors
    /// 503 if there is none in time.
    pub(super) async fn room_for(&self, bytes: u64) -> Result<Room, ApiError> {
        if bytes < LARGE_ANSWER_BYTES_MIN {
            return Ok(Room(None));
        }
        let waiting = Arc::clone(&self.room).acquire_many_owned(self.share(bytes));
        let permit = tokio::time::timeout(BUDGET_WAIT_MAX, waiting)
            .await
            .map_err(|_elapsed| ApiError::Busy)?
            .map_err(ApiError::internal)?;
        Ok(Room(Some(Arc::new(permit))))
    }

    /// Room for an answer of so many bytes, if there is any at once.
    pub(super) fn room_now(&self, bytes: u64) -> Option<Room> {
        if bytes < LARGE_ANSWER_BYTES_MIN {
            return Some(Room(None));
        }
        let permit = Arc::clone(&self.room).try_acquire_many_owned(self.share(bytes));
        Some(Room(Some(Arc::new(permit.ok()?))))
    }

    fn share(&self, bytes: u64) -> u32 {
        u32::try_from(bytes / 1024)
            .unwrap_or(u32::MAX)
            .min(self.kib)
    }
}

/// A part of the budget; a small answer needs none.
#[derive(Debug)]
pub(super) struct Room(Option<Arc<OwnedSemaphorePermit>>);

impl Room {
    /// Puts an answer into it.
    pub(super) fn hold(self, response: Response) -> Response {
        match self.0 {
            Some(permit) => response.map(|body| Body::new(Budgeted { body, permit })),
            None => response,
        }
    }
}

pin_project! {
    struct Budgeted {
        #[pin]
        body: Body,
        permit: Arc<OwnedSemaphorePermit>,
    }
}

/// Bytes of an answer. The body they come from may be gone long before they are sent, and they keep the whole of what
/// they are a part of; so the room is theirs, too.
struct BudgetedBytes {
    bytes: Bytes,
    _permit: Arc<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for BudgetedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl HttpBody for Budgeted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.project();
        let permit = this.permit;
        this.body.poll_frame(context).map_ok(|frame| {
            frame.map_data(|bytes| {
                Bytes::from_owner(BudgetedBytes {
                    bytes,
                    _permit: Arc::clone(permit),
                })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn answer(bytes: usize) -> Response {
        Response::new(Body::from(vec![0_u8; bytes]))
    }

    #[tokio::test(start_paused = true)]
    async fn large_answers_wait_for_each_other_and_small_ones_do_not() {
        let budget = AnswerBudget::new(1024);
        let large = 1024 * 1024;
        let first = budget.admit(answer(large)).await.unwrap();
        assert_eq!(
            first.body().size_hint().exact(),
            Some(large as u64),
            "the length is still known"
        );
        assert!(matches!(
            budget.admit(answer(large)).await,
            Err(ApiError::Busy)
        ));
        assert!(budget.admit(answer(1000)).await.is_ok());
        let mut body = first.into_body();
        let sending = body.frame().await.unwrap().unwrap();
        let piece = sending.into_data().unwrap().slice(..10);
        drop(body);
        assert!(
            budget.admit(answer(large)).await.is_err(),
            "a piece that is not sent yet keeps all of it"
        );
        drop(piece);
        assert!(
            budget.admit(answer(2 * large)).await.is_ok(),
            "one too large for the budget gets all of it"
        );
    }
}
