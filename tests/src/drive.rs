//! What a test asks about the traffic to and from the drive.

/// Uploads seen by the service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Upload {
    /// Upload sessions that were created.
    pub sessions: u64,
    /// Fragments that were sent.
    pub fragments: u64,
    /// Files sent in one request.
    pub puts: u64,
    /// Bytes of bodies that arrived.
    pub bytes: u64,
}
