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
    /// Where parts are put together: at the key itself, where nobody finds them before they are complete, or elsewhere.
    upload_to: Path,
    waiting: BytesMut,
    /// All bytes, once somebody has asked for them.
    whole: Option<Bytes>,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Spool {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, key: Path, upload_to: Path) -> Self {
        Self {
            objects,
            key,
            upload_to,
            waiting: BytesMut::new(),
            whole: None,
            upload: None,
        }
    }

    /// All bytes, if there are so few that they are in memory.
    pub(crate) fn content(&mut self) -> Option<Bytes> {
        if self.upload.is_some() {
            return None;
        }
        let content = self.waiting.split().freeze();
        self.whole = Some(content.clone());
        Some(content)
    }

    /// Gives the file its key, atomically. To be called only when its bytes are known to be right.
    pub(crate) async fn keep(mut self) -> Result<(), ObjectError> {
        let last = match self.whole.take() {
            Some(content) => content,
            None => self.waiting.split().freeze(),
        };
        let Some(mut upload) = self.upload.take() else {
            return self.objects.put(&self.key, last.into()).await.map(drop);
        };
        let complete = async {
            if !last.is_empty() {
                upload.put_part(last.into()).await?;
            }
            upload.complete().await?;
            if self.upload_to != self.key {
                self.objects.rename(&self.upload_to, &self.key).await?;
            }
            Ok(())
        };
        let kept = complete.await;
        if kept.is_err() {
            abort(upload).await;
        }
        kept
    }

    /// Leaves nothing behind in the store.
    pub(crate) async fn discard(mut self) {
        self.restart().await;
    }

    /// Takes the next bytes.
    pub(crate) async fn add(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.waiting.extend_from_slice(&bytes);
        while self.waiting.len() > PART_BYTES {
            let part = self.waiting.split_to(PART_BYTES).freeze();
            self.send_part(part).await?;
        }
        Ok(())
    }

    async fn send_part(&mut self, part: Bytes) -> Result<(), ObjectError> {
        let upload = match &mut self.upload {
            Some(upload) => upload,
            none => none.insert(self.objects.put_multipart(&self.upload_to).await?),
        };
        upload.put_part(PutPayload::from(part)).await
    }
}

impl Receiver for Spool {
    type Error = ObjectError;

    async fn restart(&mut self) {
        self.waiting = BytesMut::new();
        self.whole = None;
        if let Some(upload) = self.upload.take() {
            abort(upload).await;
        }
    }

    async fn write(&mut self, bytes: Bytes) -> Result<(), ObjectError> {
        self.add(bytes).await
    }
}

async fn abort(mut upload: Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::debug!(error = %error, "an upload that was given up could not be removed from the store");
    }
}
