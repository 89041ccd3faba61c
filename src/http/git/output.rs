//! The output of git on its way to the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Bytes, HttpBody};
use hyper::body::Frame;
use tokio::io::AsyncReadExt;
use tokio::time::Sleep;
use tokio_util::io::poll_read_buf;
use tokio_util::task::AbortOnDropHandle;

use crate::http::error::{ApiError, GitComplaint};
use crate::index::{GitChild, GitRequest, IndexHandle};
use crate::server::Share;

/// How much is read from a child at a time.
const PIECE_BYTES: usize = 32 * 1024;

/// How long a child may take for its first output. Later it writes something every few seconds.
const FIRST_OUTPUT_MAX: Duration = Duration::from_secs(60);

/// How long an answer may take: a full clone of the largest index, 230 MB, by a client that reads 8 kB/s. While others wait
/// for a permit, slower clients are cut (`Shares`).
const ANSWER_TIME_MAX: Duration = Duration::from_secs(8 * 3_600);

/// How long a child may take to end after its output.
const END_WAIT_MAX: Duration = Duration::from_secs(10);

/// The output of a child, as the body of an answer. Dropping it ends the child and gives the permit back.
#[derive(Debug)]
pub(crate) struct GitOutput {
    before: Option<Bytes>,
    /// `None` at the end.
    running: Option<Running>,
    deadline: Pin<Box<Sleep>>,
}

#[derive(Debug)]
struct Running {
    child: GitChild,
    /// The background task of this handle looks at the repository when git fails.
    index: IndexHandle,
    _feeder: AbortOnDropHandle<()>,
    _permit: Share,
}

impl GitOutput {
    /// Waits for the first output of a child, which tells whether there will be an answer.
    pub(crate) async fn begin(
        mut child: GitChild,
        request: GitRequest,
        index: IndexHandle,
        feeder: AbortOnDropHandle<()>,
        permit: Share,
    ) -> Result<Self, ApiError> {
        let mut first = Vec::with_capacity(PIECE_BYTES);
        let failed = |why: String| ApiError::GitFailed(GitComplaint(why));
        tokio::time::timeout(FIRST_OUTPUT_MAX, child.read_buf(&mut first))
            .await
            .map_err(|elapsed| match request {
                // It waits for the rest of what the client wants.
                GitRequest::Exchange => ApiError::GitRequest(GitComplaint(elapsed.to_string())),
                GitRequest::Advertisement => failed(elapsed.to_string()),
            })?
            .map_err(|error| failed(error.to_string()))?;
        if first.is_empty() {
            let (status, complaint) = tokio::time::timeout(END_WAIT_MAX, child.finish())
                .await
                .map_err(|elapsed| failed(elapsed.to_string()))?
                .map_err(|error| failed(error.to_string()))?;
            if !status.success() {
                index.request_damage_check();
            }
            // A child that reads what a client sends, and fails without output, got nonsense.
            return match request {
                _ if status.success() => Ok(Self::new(None, None)),
                GitRequest::Exchange => Err(ApiError::GitRequest(GitComplaint(complaint))),
                GitRequest::Advertisement => Err(failed(complaint)),
            };
        }
        let running = Running {
            child,
            index,
            _feeder: feeder,
            _permit: permit,
        };
        Ok(Self::new(Some(first.into()), Some(running)))
    }

    fn new(before: Option<Bytes>, running: Option<Running>) -> Self {
        Self {
            before,
            running,
            deadline: Box::pin(tokio::time::sleep(ANSWER_TIME_MAX)),
        }
    }

    /// The same, behind something else.
    pub(crate) fn after(mut self, beginning: Bytes) -> Self {
        let first = self.before.take().unwrap_or_default();
        self.before = Some([beginning, first].concat().into());
        self
    }
}

impl HttpBody for GitOutput {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Some(before) = this.before.take() {
            return Poll::Ready(Some(Ok(Frame::data(before))));
        }
        let Some(running) = &mut this.running else {
            return Poll::Ready(None);
        };
        if this.deadline.as_mut().poll(context).is_ready() {
            this.running = None;
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        let read = ready!(poll_read_buf(
            Pin::new(&mut running.child),
            context,
            &mut piece
        ));
        match read {
            Ok(0) => {
                if let Some(running) = this.running.take() {
                    tokio::spawn(tokio::time::timeout(END_WAIT_MAX, note_end(running)));
                }
                Poll::Ready(None)
            }
            Ok(_) => Poll::Ready(Some(Ok(Frame::data(piece.into())))),
            Err(error) => {
                this.running = None;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.before.is_none() && self.running.is_none()
    }
}

/// Logs a failure. The client has all of git's output, and sees by itself if it is not complete.
async fn note_end(mut running: Running) {
    if let Ok((status, complaint)) = running.child.finish().await
        && !status.success()
    {
        running.index.request_damage_check();
        // Most often the client asked for something that does not exist, and git said so.
        tracing::info!(git.status = %status, error = complaint, "git ended early");
    }
}
