//! Bytes on their way in: small bodies gather in memory, large ones in a temporary file, both
//! hashed as they come. A fragment counts whole or not at all.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt;

use crate::body::{FileBody, INLINE_LIMIT};
use crate::error::{ApiError, ApiResult};
use crate::quickxor::QuickXor;

/// Bytes that have arrived, with their hash.
pub(crate) struct Spool {
    memory: Vec<u8>,
    file: Option<Arc<File>>,
    hash: QuickXor,
    pub(crate) len: u64,
}

impl Spool {
    pub(crate) fn new(total: Option<u64>, dir: Option<&Path>) -> io::Result<Self> {
        let file = match (total, dir) {
            (Some(total), _) if total <= INLINE_LIMIT => None,
            (_, Some(dir)) => Some(Arc::new(tempfile::tempfile_in(dir)?)),
            (_, None) => Some(Arc::new(tempfile::tempfile()?)),
        };
        Ok(Spool {
            memory: Vec::new(),
            file,
            hash: QuickXor::new(),
            len: 0,
        })
    }

    async fn write(&mut self, chunk: Bytes) -> io::Result<()> {
        self.hash.update(&chunk);
        let at = self.len;
        self.len += chunk.len() as u64;
        match &self.file {
            None => self.memory.extend_from_slice(&chunk),
            Some(file) => {
                let file = file.clone();
                tokio::task::spawn_blocking(move || file.write_all_at(&chunk, at))
                    .await
                    .map_err(io::Error::other)??;
            }
        }
        Ok(())
    }

    /// Takes exactly `expected` bytes, or leaves everything as it was.
    pub(crate) async fn fill(&mut self, body: Body, expected: u64) -> ApiResult<()> {
        let (before, hash) = (self.len, self.hash.clone());
        let result = self.fill_all(body, expected).await;
        if result.is_err() {
            self.len = before;
            self.hash = hash;
            self.memory
                .truncate(usize::try_from(before).unwrap_or(usize::MAX));
        }
        result
    }

    async fn fill_all(&mut self, body: Body, expected: u64) -> ApiResult<()> {
        let mut stream = body.into_data_stream();
        let mut got = 0;
        while let Some(chunk) = stream.next().await {
            let broken = || ApiError::new(400, "invalidRequest", "The body ended early.");
            let chunk = chunk.map_err(|_| broken())?;
            got += chunk.len() as u64;
            if got > expected {
                return Err(length_mismatch());
            }
            self.write(chunk).await.map_err(|e| ApiError::io(&e))?;
        }
        if got != expected {
            Err(length_mismatch())
        } else {
            Ok(())
        }
    }

    /// Takes everything up to a limit.
    pub(crate) async fn drain(&mut self, body: Body, limit: u64) -> ApiResult<()> {
        let mut stream = body.into_data_stream();
        while let Some(chunk) = stream.next().await {
            let chunk =
                chunk.map_err(|_| ApiError::new(400, "invalidRequest", "The body ended early."))?;
            if self.len + chunk.len() as u64 > limit {
                return Err(ApiError::new(
                    413,
                    "maxFileSizeExceeded",
                    "The file is too large.",
                ));
            }
            self.write(chunk).await.map_err(|e| ApiError::io(&e))?;
        }
        Ok(())
    }

    pub(crate) async fn append(&mut self, bytes: &'static [u8]) -> ApiResult<()> {
        self.write(Bytes::from_static(bytes))
            .await
            .map_err(|e| ApiError::io(&e))
    }

    /// The finished body and its hash.
    pub(crate) fn body(&self) -> (FileBody, [u8; 20]) {
        let body = match &self.file {
            Some(file) => FileBody::Spooled {
                file: file.clone(),
                size: self.len,
            },
            None => FileBody::Inline(Bytes::copy_from_slice(&self.memory)),
        };
        (body, self.hash.finish())
    }
}

pub(crate) fn length_mismatch() -> ApiError {
    let message = "The body length does not match the Content-Range.";
    ApiError::bad_request(message).inner("fragmentLengthMismatch")
}
