//! Events that wait to be written. A separate thread writes them, so that a slow reader delays nothing else.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use std::{mem, thread};

use parking_lot::{Condvar, Mutex};
use prometheus_client::metrics::counter::Counter;

/// How many bytes of events may wait: several thousand events. The batch that is being written may have as many again.
const WAITING_BYTES_MAX: usize = 2 * 1024 * 1024;

/// The memory that a batch keeps for the next events.
const KEPT_BYTES: usize = 64 * 1024;

/// How long events are collected before they are written.
const GATHERING_TIME: Duration = Duration::from_millis(2);

/// How long the end of the process waits for unwritten events. The reader may never read again.
const END_TIME_MAX: Duration = Duration::from_secs(1);

/// See the module. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct LogQueue(Arc<Shared>);

/// Ends the queue when it is dropped. Waiting events are written first, if that is quick.
#[derive(Debug)]
pub(super) struct LogQueueGuard(LogQueue);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// All events that were dropped.
    dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    /// Complete events, concatenated.
    waiting: Vec<u8>,
    /// Events that were dropped and not reported yet.
    dropped: u64,
    /// The queue is empty and the thread sleeps.
    is_idle: bool,
    is_ending: bool,
    has_ended: bool,
}

impl LogQueue {
    /// Starts the thread that writes events to `output`. When the queue has space again after dropping events, the thread
    /// calls `report_dropped` with their number.
    pub(super) fn start(
        output: impl Write + Send + 'static,
        report_dropped: impl Fn(u64) + Send + 'static,
    ) -> (Self, LogQueueGuard) {
        let queue = Self::default();
        let writing = queue.clone();
        let write = move || writing.write_to(output, report_dropped);
        let started = thread::Builder::new().name("log".to_owned()).spawn(write);
        if started.is_err() {
            // If the system has no thread for the log, it has none for requests, either, and that is reported.
            queue.0.state.lock().has_ended = true;
        }
        (queue.clone(), LogQueueGuard(queue))
    }

    /// How many events were dropped since the start.
    pub(super) fn dropped(&self) -> &Counter {
        &self.0.dropped
    }

    /// Takes an event, or drops it if too many bytes wait already.
    pub(super) fn push(&self, event: &[u8]) {
        let mut state = self.0.state.lock();
        if state.waiting.len() + event.len() > WAITING_BYTES_MAX {
            state.dropped += 1;
            self.0.dropped.inc();
            return;
        }
        state.waiting.extend_from_slice(event);
        // Waking costs a system call, and a thread that is awake does not need it.
        if mem::take(&mut state.is_idle) {
            drop(state);
            self.0.changed.notify_all();
        }
    }

    fn write_to(&self, mut output: impl Write, report_dropped: impl Fn(u64)) {
        let mut batch = Vec::new();
        while let Some(dropped) = self.take(&mut batch) {
            // If the reader is gone, the log cannot report that.
            let _unread = output.write_all(&batch).and_then(|()| output.flush());
            batch.clear();
            batch.shrink_to(KEPT_BYTES);
            if dropped > 0 {
                report_dropped(dropped);
            }
        }
    }

    /// Waits for events, and exchanges them for the empty batch. `None` at the end.
    fn take(&self, batch: &mut Vec<u8>) -> Option<u64> {
        let mut state = self.0.state.lock();
        while state.waiting.is_empty() {
            if state.is_ending {
                state.has_ended = true;
                self.0.changed.notify_all();
                return None;
            }
            state.is_idle = true;
            self.0.changed.wait(&mut state);
        }
        state.is_idle = false;
        if !state.is_ending {
            // Events that come during this time do not have to wake the thread. A request with its event takes 11 us of
            // processor time with this pause, and 17 us without (`benches/compare/one_core.sh`).
            let is_gathering = |state: &mut State| !state.is_ending;
            self.0
                .changed
                .wait_while_for(&mut state, is_gathering, GATHERING_TIME);
        }
        mem::swap(&mut state.waiting, batch);
        Some(mem::take(&mut state.dropped))
    }
}

impl Drop for LogQueueGuard {
    fn drop(&mut self) {
        let Shared { state, changed, .. } = &*self.0.0;
        let mut state = state.lock();
        state.is_ending = true;
        changed.notify_all();
        changed.wait_while_for(&mut state, |state| !state.has_ended, END_TIME_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

    use super::*;

    /// An output that blocks while the channel to its reader is full.
    struct Slow(SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(reader: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(reader.recv().unwrap()).unwrap()
    }

    #[test]
    fn events_are_written_whole_and_in_order_before_the_end() {
        let (output, reader) = sync_channel(1_000);
        let (queue, guard) = LogQueue::start(Slow(output), |_dropped| ());
        for number in 0..1_000 {
            queue.push(format!("{number}\n").as_bytes());
        }
        drop(guard);
        let written: Vec<u8> = reader.into_iter().flatten().collect();
        let expected: String = (0..1_000).map(|number| format!("{number}\n")).collect();
        assert_eq!(String::from_utf8(written).unwrap(), expected);
    }

    #[test]
    fn with_a_stalled_reader_the_bytes_are_bounded_and_dropped_events_are_reported() {
        // The output blocks until the test reads.
        let (output, reader) = sync_channel(0);
        let (report, reports) = channel();
        let (queue, guard) = LogQueue::start(Slow(output), move |dropped| {
            report.send(dropped).unwrap();
        });
        queue.push(b"first\n");
        let event = vec![b'x'; 1024];
        // The first batch is being written, and the reader does not read.
        while !queue.0.state.lock().waiting.is_empty() {
            thread::yield_now();
        }
        for _ in 0..WAITING_BYTES_MAX / 1024 + 100 {
            queue.push(&event);
        }
        assert_eq!(queue.0.state.lock().waiting.len(), WAITING_BYTES_MAX);
        assert_eq!(queue.0.state.lock().dropped, 100);
        assert_eq!(queue.dropped().get(), 100);
        assert_eq!(read(&reader), "first\n");
        assert_eq!(read(&reader).len(), WAITING_BYTES_MAX);
        assert_eq!(reports.recv().unwrap(), 100);
        queue.push(b"last\n");
        assert_eq!(read(&reader), "last\n");
        assert!(queue.0.state.lock().waiting.capacity() <= WAITING_BYTES_MAX);
        // Dropping the guard does not wait for a reader that never reads.
        queue.push(b"unread\n");
        drop(guard);
    }
}
