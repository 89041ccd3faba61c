//! The bytes of a file on their way into the store.
//!
//! Small files wait in memory until they are known to be right. Of a large one the parts go to the store as they come,
//! under a name that nobody reads (a staging file, or an upload that is not complete); only [`Spool::keep`] gives it its
//! key. So memory does not grow with the file, and no unchecked file can be found.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{
    Error as ObjectError, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload,
};

use crate::upstream::Receiver;

/// The size of a part: the smallest that S3 takes. A file that is no larger waits in memory.
const PART_BYTES: usize = 5 * 1024 * 1024;

/// See the module. One that is dropped leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Spool {
    objects: Arc<dyn ObjectStore>,
    key: Path,
    waiting: BytesMut,
    upload: Option<Box<dyn MultipartUpload>>,
}

/// What became of a file that was right.
#[derive(Debug)]
pub(crate) struct Spooled {
    /// Its bytes, if they are still in memory.
    pub(crate) content: Option<Bytes>,
    /// Whether the store has it now.
    pub(crate) kept: Result<(), ObjectError>,
}

impl Spool {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, key: Path) -> Self {
        Self {
            objects,
            key,
            waiting: BytesMut::new(),
            upload: None,
        }
    }

    /// Gives the file its key, atomically. To be called only when its bytes are known to be right.
    pub(crate) async fn keep(mut self) -> Spooled {
        let Some(mut upload) = self.upload.take() else {
            let content = self.waiting.freeze();
            let put = self.objects.put(&self.key, content.clone().into()).await;
            return Spooled {
                content: Some(content),
                kept: put.map(drop),
            };
        };
        let last = self.waiting.freeze();
        let complete = async {
            if !last.is_empty() {
                upload.put_part(last.into()).await?;
            }
            upload.complete().await
        };
        let kept = complete.await.map(drop);
        if kept.is_err() {
            abort(upload).await;
        }
        Spooled {
            content: None,
            kept,
        }
    }

    /// Leaves nothing behind in the store.
    pub(crate) async fn discard(mut self) {
        self.restart().await;
    }

    async fn send_part(&mut self, part: Bytes) -> Result<(), ObjectError> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.objects.put_multipart(&self.key).await?),
        };
        upload.put_part(PutPayload::from(part)).await
    }
}

impl Receiver for Spool {
    type Error = ObjectError;

    async fn restart(&mut self) {
        self.waiting = BytesMut::new();
        if let Some(upload) = self.upload.take() {
            abort(upload).await;
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.waiting.extend_from_slice(&bytes);
        while self.waiting.len() > PART_BYTES {
            let part = self.waiting.split_to(PART_BYTES).freeze();
            self.send_part(part).await?;
        }
        Ok(())
    }
}

async fn abort(mut upload: Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::debug!(error = %error, "an upload that was given up could not be removed from the store");
    }
}
