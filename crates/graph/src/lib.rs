//! Talks to Microsoft Graph and its identity platform, and to nothing else of the program.
//!
//! The service is liberal in what it sends: fields go missing, numbers arrive as strings, errors
//! as HTML, links with foreign hosts. This crate turns all of that into the nouns of
//! `onedrivefs_core` and one error type whose [`GraphError::disposition`] says what to do next.
//!
//! One path leads to the network: it waits out an account-wide hold, adds the bearer token only
//! for the configured Graph origin, bounds what it reads and classifies what went wrong. It
//! repeats reads by itself; a mutation is never blindly repeated, because only its caller can find
//! out whether the first attempt was applied.

mod advice;
pub mod auth;
mod client;
mod config;
mod download;
mod drives;
mod error;
mod frames;
mod http_client;
mod items;
mod lanes;
mod lenient;
mod links;
mod manage;
mod models;
mod mutate;
mod permissions;
mod probe;
mod push;
mod route;
mod search;
mod send;
mod shared;
mod throttle;
mod upload;
mod wire;
mod witness;

pub use client::GraphClient;
pub use config::{AuthConfig, Cloud, Endpoints, HttpOptions, Reach, SignIn, default_scopes};
pub use download::{DownloadSource, RangeBody};
pub use error::{Disposition, GraphError, RequestKind, ResyncKind, ServiceError, TransportKind};
pub use lanes::{Lane, in_lane};
pub use models::{
    Channel, Conditions, CopyMonitor, CopyStatus, DeltaFrom, DeltaNext, DeltaPage, DriveInfo,
    FragmentOutcome, ItemPage, ItemPatch, LinkKind, LinkScope, Me, OnConflict, SharedItem,
    SharingLink, SiteInfo, Team, UploadProps, UploadSession, UploadStatus, UploadTarget, Version,
};
pub use permissions::{Feature, Permissions};
pub use probe::{Probe, Silence, addresses, probe};
pub use push::{PushChannel, PushEndpoint};
