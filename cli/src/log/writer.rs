//! The thread that writes log lines to stderr.
//!
//! Whatever is behind stderr may stand still, and then a write waits, whatever `poll` said before: a
//! terminal over a network that hangs is ready as soon as it has room for one byte. So only this
//! thread writes. Everybody else puts lines into its queue, and what does not fit there is lost and
//! counted.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use pimesh_node::config::LogFormat;
use tracing_subscriber::fmt::MakeWriter;

/// Most bytes of lines that wait: some hundred lines, and nothing for the memory of a small machine.
const QUEUE_BYTES_MAX: usize = 64 * 1024;

/// Starts the thread; returns its queue.
///
/// # Errors
/// Fails if there is no thread or descriptor left.
pub(super) fn start(format: LogFormat) -> io::Result<Queue> {
    // A descriptor of its own: the lock of `io::stderr()` would stop all other printing.
    let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    let queue = Queue::new(format);
    let lines = queue.clone();
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || lines.write_to(stderr))?;
    Ok(queue)
}

/// Lines that wait to be written. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    format: LogFormat,
    shared: Arc<(Mutex<Lines>, Condvar)>,
}

#[derive(Default)]
struct Lines {
    waiting: Vec<u8>,
    /// How many lines did not fit behind what waits.
    lost: u64,
    is_writing: bool,
}

impl Queue {
    fn new(format: LogFormat) -> Self {
        Self {
            format,
            shared: Arc::default(),
        }
    }

    /// Adds a line, or counts it as lost. Never waits for the reader of the log.
    fn push(&self, line: &[u8]) {
        let mut lines = self.lines();
        // One line has room, however long its fields are.
        if !lines.waiting.is_empty() && lines.waiting.len() + line.len() > QUEUE_BYTES_MAX {
            lines.lost += 1;
        } else {
            self.say_lost(&mut lines);
            lines.waiting.extend_from_slice(line);
        }
        self.shared.1.notify_all();
    }

    /// Writes what comes, for ever.
    fn write_to(&self, mut to: impl Write) {
        let mut lines = self.lines();
        loop {
            self.say_lost(&mut lines);
            if lines.waiting.is_empty() {
                lines.is_writing = false;
                self.shared.1.notify_all();
                let woken = self.shared.1.wait(lines);
                lines = woken.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let text = std::mem::take(&mut lines.waiting);
            lines.is_writing = true;
            drop(lines);
            // A reader that is gone is no reason to end.
            drop(to.write_all(&text));
            lines = self.lines();
        }
    }

    /// Waits until all is written, but not for longer than this.
    pub(super) fn drain(&self, longest: Duration) {
        let is_open = |lines: &mut Lines| lines.is_writing || !lines.waiting.is_empty();
        drop(
            self.shared
                .1
                .wait_timeout_while(self.lines(), longest, is_open),
        );
    }

    /// Says how many lines were lost behind those that wait.
    fn say_lost(&self, lines: &mut Lines) {
        let lost = std::mem::take(&mut lines.lost);
        if lost > 0 {
            let said = match self.format {
                LogFormat::Text => format!("({lost} log lines were lost here)\n"),
                LogFormat::Json => format!("{{\"lost\":{lost}}}\n"),
            };
            lines.waiting.extend_from_slice(said.as_bytes());
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        let lines = self.shared.0.lock();
        lines.unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Each write is one line, as `tracing_subscriber` makes them.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A reader that stands still until it is let go.
    struct Reader {
        go: mpsc::Receiver<()>,
        read: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _go = self.go.recv();
            self.read.lock().expect("alive").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_no_time() {
        let queue = Queue::new(LogFormat::Text);
        let (go, waits) = mpsc::channel();
        let read = Arc::default();
        let reader = Reader {
            go: waits,
            read: Arc::clone(&read),
        };
        let lines = queue.clone();
        std::thread::spawn(move || lines.write_to(reader));

        // Would end never if one of them waited.
        let count = 3 * QUEUE_BYTES_MAX / 100;
        for number in 0..count {
            queue.push(format!("{number:099}\n").as_bytes());
        }
        drop(go);
        queue.drain(Duration::MAX);
        queue.push(b"later\n");
        queue.drain(Duration::MAX);

        let text = String::from_utf8(read.lock().expect("alive").clone()).expect("UTF-8");
        let (mut seen, mut lost, mut last) = (0, 0, "");
        for line in text.lines() {
            match line.strip_prefix('(') {
                Some(said) => {
                    let number = said.split(' ').next().expect("a number");
                    lost += number.parse::<usize>().expect("a number");
                }
                None => seen += 1,
            }
            last = line;
        }
        assert_eq!(last, "later");
        assert_eq!(seen + lost, count + 1, "each is there or counted as lost");
        assert!(
            lost > 0 && seen * 100 <= 2 * QUEUE_BYTES_MAX + 200,
            "{lost}"
        );
    }

    #[test]
    fn nobody_waits_for_long_for_a_reader_that_stands_still() {
        let queue = Queue::new(LogFormat::Json);
        queue.push(b"{}\n");

        queue.drain(Duration::ZERO);

        assert_eq!(queue.lines().waiting, b"{}\n");
    }
}
