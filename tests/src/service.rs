//! The simulated service, for tests that are not asynchronous themselves: they wait in system
//! calls of the mount.

use std::ops::Deref;
use std::sync::atomic::Ordering;

use onedrivefs_sim::{SimConfig, Simulator};
use tokio::runtime::{Builder, Runtime};

use crate::drive::Upload;

/// Threads that play the service.
const THREADS: usize = 2;

/// A simulator with its event loop.
pub struct Service {
    simulator: Simulator,
    runtime: Runtime,
}

impl Service {
    /// Starts one with a single empty business drive, and device codes that are approved at once.
    ///
    /// # Panics
    /// When loopback cannot be listened on.
    #[must_use]
    pub fn start() -> Self {
        Self::with(|_| {})
    }

    /// Starts one with another configuration.
    ///
    /// # Panics
    /// When loopback cannot be listened on.
    #[must_use]
    pub fn with(change: impl FnOnce(&mut SimConfig)) -> Self {
        let mut config = SimConfig::default();
        config.knobs.device_polls = 0;
        config.knobs.device_interval_s = 1;
        change(&mut config);
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .enable_all()
            .build()
            .expect("event loop");
        let simulator = runtime
            .block_on(Simulator::start(config))
            .expect("simulator");
        Self { simulator, runtime }
    }

    /// The event loop, for what else a test serves.
    #[must_use]
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Bytes of file bodies that clients have fetched.
    #[must_use]
    pub fn downloaded_bytes(&self) -> u64 {
        self.requests().bytes_out("download") + self.requests().bytes_out("content")
    }

    /// Every download as one line of text: the range that was asked for, and the bytes that went
    /// out.
    #[must_use]
    pub fn download_lines(&self) -> Vec<String> {
        let all = self.requests().since(0).into_iter();
        let lines = all.filter(|record| matches!(record.op, "download" | "content"));
        let line = |record: std::sync::Arc<onedrivefs_sim::Record>| {
            let bytes = record.bytes_out.load(Ordering::Relaxed);
            format!(
                "{} {} {bytes}",
                record.op,
                record.range.as_deref().unwrap_or("all")
            )
        };
        lines.map(line).collect()
    }

    /// What clients have sent as file bodies since request `after`.
    #[must_use]
    pub fn upload_since(&self, after: u64) -> Upload {
        let mut upload = Upload::default();
        for record in self.requests().since(after) {
            let bytes = record.bytes_in.load(Ordering::Relaxed);
            match record.op {
                "create_session" => upload.sessions += 1,
                "upload_fragment" => {
                    upload.fragments += 1;
                    upload.bytes += bytes;
                }
                "put_content" | "put_item" => {
                    upload.puts += 1;
                    upload.bytes += bytes;
                }
                _ => {}
            }
        }
        upload
    }

    /// Number of the newest request.
    #[must_use]
    pub fn last_request(&self) -> u64 {
        let all = self.requests().since(0);
        all.last().map_or(0, |record| record.number)
    }

    /// Every request as one line of text: method, path, query and status.
    #[must_use]
    pub fn request_lines(&self) -> Vec<String> {
        let lines = self.requests().since(0).into_iter().map(|record| {
            format!(
                "{} {} {}?{} {}",
                record.op,
                record.method,
                record.path,
                record.query,
                record.status.load(Ordering::Relaxed)
            )
        });
        lines.collect()
    }
}

impl Deref for Service {
    type Target = Simulator;

    fn deref(&self) -> &Simulator {
        &self.simulator
    }
}
