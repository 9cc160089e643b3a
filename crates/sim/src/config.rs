//! One simulator has to play a personal account, a company tenant or a broken service: what is
//! fixed at start is [`SimConfig`], what a test turns while it runs is [`Knobs`].

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::sharing::SharedList;

/// Which back end a drive pretends to live on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DriveKind {
    /// A consumer drive.
    Personal,
    /// OneDrive for Business.
    #[default]
    Business,
    /// A SharePoint document library.
    DocumentLibrary,
}

impl DriveKind {
    /// The word that `driveType` shows.
    pub fn as_str(self) -> &'static str {
        match self {
            DriveKind::Personal => "personal",
            DriveKind::Business => "business",
            DriveKind::DocumentLibrary => "documentLibrary",
        }
    }
}

/// A drive that exists from the start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct DriveSpec {
    /// Drive id; empty means one of the right shape is made up.
    pub id: String,
    /// Back end.
    pub kind: DriveKind,
    /// Display name.
    pub name: String,
    /// Id of the owning user.
    pub owner: String,
    /// Quota in bytes.
    pub quota: u64,
    /// Personal drives only: item ids and tags in the shape used before the migration.
    pub classic_ids: bool,
}

impl Default for DriveSpec {
    fn default() -> Self {
        DriveSpec {
            id: String::new(),
            kind: DriveKind::Business,
            name: "OneDrive".into(),
            owner: "user-1".into(),
            quota: 1 << 40,
            classic_ids: false,
        }
    }
}

/// Somebody who can sign in.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UserSpec {
    /// Object id.
    pub id: String,
    /// User principal name.
    pub upn: String,
    /// Display name.
    pub name: String,
    /// Id of the tenant, or `consumers` for a personal account; matters only where there are
    /// tenants.
    pub tenant: String,
    /// Whether the account may not be used.
    pub disabled: bool,
}

/// An organisation. Without any, every tenant is known and has every user.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantSpec {
    /// Its id.
    pub id: String,
    /// Domains by which it can be named, too.
    pub domains: Vec<String>,
    /// The cloud it lives in: `usgov-l4`, `usgov-l5` or `china`; empty is the global one. Matters only
    /// for requests to the genuine names of hosts.
    pub cloud: String,
    /// Whether people may not consent to applications themselves.
    pub consent_by_admin: bool,
}

/// Which accounts an application is registered for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// Any organisation, and personal accounts.
    #[default]
    Everybody,
    /// Any organisation.
    Organizations,
    /// One organisation.
    OneTenant,
    /// Personal accounts.
    Personal,
}

/// An app registration. Without any, every client id is accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientSpec {
    /// Application id.
    pub id: String,
    /// Secret of a confidential client.
    pub secret: Option<String>,
    /// Registered redirect URIs; the port of loopback ones is ignored in matching.
    pub redirect_uris: Vec<String>,
    /// Whether public flows (device code) are allowed.
    pub public: bool,
    /// Whether application permissions were granted, so that app-only tokens carry roles.
    pub app_roles: bool,
    /// Application permissions that were granted; empty = those that give everything.
    pub roles: Vec<String>,
    /// Thumbprints (`x5t` or `x5t#S256` values) accepted in client assertions; empty = any.
    pub thumbprints: Vec<String>,
    /// Registered certificates in PEM; with any, assertions must be signed with one's key.
    pub certificates: Vec<String>,
    /// Whether the secret has expired.
    pub secret_expired: bool,
    /// Whether the registration was switched off.
    pub disabled: bool,
    /// For whom it is registered.
    pub audience: Audience,
    /// The tenant it is registered in.
    pub tenant: String,
}

impl Default for ClientSpec {
    fn default() -> Self {
        ClientSpec {
            id: String::new(),
            secret: None,
            redirect_uris: vec!["http://localhost".into()],
            public: true,
            app_roles: true,
            roles: Vec::new(),
            thumbprints: Vec::new(),
            certificates: Vec::new(),
            secret_expired: false,
            disabled: false,
            audience: Audience::Everybody,
            tenant: String::new(),
        }
    }
}

/// A SharePoint site and its libraries.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct SiteSpec {
    /// `host,siteGuid,webGuid`.
    pub id: String,
    /// Host name used in addressing.
    pub host: String,
    /// Server-relative path, as in `/sites/team`.
    pub path: String,
    /// Display name.
    pub name: String,
    /// Ids of its libraries; the first is the default one.
    pub drives: Vec<String>,
    /// Ids of those who may see it; empty = everybody.
    pub members: Vec<String>,
}

/// A group of people, with a drive if one is owned by its id, and a team if it is one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GroupSpec {
    /// Object id.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Ids of its members.
    pub members: Vec<String>,
    /// Whether it is a team.
    pub team: bool,
    /// Channels of the team.
    pub channels: Vec<ChannelSpec>,
}

/// A channel of a team.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ChannelSpec {
    /// Its id, as in `19:…@thread.tacv2`.
    pub id: String,
    /// Display name.
    pub name: String,
    /// Name of its folder; empty = as the channel.
    pub folder: String,
    /// The drive its folder is in; empty = the group's. Private channels have one of their own.
    pub drive: String,
}

