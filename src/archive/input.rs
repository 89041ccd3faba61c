//! Reading an archive from a file or from standard input, which may send nothing for any time.
//!
//! A thread reads ahead, so that waiting for bytes can be stopped.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// How many pieces are read ahead.
const PIECES_MAX: usize = 4;

/// How often a waiting reader looks whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// An archive during reading.
pub(super) struct Input {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: io::Cursor<Vec<u8>>,
    stop: CancellationToken,
}

impl Input {
    /// Opens an archive at this path; `-` is standard input.
    pub(super) fn open(path: &Path, stop: &CancellationToken) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::read_ahead(io::stdin(), stop));
        }
        let file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Self::read_ahead(file, stop))
    }

    fn read_ahead(from: impl Read + Send + 'static, stop: &CancellationToken) -> Self {
        let (sender, pieces) = sync_channel(PIECES_MAX);
        // The thread is not joined: it may be in a read that never returns.
        drop(thread::spawn(move || read_all(from, &sender)));
        Self {
            pieces,
            piece: io::Cursor::default(),
            stop: stop.clone(),
        }
    }

    /// The next piece; an empty one at the end.
    fn next(&self) -> io::Result<Vec<u8>> {
        loop {
            if self.stop.is_cancelled() {
                return Err(io::Error::other("stopped"));
            }
            match self.pieces.recv_timeout(LOOK_EVERY) {
                Ok(piece) => return piece,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Vec::new()),
            }
        }
    }
}

fn read_all(mut from: impl Read, to: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let read = match from.read(&mut piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read,
        };
        let is_last = !matches!(read, Ok(1..));
        let piece = read.map(|bytes| {
            piece.truncate(bytes);
            piece
        });
        if to.send(piece).is_err() || is_last {
            return;
        }
    }
}

impl Read for Input {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.piece.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        self.piece = io::Cursor::new(self.next()?);
        self.piece.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_to_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let content: Vec<u8> = (0..=250).cycle().take(PIECE_BYTES * 9 + 7).collect();
        std::fs::write(file.path(), &content).unwrap();
        let stop = CancellationToken::new();
        let mut input = Input::open(file.path(), &stop).unwrap();
        let mut read = Vec::new();
        input.read_to_end(&mut read).unwrap();
        assert!(read == content);
        assert_eq!(input.read(&mut [0]).unwrap(), 0);
        assert!(Input::open(&file.path().join("absent"), &stop).is_err());
    }

    #[test]
    fn a_reader_of_an_unresponsive_source_can_be_stopped() {
        let (reader, _unresponsive) = io::pipe().unwrap();
        let stop = CancellationToken::new();
        let mut input = Input::read_ahead(reader, &stop);
        let stopper = thread::spawn(move || stop.cancel());
        assert!(input.read(&mut [0]).is_err());
        stopper.join().unwrap();
    }
}
