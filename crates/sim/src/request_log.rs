//! Tests must be able to say "it asked once" or "it fetched 300 KiB": every request leaves a
//! record with what went in and out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};

/// Oldest records are dropped beyond this many.
const KEPT: usize = 200_000;

/// One request. Counters go on while the answer is being sent.
#[derive(Debug)]
pub struct Record {
    /// Running number.
    pub number: u64,
    /// Arrival in milliseconds since the epoch.
    pub at_ms: i64,
    /// `api` or `content`.
    pub host: &'static str,
    /// HTTP method.
    pub method: String,
    /// Raw path without the query.
    pub path: String,
    /// Raw query.
    pub query: String,
    /// Named operation.
    pub op: &'static str,
    /// `Range` header.
    pub range: Option<String>,
    /// `If-Match` header.
    pub if_match: Option<String>,
    /// `User-Agent` header.
    pub user_agent: Option<String>,
    /// Whether an `Authorization` header came along.
    pub authorization: bool,
    /// Body bytes received.
    pub bytes_in: AtomicU64,
    /// Body bytes handed to the connection.
    pub bytes_out: AtomicU64,
    /// Status; 0 when no answer was given.
    pub status: AtomicU16,
    /// When its answer began, or nobody waited for one any more.
    pub ended: OnceLock<Instant>,
}

/// Notes when a request ends, which it does with this.
pub(crate) struct Ending(pub(crate) Arc<Record>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.ended.get_or_init(Instant::now);
    }
}

impl Record {
    /// The record as JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "number": self.number,
            "at_ms": self.at_ms,
            "host": self.host,
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "op": self.op,
            "range": self.range,
            "if_match": self.if_match,
            "user_agent": self.user_agent,
            "authorization": self.authorization,
            "bytes_in": self.bytes_in.load(Ordering::Relaxed),
            "bytes_out": self.bytes_out.load(Ordering::Relaxed),
            "status": self.status.load(Ordering::Relaxed),
        })
    }
}

/// All records.
#[derive(Default)]
pub struct RequestLog {
    records: Mutex<VecDeque<Arc<Record>>>,
    next: AtomicU64,
}

impl RequestLog {
    pub(crate) fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn push(&self, record: Record) -> Arc<Record> {
        let record = Arc::new(record);
        let mut records = self.records.lock();
        records.push_back(record.clone());
        if records.len() > KEPT {
            records.pop_front();
        }
        record
    }

    /// Records with a number above `after`.
    pub fn since(&self, after: u64) -> Vec<Arc<Record>> {
        self.records
            .lock()
            .iter()
            .filter(|r| r.number > after)
            .cloned()
            .collect()
    }

    /// How many requests of an operation were made.
    pub fn count(&self, op: &str) -> usize {
        self.records.lock().iter().filter(|r| r.op == op).count()
    }

    /// Body bytes sent for an operation.
    pub fn bytes_out(&self, op: &str) -> u64 {
        let records = self.records.lock();
        let own = records.iter().filter(|r| r.op == op);
        own.map(|r| r.bytes_out.load(Ordering::Relaxed)).sum()
    }

    /// Forgets all records; numbers go on.
    pub fn clear(&self) {
        self.records.lock().clear();
    }

    /// Per operation: requests, bytes in and out, statuses.
    pub fn counters(&self) -> Value {
        type Row = (u64, u64, u64, BTreeMap<String, u64>);
        let mut counters: BTreeMap<&str, Row> = BTreeMap::new();
        for record in self.records.lock().iter() {
            let entry = counters.entry(record.op).or_default();
            entry.0 += 1;
            entry.1 += record.bytes_in.load(Ordering::Relaxed);
            entry.2 += record.bytes_out.load(Ordering::Relaxed);
            let status = record.status.load(Ordering::Relaxed).to_string();
            *entry.3.entry(status).or_default() += 1;
        }
        let rows = counters
            .into_iter()
            .map(|(op, (requests, bytes_in, bytes_out, statuses))| {
                let row = json!({
                    "requests": requests,
                    "bytes_in": bytes_in,
                    "bytes_out": bytes_out,
                    "statuses": statuses,
                });
                (op.to_owned(), row)
            });
        Value::Object(rows.collect())
    }
}
