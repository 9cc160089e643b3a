//! The command line: one file per command, the definitions in one place so that help,
//! completions and manual pages cannot differ.

mod accounts;
mod app;
mod completions;
mod config;
pub(crate) mod consent;
mod daemons;
mod demo;
mod doctor;
mod drives;
mod login;
mod logout;
mod mount;
mod parked;
mod pin;
mod service;
mod status;
mod sync;
mod unmount;
mod users;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::failure::{Explain, Outcome};
use crate::guard;
use crate::logging::{self, Verbosity};
use crate::paths::AccountName;
use crate::size::ByteSize;

/// Mounts OneDrive and SharePoint libraries as a local file system.
///
/// Files appear at once and are fetched when they are read; changes are kept on this machine first
/// and sent in the background, also after days without a network.
#[derive(Debug, Parser)]
#[command(name = "onedrivefs", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Sign in to an account
    Login(LoginArgs),
    /// Sign out of an account
    Logout(LogoutArgs),
    /// Work with the registration of an application
    #[command(subcommand)]
    App(AppCommand),
    /// List the accounts signed in to, and what is mounted
    Accounts(AccountsArgs),
    /// List the drives an account can mount
    Drives(DrivesArgs),
    /// List the people whose drives an application can mount, as `drives --users` does
    Users(UsersArgs),
    /// Make the configuration file if there is none, or say where it is
    Config(ConfigArgs),
    /// Mount a drive and serve it until it is unmounted
    Mount(MountArgs),
    /// Unmount, after everything accepted is safe on this machine
    Unmount(UnmountArgs),
    /// Mount a simulated drive, without an account or a network
    Demo(DemoArgs),
    /// Mount at every login, through systemd
    Service(ServiceArgs),
    /// Show the state of a mount, or of one file
    Status(StatusArgs),
    /// Wait until all local changes are sent and remote ones are applied
    Sync(SyncArgs),
    /// Keep files and folders whole on this machine, up to date and there without a network
    ///
    /// What is not here is fetched in the background, while programs that read go first. A pinned folder
    /// keeps all that is in it, also what appears in it later. What is pinned is never removed to make
    /// room, even if it is more than `cache_size`; nothing is fetched while the disk has less than
    /// `free_space` left.
    ///
    /// A pin belongs to the file or folder: it goes along when that is renamed or moved, and it stays
    /// until `onedrivefs unpin`. What is pinned only by its folder is pinned for as long as it is in it.
    Pin(PinArgs),
    /// No longer keep what was pinned; it stays until the cache needs the room
    ///
    /// Ends a pin: of a folder, for everything in it that has no pin of its own. Nothing is removed at
    /// once; `onedrivefs evict` does that.
    Unpin(UnpinArgs),
    /// Free the space of content that the service has
    ///
    /// Removes content from this machine that the service has; the files stay in the mount and are
    /// fetched again when they are read. What is not sent yet, what a program has open and what is
    /// pinned stays and is named, and the exit code is 1 then.
    Evict(EvictArgs),
    /// Send changes that could not be sent, or deletions that are held back
    Retry(PathsArgs),
    /// Copy the local bodies of changes that could not be sent to the current directory
    Export(PathsArgs),
    /// Give up changes that could not be sent, and take back deletions that were not
    Discard(PathsArgs),
    /// Find out what is wrong with the set-up
    Doctor(DoctorArgs),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
    /// Write the manual pages
    #[command(hide = true)]
    Man(ManArgs),
    /// Watch over the process that started this one
    #[command(hide = true)]
    Guard(GuardArgs),
}

#[derive(Debug, Default, Args)]
pub(crate) struct AccountArg {
    /// The account, by the name given at login
    #[arg(long, value_name = "NAME")]
    account: Option<AccountName>,
}