/// Everything that is fixed when the simulator starts.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct SimConfig {
    /// Port of the login and Graph host, 0 for any.
    pub port: u16,
    /// Port of the content host, 0 for any.
    pub content_port: u16,
    /// Port of the control host (always reachable, also while offline), 0 for any.
    pub control_port: u16,
    /// Loopback address of the content host. Another one than 127.0.0.1 gives it another host
    /// name, which matters to clients that compare only host names on redirects.
    pub content_address: IpAddr,
    /// Address of the login and Graph host in links, when clients reach it through something that
    /// ends TLS, such as `https://graph.microsoft.com`; the one listened on by default.
    pub public_api: Option<String>,
    /// The same for the content host.
    pub public_content: Option<String>,
    /// Where large uploads are spooled; the system's temporary directory by default.
    pub spool_dir: Option<PathBuf>,
    /// Users; the first is the one who signs in unless `login_hint` says otherwise.
    pub users: Vec<UserSpec>,
    /// Drives; the first one owned by a user is that user's default drive.
    pub drives: Vec<DriveSpec>,
    /// App registrations; empty accepts every client id.
    pub clients: Vec<ClientSpec>,
    /// Organisations; empty accepts every tenant.
    pub tenants: Vec<TenantSpec>,
    /// SharePoint sites.
    pub sites: Vec<SiteSpec>,
    /// Groups and teams.
    pub groups: Vec<GroupSpec>,
    /// Initial behaviour.
    pub knobs: Knobs,
}

impl Default for SimConfig {
    fn default() -> Self {
        SimConfig {
            port: 0,
            content_port: 0,
            control_port: 0,
            content_address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            public_api: None,
            public_content: None,
            spool_dir: None,
            users: vec![UserSpec {
                id: "user-1".into(),
                upn: "ada@example.com".into(),
                name: "Ada Example".into(),
                ..UserSpec::default()
            }],
            drives: vec![DriveSpec::default()],
            clients: Vec::new(),
            tenants: Vec::new(),
            sites: Vec::new(),
            groups: Vec::new(),
            knobs: Knobs::default(),
        }
    }
}

impl SimConfig {
    /// One user with one drive of the given kind.
    pub fn with_kind(kind: DriveKind) -> Self {
        SimConfig {
            drives: vec![DriveSpec {
                kind,
                ..DriveSpec::default()
            }],
            ..Self::default()
        }
    }
}

/// How delta on a sub-folder behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubfolderDelta {
    /// Changes below that folder only.
    #[default]
    Supported,
    /// 501 notSupported.
    NotSupported,
    /// The changes of the whole drive.
    WholeDrive,
}

/// What the person at the other device does with a device code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceOutcome {
    /// Approves after [`Knobs::device_polls`] polls.
    #[default]
    Approve,
    /// Refuses.
    Decline,
    /// Never comes back; the code runs out.
    Expire,
    /// Does nothing until the control interface approves.
    Wait,
}

