//! The bytes of a file on their way into the store.
//!
//! A small file stays in memory until it is verified. The parts of a large file go to the store at once, but not under the
//! file's key; only [`Spool::finish`] gives the file its key. So memory does not grow with the file, and no unverified file
//! can be found.
//!
//! On a disk a file is assembled under a random name, and then renamed. Clouds assemble uploads by themselves. If a crash
//! leaves an incomplete upload in a cloud, a lifecycle rule of the bucket has to delete it.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use object_store::path::Path;
use object_store::{
    Error as ObjectError, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload,
};
use tokio::runtime::Handle;

use crate::upstream::Receiver;

/// The size of a part: the smallest that S3 takes. A file up to this size stays in memory.
pub(super) const PART_BYTES: usize = 5 * 1024 * 1024;

/// See the module.
#[derive(Debug)]
pub(crate) struct Spool {
    objects: Arc<dyn ObjectStore>,
    key: Path,
    /// The place on a disk where the file is assembled. A cloud assembles it at its key: it shows nothing before the file
    /// is complete, and keeps uploads apart.
    staged: Option<Path>,
    waiting: BytesMut,
    /// All bytes, after [`Spool::content`].
    whole: Option<Bytes>,
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Spool {
    pub(super) fn new(objects: Arc<dyn ObjectStore>, key: Path, staged: Option<Path>) -> Self {
        Self {
            objects,
            key,
            staged,
            waiting: BytesMut::new(),
            whole: None,
            upload: None,
        }
    }

    /// All bytes, if the file is so small that they are in memory.
    pub(super) fn content(&mut self) -> Option<Bytes> {
        if self.upload.is_some() {
            return None;
        }
        let content = self.waiting.split().freeze();
        self.whole = Some(content.clone());
        Some(content)
    }

    /// Gives the file its key, atomically. Only for verified bytes.
    pub(crate) async fn finish(mut self) -> Result<(), ObjectError> {
        let assembled = self.assemble().await;
        self.publish(assembled).await
    }

    /// The second half of [`Spool::finish`].
    pub(super) async fn publish(
        self,
        assembled: Result<(), ObjectError>,
    ) -> Result<(), ObjectError> {
        match (&self.staged, assembled) {
            (Some(place), Ok(())) => {
                let renamed = self.objects.rename(place, &self.key).await;
                if renamed.is_err() {
                    // The file may still be there.
                    let _removed = self.objects.delete(place).await;
                }
                renamed
            }
            (Some(_), Err(error)) => Err(error),
            (None, Ok(())) => Ok(()),
            // Another mirror may have completed the same file first, which ends our upload in some clouds.
            (None, Err(error)) => match self.objects.head(&self.key).await {
                Ok(_put_by_another) => Ok(()),
                Err(_nor_there) => Err(error),
            },
        }
    }

    /// Assembles the file on a disk without a key, and returns its place. The caller removes it.
    pub(super) async fn finish_unnamed(mut self) -> Result<Path, ObjectError> {
        self.assemble().await?;
        Ok(self.place().clone())
    }

    /// The first half of [`Spool::finish`]: assembles the file.
    pub(super) async fn assemble(&mut self) -> Result<(), ObjectError> {
        let last = match self.whole.take() {
            Some(content) => content,
            None => self.waiting.split().freeze(),
        };
        match self.upload.take() {
            Some(upload) => complete(upload, last).await,
            None => self.objects.put(self.place(), last.into()).await.map(drop),
        }
    }

    /// Removes everything from the store.
    pub(crate) async fn discard(mut self) {
        self.restart().await;
    }

    /// Where the file is assembled.
    pub(super) fn place(&self) -> &Path {
        self.staged.as_ref().unwrap_or(&self.key)
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
        let upload = match self.upload.take() {
            Some(upload) => upload,
            None => begin_upload(Arc::clone(&self.objects), self.place().clone()).await?,
        };
        self.upload
            .insert(upload)
            .put_part(PutPayload::from(part))
            .await
    }
}

/// On a disk this opens a file, and a disk may hang.
async fn begin_upload(
    objects: Arc<dyn ObjectStore>,
    place: Path,
) -> Result<Box<dyn MultipartUpload>, ObjectError> {
    let runtime = Handle::current();
    let begin = move || runtime.block_on(objects.put_multipart(&place));
    tokio::task::spawn_blocking(begin)
        .await
        .map_err(|source| ObjectError::JoinError { source })?
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

async fn complete(mut upload: Box<dyn MultipartUpload>, last: Bytes) -> Result<(), ObjectError> {
    let completed = async {
        if !last.is_empty() {
            upload.put_part(last.into()).await?;
        }
        upload.complete().await.map(drop)
    };
    let completed = completed.await;
    if completed.is_err() {
        abort(upload).await;
    }
    completed
}

async fn abort(mut upload: Box<dyn MultipartUpload>) {
    if let Err(error) = upload.abort().await {
        tracing::debug!(error = %error, "an upload that was given up could not be removed from the store");
    }
}
