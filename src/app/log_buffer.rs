//! Log lines on their way out. A system call for each would cost a busy service as much as a quarter of
//! its answers, so that plain lines wait a moment for company; warnings and errors take everything that
//! waits with them at once.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// How long a line waits at most: a process that is killed says nothing of its last moment.
const DELAY_MAX: Duration = Duration::from_millis(20);

/// Bytes that may wait. Beyond them whoever has something to say writes it, however slow the reader is:
/// no line is ever dropped.
const PENDING_BYTES_MAX: usize = 1024 * 1024;

/// Cheap to clone; all clones are one buffer.
#[derive(Clone)]
pub struct LogBuffer(Arc<Shared>);

struct Shared {
    pending: Mutex<Pending>,
    /// The first line waits, since there was none.
    begun: Condvar,
    /// Locked before `pending`, so that lines leave in their order.
    out: Mutex<Box<dyn Write + Send>>,
}

#[derive(Default)]
struct Pending {
    lines: Vec<u8>,
    /// Nobody comes for what waits any more.
    closed: bool,
}

/// Writes what waits when it is dropped; from then on lines do not wait.
pub struct LastLines(LogBuffer);

impl LogBuffer {
    /// Starts the thread that writes. Without one, no line waits.
    pub fn start(out: impl Write + Send + 'static) -> (Self, LastLines) {
        let buffer = LogBuffer(Arc::new(Shared {
            pending: Mutex::default(),
            begun: Condvar::new(),
            out: Mutex::new(Box::new(out)),
        }));
        let of_thread = buffer.clone();
        let thread = std::thread::Builder::new().name("log-writer".into());
        if thread.spawn(move || of_thread.run()).is_err() {
            buffer.close();
        }
        let last_lines = LastLines(buffer.clone());
        (buffer, last_lines)
    }

    fn run(&self) {
        while self.wait_for_lines() {
            std::thread::sleep(DELAY_MAX);
            self.write_out();
        }
    }

    /// Whether there will be any.
    fn wait_for_lines(&self) -> bool {
        let mut pending = self.pending();
        while pending.lines.is_empty() && !pending.closed {
            let woken = self.0.begun.wait(pending);
            pending = woken.unwrap_or_else(PoisonError::into_inner);
        }
        !pending.closed
    }

    fn add(&self, line: &[u8], is_urgent: bool) {
        let mut pending = self.pending();
        let is_first = pending.lines.is_empty();
        pending.lines.extend_from_slice(line);
        let is_due = is_urgent || pending.closed || pending.lines.len() > PENDING_BYTES_MAX;
        drop(pending);
        if is_due {
            self.write_out();
        } else if is_first {
            self.0.begun.notify_one();
        }
    }

    fn write_out(&self) {
        let mut out = self.0.out.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut self.pending().lines);
        // A log that cannot be written is no reason to stop working, and there is nobody to tell.
        let _ = out.write_all(&lines).and_then(|()| out.flush());
    }

    fn close(&self) {
        self.pending().closed = true;
        self.0.begun.notify_one();
        self.write_out();
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        let pending = self.0.pending.lock();
        pending.unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LastLines {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Takes whole lines, as the formatter gives them.
pub struct Lines<'a> {
    buffer: &'a LogBuffer,
    is_urgent: bool,
}

impl<'a> MakeWriter<'a> for LogBuffer {
    type Writer = Lines<'a>;

    fn make_writer(&'a self) -> Lines<'a> {
        Lines {
            buffer: self,
            is_urgent: true,
        }
    }

    fn make_writer_for(&'a self, of: &Metadata<'_>) -> Lines<'a> {
        Lines {
            buffer: self,
            is_urgent: *of.level() <= Level::WARN,
        }
    }
}

impl Write for Lines<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.buffer.add(line, self.is_urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// What reached the outside, write by write.
    struct Outside(Sender<Vec<u8>>);

    impl Write for Outside {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start() -> (LogBuffer, LastLines, Receiver<Vec<u8>>) {
        let (outside, written) = channel();
        let (buffer, last_lines) = LogBuffer::start(Outside(outside));
        (buffer, last_lines, written)
    }

    #[test]
    fn lines_come_without_being_asked_for() {
        let (buffer, _last_lines, written) = start();
        for line in [b"1\n", b"2\n"] {
            buffer.add(line, false);
            assert_eq!(written.recv().unwrap(), line);
        }
    }

    #[test]
    fn an_urgent_line_takes_the_waiting_ones_with_it_in_their_order() {
        let (buffer, _last_lines, written) = start();
        buffer.add(b"plain\n", false);
        buffer.add(b"urgent\n", true);
        let text: Vec<u8> = written.try_iter().flatten().collect();
        assert_eq!(text, b"plain\nurgent\n");
    }

    #[test]
    fn what_waits_is_bounded() {
        let (buffer, _last_lines, written) = start();
        buffer.add(&vec![b'x'; PENDING_BYTES_MAX + 1], false);
        assert_eq!(written.try_iter().flatten().count(), PENDING_BYTES_MAX + 1);
    }

    #[test]
    fn nothing_is_left_behind_at_the_end_or_waits_after_it() {
        let (buffer, last_lines, written) = start();
        buffer.add(b"last\n", false);
        drop(last_lines);
        buffer.add(b"later\n", false);
        let text: Vec<u8> = written.try_iter().flatten().collect();
        assert_eq!(text, b"last\nlater\n");
    }
}