/// Behaviour that can be changed while the simulator runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Knobs {
    /// Items per delta page.
    pub delta_page_size: usize,
    /// Every page begins with an outdated copy of one of its items.
    pub delta_repeats: bool,
    /// Pages list children before their parents.
    pub delta_child_first: bool,
    /// Every run begins with an empty page.
    pub delta_empty_page: bool,
    /// A deleted folder brings tombstones for all that was in it.
    pub delta_descendant_tombstones: bool,
    /// Tombstones hold nothing but the id and the deleted facet.
    pub delta_bare_tombstones: bool,
    /// Delta answers 400 as in some national clouds.
    pub delta_unsupported: bool,
    /// Links take the form `delta(token='…')`.
    pub delta_function_links: bool,
    /// Tokens older than this are gone.
    pub delta_token_ttl_s: i64,
    /// Outer code of the 410.
    pub delta_gone_code: String,
    /// Inner code of the 410.
    pub delta_gone_inner: String,
    /// Delta on folders.
    pub subfolder_delta: SubfolderDelta,
    /// The list of what others shared.
    pub shared_list: SharedList,
    /// Items per listing page unless `$top` says otherwise.
    pub children_page_size: usize,
    /// Sites per page of a search.
    pub sites_page_size: usize,
    /// Access token lifetime.
    pub token_ttl_s: i64,
    /// A used refresh token is revoked at once.
    pub refresh_single_use: bool,
    /// AADSTS number that every refresh fails with.
    pub refresh_error: Option<u32>,
    /// Refuses renewals until somebody signs in with these claims: a policy asks for more than was proven.
    pub refresh_claims: Option<String>,
    /// Error that authorize returns instead of a code, such as `access_denied`.
    pub authorize_error: Option<String>,
    /// AADSTS number that every request for a token fails with, as `invalid_grant`, or as what
    /// stands in front of it: `unauthorized_client 700016`.
    pub token_error: Option<String>,
    /// Of what is asked for, only these permissions are granted to people.
    pub grant_only: Option<Vec<String>>,
    /// Polls of a device code that are answered with `authorization_pending`.
    pub device_polls: u32,
    /// Poll interval announced for device codes.
    pub device_interval_s: i64,
    /// Polls answered with `slow_down` before any other answer.
    pub device_slow_downs: u32,
    /// Device code lifetime.
    pub device_ttl_s: i64,
    /// What happens to device codes.
    pub device_outcome: DeviceOutcome,
    /// Lifetime of pre-authenticated download URLs.
    pub download_ttl_s: i64,
    /// Upload session lifetime, counted from the last fragment.
    pub session_ttl_s: i64,
    /// `/content` answers 200 with the body instead of redirecting.
    pub content_direct: bool,
    /// Downloads ignore `Range`.
    pub ignore_range: bool,
    /// Added to the `size` shown for files, without changing the bytes.
    pub wrong_size: i64,
    /// Hashes are left out.
    pub hash_missing: bool,
    /// Nothing tells who made or changed an item.
    pub authors_missing: bool,
    /// The quota of drives is left out.
    pub quota_missing: bool,
    /// Business and libraries change Office-like files after an upload.
    pub office_rewrite: bool,
    /// The first fragment of each session answers 404 once.
    pub session_404_once: bool,
    /// Also asking for a session's status is refused when an Authorization header comes along.
    pub session_status_strict: bool,
    /// Committing a session answers 201 without a body.
    pub empty_commit_body: bool,
    /// PATCH answers 204 without a body.
    pub patch_no_content: bool,
    /// A move without fileSystemInfo sets the modification time to now.
    pub move_resets_mtime: bool,
    /// `If-Match` on DELETE always answers 412.
    pub delete_if_match_fails: bool,
    /// Polls of a copy monitor answered with `inProgress`.
    pub copy_polls: u32,
    /// Copies end with `status: failed`.
    pub copy_fails: bool,
    /// A finished copy monitor answers 303 to the item.
    pub copy_monitor_redirects: bool,
    /// `ae` and `æ` are the same name.
    pub ae_rule: bool,
    /// Personal drive ids lose their leading zero in `remoteItem` and change case in delta.
    pub personal_id_quirks: bool,
    /// Lists put a UTF-8 byte order mark before JSON.
    pub json_bom: bool,
    /// Resource units per minute; absent means no throttling.
    pub ru_per_minute: Option<u32>,
    /// Delay added to every request.
    pub latency_ms: u64,
    /// Bytes per second and connection in each direction; 0 means unlimited.
    pub bandwidth: u64,
    /// Bytes per second of all connections together in each direction; 0 means unlimited.
    pub line_bandwidth: u64,
    /// Lifetime of a push channel.
    pub socket_ttl_s: i64,
    /// Ping interval of a push channel.
    pub socket_ping_ms: u64,
    /// Announced wait for a pong; a client that sends nothing for an interval and this is cut off.
    pub socket_pong_ms: u64,
    /// Push channels stay open and say nothing: no ping, no event, no answer.
    pub socket_silent: bool,
    /// Every push channel is cut after so long.
    pub socket_life_ms: Option<u64>,
    /// Events come in the main namespace.
    pub socket_main_namespace: bool,
}

impl Default for Knobs {
    fn default() -> Self {
        Knobs {
            delta_page_size: 200,
            delta_repeats: false,
            delta_child_first: false,
            delta_empty_page: false,
            delta_descendant_tombstones: false,
            delta_bare_tombstones: false,
            delta_unsupported: false,
            delta_function_links: false,
            delta_token_ttl_s: 30 * 86_400,
            delta_gone_code: "resyncRequired".into(),
            delta_gone_inner: "resyncApplyDifferences".into(),
            subfolder_delta: SubfolderDelta::Supported,
            shared_list: SharedList::Full,
            children_page_size: 200,
            sites_page_size: 200,
            token_ttl_s: 3_899,
            refresh_single_use: false,
            refresh_error: None,
            refresh_claims: None,
            authorize_error: None,
            token_error: None,
            grant_only: None,
            device_polls: 2,
            device_interval_s: 5,
            device_slow_downs: 0,
            device_ttl_s: 900,
            device_outcome: DeviceOutcome::Approve,
            download_ttl_s: 3_600,
            session_ttl_s: 900,
            content_direct: false,
            ignore_range: false,
            wrong_size: 0,
            hash_missing: false,
            authors_missing: false,
            quota_missing: false,
            office_rewrite: false,
            session_404_once: false,
            session_status_strict: false,
            empty_commit_body: false,
            patch_no_content: false,
            move_resets_mtime: false,
            delete_if_match_fails: false,
            copy_polls: 1,
            copy_fails: false,
            copy_monitor_redirects: false,
            ae_rule: false,
            personal_id_quirks: false,
            json_bom: false,
            ru_per_minute: None,
            latency_ms: 0,
            bandwidth: 0,
            line_bandwidth: 0,
            socket_ttl_s: 3_600,
            socket_ping_ms: 25_000,
            socket_pong_ms: 60_000,
            socket_silent: false,
            socket_life_ms: None,
            socket_main_namespace: false,
        }
    }
}