#[derive(Debug, Default, Args)]
#[command(
    after_help = "The redirect URI to register is http://localhost, platform \"Public \
                  client/native\"; any port is used then. Another one is given as --redirect-uri, or \
                  as redirect_uri below [accounts.NAME] in the configuration, exactly as registered."
)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    account: AccountArg,
    /// Sign in on another device by typing a code, instead of in this machine's browser
    #[arg(long)]
    device_code: bool,
    /// Sign in with a browser on another machine, and paste the address it ends at
    #[arg(long, conflicts_with = "device_code")]
    paste: bool,
    /// Application (client) id of your app registration
    #[arg(long, value_name = "ID", env = "ONEDRIVEFS_CLIENT_ID")]
    client_id: Option<String>,
    /// Tenant id or domain, or common, organizations, consumers [default: common]
    #[arg(long, value_name = "T")]
    tenant: Option<String>,
    /// The cloud of the account: global, usgov-l4, usgov-l5 or china [default: global]
    #[arg(long, value_name = "C")]
    cloud: Option<String>,
    /// The redirect URI, exactly as registered [default: http://localhost]
    #[arg(long, value_name = "URI")]
    redirect_uri: Option<String>,
    /// Sign in as the application itself, without a person
    #[arg(long, conflicts_with_all = ["device_code", "paste", "scopes", "read_only", "sites", "teams"])]
    app_only: bool,
    /// Whose drive an application mounts, by sign-in name or id; implies --app-only
    #[arg(long, value_name = "UPN")]
    user: Option<String>,
    #[command(flatten)]
    proof: ProofArgs,
    /// Permission to ask for, instead of the usual ones; may be repeated
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Ask for no permission to change anything; mounts are read-only then
    #[arg(long, conflicts_with = "scopes")]
    read_only: bool,
    /// Ask for the permission to find sites and their libraries, too
    #[arg(long, conflicts_with = "scopes")]
    sites: bool,
    /// Ask for the permission to find teams and their channels, too
    #[arg(long, conflicts_with = "scopes")]
    teams: bool,
    /// Print the address at which an administrator approves the application for everybody
    #[arg(long, conflicts_with_all = ["device_code", "paste"])]
    admin_consent_url: bool,
    /// Tell what the address says at which the administrator's browser ended
    #[arg(long, value_name = "URL", conflicts_with_all = ["device_code", "paste", "admin_consent_url"])]
    admin_consent_result: Option<String>,
}

/// What proves an application.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ProofArgs {
    /// File with the client secret; - reads standard input
    #[arg(long, value_name = "F", conflicts_with = "device_code")]
    client_secret_file: Option<PathBuf>,
    /// Ask for the client secret on the terminal
    #[arg(long, conflicts_with_all = ["client_secret_file", "certificate"])]
    client_secret: bool,
    /// The last day on which the client secret is good, for example 2028-11-30
    #[arg(long, value_name = "DATE")]
    secret_expires: Option<jiff::civil::Date>,
    /// Certificate in PEM, instead of a client secret
    #[arg(long, value_name = "PEM", conflicts_with = "client_secret_file")]
    certificate: Option<PathBuf>,
    /// Private key of the certificate in PEM [default: in the same file]
    #[arg(long, value_name = "PEM", requires = "certificate")]
    key: Option<PathBuf>,
    /// File with the passphrase of the private key; - reads standard input
    #[arg(long, value_name = "F", requires = "certificate")]
    key_passphrase_file: Option<PathBuf>,
    /// Thumbprint under which the certificate is registered, in hexadecimal
    #[arg(long, value_name = "HEX", requires = "certificate")]
    thumbprint: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AppCommand {
    /// Print the keyCredentials entry of the manifest that registers a certificate
    Cert(AppCertArgs),
    /// Sign in an application that another program knows as app_permission~CLIENT-ID
    Import(AppImportArgs),
}

