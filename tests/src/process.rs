//! Programs that a test runs to their end, with a limit on their time.

use std::io::{ErrorKind, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What a program left behind.
#[derive(Debug)]
pub struct Ran {
    /// Exit code; `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// What was run.
    pub line: String,
}

impl Ran {
    /// Expects success, and gives standard output.
    ///
    /// # Panics
    /// When the program failed.
    pub fn ok(self) -> String {
        assert_eq!(
            self.code,
            Some(0),
            "{}\nstdout: {}\nstderr: {}",
            self.line,
            self.out,
            self.err
        );
        self.out
    }

    /// Expects a failure told to a person: this exit code, a sentence that holds `reason`, a next
    /// step, and nothing of the program's inside.
    ///
    /// # Panics
    /// When any of that is missing.
    pub fn explained(&self, code: i32, reason: &str) {
        let told = format!(
            "{}\nexit code {:?}\nstdout: {}\nstderr: {}",
            self.line, self.code, self.out, self.err
        );
        assert_eq!(self.code, Some(code), "{told}");
        assert!(self.err.contains("onedrivefs: "), "no sentence: {told}");
        assert!(self.err.contains("next: "), "no next step: {told}");
        assert!(self.err.contains(reason), "does not say {reason:?}: {told}");
        for inside in ["panicked", "internal error", "Error {", "Os {", "Some("] {
            assert!(!self.err.contains(inside), "{told}");
        }
    }
}

/// Runs a program to its end.
///
/// # Panics
/// When it cannot be started or does not end within `limit`.
pub fn run(mut command: Command, limit: Duration) -> Ran {
    let line = format!("{command:?}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let mut child = loop {
        match command.spawn() {
            Ok(child) => break child,
            // A program that was just copied is open for writing in what another thread forked, until
            // that becomes the program it starts.
            Err(error)
                if error.kind() == ErrorKind::ExecutableFileBusy && start.elapsed() < limit =>
            {
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => panic!("{line}: {error}"),
        }
    };
    let out = collect(child.stdout.take());
    let err = collect(child.stderr.take());
    let status = wait(&mut child, limit);
    if status.is_none() {
        drop(child.kill());
    }
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().unwrap_or_default()).into_owned()
    };
    let Some(status) = status else {
        panic!("{line}: still running after {} s", limit.as_secs());
    };
    Ran {
        code: status.code(),
        out: text(out),
        err: text(err),
        line,
    }
}

/// Waits for a process to end; `None` when it does not within `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if start.elapsed() < limit => thread::sleep(Duration::from_millis(10)),
            _ => return None,
        }
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            drop(stream.read_to_end(&mut bytes));
        }
        bytes
    })
}