#[derive(Debug, Args)]
pub(crate) struct AppCertArgs {
    /// Certificate in PEM
    #[arg(value_name = "PEM")]
    certificate: PathBuf,
    /// Id of the entry [default: a new one]
    #[arg(long, value_name = "GUID")]
    key_id: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AppImportArgs {
    #[command(flatten)]
    account: AccountArg,
    /// The combined name: app_permission~ and the client id
    #[arg(value_name = "NAME")]
    name: String,
    /// Directory (tenant) id, or a domain of it
    #[arg(long, value_name = "T")]
    tenant: String,
    /// Whose drive is mounted, by sign-in name or id
    #[arg(long, value_name = "UPN")]
    user: Option<String>,
    /// The cloud of the account: global, usgov-l4, usgov-l5 or china [default: global]
    #[arg(long, value_name = "C")]
    cloud: Option<String>,
    #[command(flatten)]
    proof: ImportProof,
}

/// Where the secret of an imported application comes from.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ImportProof {
    /// File with the client secret; - reads standard input
    #[arg(long, value_name = "F")]
    client_secret_file: Option<PathBuf>,
    /// Ask for the client secret on the terminal
    #[arg(long)]
    client_secret: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UsersArgs {
    #[command(flatten)]
    account: AccountArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LogoutArgs {
    #[command(flatten)]
    account: AccountArg,
    /// Remove everything kept about the account on this machine, including its cache
    #[arg(long)]
    forget: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AccountsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DrivesArgs {
    #[command(flatten)]
    account: AccountArg,
    /// List the libraries of SharePoint sites: a site's address, or words of its name
    #[arg(long, value_name = "SEARCH")]
    site: Option<String>,
    /// List the files of teams
    #[arg(long, conflicts_with = "site")]
    teams: bool,
    /// List what others shared
    #[arg(long, conflicts_with_all = ["site", "teams"])]
    shared: bool,
    /// List the people whose drives an application can mount
    #[arg(long, conflicts_with_all = ["site", "teams", "shared"])]
    users: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// What to do
    #[arg(value_enum, value_name = "ACTION")]
    action: ConfigAction,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ConfigAction {
    /// Make the file, unless there is one
    Init,
    /// Print where it is
    Path,
}

#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    #[command(flatten)]
    account: AccountArg,
    /// The drive, by its id as `onedrivefs drives` prints it [default: your own drive]
    #[arg(long, value_name = "ID", group = "whose")]
    drive: Option<String>,
    /// The drive of this person, by sign-in name or id
    #[arg(long, value_name = "UPN", group = "whose")]
    user: Option<String>,
    /// A library of this SharePoint site: its address, or words of its name
    #[arg(long, value_name = "URL", group = "whose")]
    site: Option<String>,
    /// The library of the site, by name [default: its first one]
    #[arg(long, value_name = "NAME", requires = "site")]
    library: Option<String>,
    /// The files of this team, by its name or id
    #[arg(long, value_name = "NAME", group = "whose")]
    team: Option<String>,
    /// The files of one channel of the team only, by the channel's name
    #[arg(long, value_name = "NAME", requires = "team")]
    channel: Option<String>,
    /// A folder or file that somebody shared: its name, or a sharing link
    #[arg(long, value_name = "NAME", group = "whose")]
    shared: Option<String>,
    /// The application's own folder, which is all that the permission Files.ReadWrite.AppFolder opens
    #[arg(long, conflicts_with_all = ["user", "site", "team", "shared", "folder"])]
    app_folder: bool,
    /// All drives of the account: My files, Shared, Sites, Teams, and for an application Users
    #[arg(long, conflicts_with_all = ["user", "site", "team", "shared", "drive", "app_folder", "folder"])]
    tree: bool,
    /// Only this folder of it: its path there, or id:ITEM
    #[arg(long, value_name = "PATH")]
    folder: Option<String>,
    /// Refuse all changes
    #[arg(long)]
    read_only: bool,
    /// Let other users of this machine in
    #[arg(long)]
    allow_other: bool,
    /// Limit of the content cache, for example 10GiB
    #[arg(long, value_name = "SIZE")]
    cache_size: Option<ByteSize>,
    /// Longest time between two looks for remote changes
    #[arg(long, value_name = "SECONDS")]
    poll: Option<u64>,
    /// Any key of the configuration; may be repeated
    #[arg(long = "option", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Mount all that the configuration names, in one process
    #[arg(long, conflicts_with_all = [
        "whose", "account", "library", "channel", "app_folder", "tree", "folder", "read_only", "allow_other",
        "mountpoint",
    ])]
    all: bool,
    /// An empty directory
    #[arg(value_name = "MOUNTPOINT", required_unless_present = "all")]
    mountpoint: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Where it is mounted
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Add this many small files
    #[arg(long, value_name = "N", default_value_t = 0)]
    files: u64,
    /// An empty directory; created if it is missing
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// What to do
    #[arg(value_enum, value_name = "ACTION")]
    action: ServiceAction,
    /// All that the configuration names, in one process
    #[arg(long, conflicts_with = "mountpoint")]
    all: bool,
    /// Where to mount
    #[arg(value_name = "MOUNTPOINT", required_unless_present = "all")]
    mountpoint: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ServiceAction {
    /// Mount now and at every login
    Enable,
    /// Unmount now and no longer mount at login
    Disable,
    /// Say whether it runs
    Status,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// A file or folder in a mount, or a mountpoint [default: the only mount]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Show changes until interrupted
    #[arg(long)]
    watch: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Wait only for what is below this path
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// Give up after this many seconds
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub(crate) struct PathsArgs {
    /// Files or folders in a mount
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  onedrivefs pin ~/OneDrive/Travel\n  onedrivefs pin --wait \
                        ~/OneDrive/Travel && echo \"ready to leave\"\n\n`onedrivefs status` lists \
                        what is pinned and what is still to be fetched."
)]
pub(crate) struct PinArgs {
    /// Files or folders in a mount
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Wait until everything is here, instead of leaving that to the background
    #[arg(long)]
    wait: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct UnpinArgs {
    /// Files or folders in a mount
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  onedrivefs evict ~/OneDrive/Videos\n  onedrivefs unpin \
                        ~/OneDrive/Travel && onedrivefs evict ~/OneDrive/Travel"
)]
pub(crate) struct EvictArgs {
    /// Files or folders in a mount
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print the hosts that a firewall or a proxy has to let through, and whether they answer
    #[arg(long)]
    network: bool,
    /// Write everything into one file for a bug report, without anything secret
    #[arg(long, value_name = "FILE", conflicts_with_all = ["network", "json"])]
    report: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Directory for the pages
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct GuardArgs {
    /// Number of the connection
    #[arg(value_name = "N")]
    connection: u32,
    /// Where it is mounted
    #[arg(value_name = "MOUNTPOINT")]
    mountpoint: PathBuf,
}

/// Runs the command that was given.
pub(crate) fn run(cli: Cli) -> Outcome {
    logging::start(match cli.command {
        Command::Mount(_) | Command::Demo(_) => Verbosity::Daemon,
        _ => Verbosity::Command,
    });
    match cli.command {
        Command::Accounts(args) => accounts::run(&args),
        Command::Service(args) => service::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Man(args) => completions::man(&args),
        Command::Guard(args) => guard::run(args.connection, &args.mountpoint),
        Command::Login(args) => block_on(login::run(args)),
        Command::App(command) => block_on(app::run(command)),
        Command::Users(args) => block_on(users::run(&args)),
        Command::Logout(args) => block_on(logout::run(&args)),
        Command::Drives(args) => block_on(drives::run(&args)),
        Command::Config(args) => config::run(&args),
        Command::Mount(args) => block_on(mount::run(args)),
        Command::Unmount(args) => block_on(unmount::run(&args)),
        Command::Demo(args) => block_on(demo::run(&args)),
        Command::Status(args) => block_on(status::run(&args)),
        Command::Sync(args) => block_on(sync::run(&args)),
        Command::Pin(args) => block_on(pin::pin(&args)),
        Command::Unpin(args) => block_on(pin::unpin(&args)),
        Command::Evict(args) => block_on(pin::evict(&args)),
        Command::Retry(args) => block_on(parked::retry(&args)),
        Command::Export(args) => block_on(parked::export(&args)),
        Command::Discard(args) => block_on(parked::discard(&args)),
        Command::Doctor(args) => block_on(doctor::run(&args)),
    }
}

/// Runs a command on an event loop of its own, which does not outlive it: a task that still hangs
/// on the network is left behind.
fn block_on(command: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .explain(|| "starting the event loop".to_owned())?;
    let outcome = runtime.block_on(command);
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_documented_command_line_is_understood() {
        for line in [
            "onedrivefs login",
            "onedrivefs login --account work --device-code --client-id x --tenant t --cloud china",
            "onedrivefs login --client-secret-file /f --scope Files.Read --scope offline_access",
            "onedrivefs logout --account work --forget",
            "onedrivefs accounts --json",
            "onedrivefs drives --account work --site Team --json",
            "onedrivefs config init",
            "onedrivefs mount /m",
            "onedrivefs mount --account w --drive b!x --read-only --allow-other /m",
            "onedrivefs mount --site https://x/sites/y --library Docs --cache-size 2G --poll 5 /m",
            "onedrivefs mount --shared Docs --folder a/b /m",
            "onedrivefs mount --team Team --channel General /m",
            "onedrivefs mount --app-folder /m",
            "onedrivefs mount --all --poll 60",
            "onedrivefs drives --teams --json",
            "onedrivefs drives --shared",
            "onedrivefs service enable --all",
            "onedrivefs mount --option poll=5 --option upload=on-close /m",
            "onedrivefs unmount /m",
            "onedrivefs demo --files 10 /m",
            "onedrivefs service enable /m",
            "onedrivefs status",
            "onedrivefs status /m/a --json --watch",
            "onedrivefs sync /m --timeout 5",
            "onedrivefs pin --wait --json /m/a /m/b",
            "onedrivefs unpin --json /m/a /m/b",
            "onedrivefs evict --json /m/a /m/b",
            "onedrivefs retry /m/a /m/b",
            "onedrivefs export /m/a",
            "onedrivefs discard /m/a",
            "onedrivefs doctor --json",
            "onedrivefs completions bash",
            "onedrivefs man out",
            "onedrivefs guard 40 /m",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for line in [
            "onedrivefs",
            "onedrivefs mount",
            "onedrivefs mount --library Docs /m",
            "onedrivefs mount --drive x --site y /m",
            "onedrivefs mount --cache-size much /m",
            "onedrivefs login --account ../x",
            "onedrivefs login --device-code --client-secret-file f",
            "onedrivefs retry",
            "onedrivefs pin",
            "onedrivefs evict",
            "onedrivefs service start /m",
        ] {
            let error = parse(line).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
