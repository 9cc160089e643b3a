//! The configuration: five layers, of which the later wins: built-in values, the machine's file, the
//! person's, the environment, the command line.
//!
//! A key that is not known is an error, never ignored: a misspelt `local_only` would upload what
//! was meant to stay.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::civil::Date;
use serde::Deserialize;
use toml::de::DeTable;
use url::Url;

use crate::failure::{Explain, Failure, Outcome};
use crate::paths::AccountName;
use crate::size::ByteSize;

/// Largest configuration file that is read, in bytes; a bigger one is some other file.
const FILE_SIZE_MAX: u64 = 1 << 20;

/// Environment variable that replaces the Graph endpoint.
pub(crate) const ENV_GRAPH_URL: &str = "ONEDRIVEFS_GRAPH_URL";

/// Environment variable that replaces the sign-in endpoint.
pub(crate) const ENV_LOGIN_URL: &str = "ONEDRIVEFS_LOGIN_URL";

/// Environment variable that replaces the place of the machine's file.
pub(crate) const ENV_MACHINE_FILE: &str = "ONEDRIVEFS_SYSTEM_CONFIG";

/// Where an administrator puts what holds for every person on the machine.
const MACHINE_FILE: &str = "/etc/onedrivefs/config.toml";

/// The file that holds for everybody.
pub(crate) fn machine_file() -> PathBuf {
    env::var_os(ENV_MACHINE_FILE)
        .filter(|value| !value.is_empty())
        .map_or_else(|| PathBuf::from(MACHINE_FILE), PathBuf::from)
}

/// One layer of the configuration; what it leaves out, the layer below decides.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Layer {
    /// The account meant when none is named.
    pub(crate) account: Option<AccountName>,
    /// PEM file with certificate authorities trusted in addition to the system's.
    pub(crate) ca_bundle: Option<PathBuf>,
    /// Proxy for all requests, instead of the one the environment names.
    pub(crate) proxy: Option<Url>,
    /// Proxy for the bytes of files, instead of that one.
    pub(crate) content_proxy: Option<Url>,
    /// Limit of the content cache of a mount, or of all mounts of a process.
    pub(crate) cache_size: Option<ByteSize>,
    /// Space on the disk that the cache leaves free.
    pub(crate) free_space: Option<ByteSize>,
    /// Longest time between two looks for remote changes, in seconds.
    pub(crate) poll: Option<u64>,
    /// Whether `close(2)` waits for the service.
    pub(crate) upload: Option<UploadMode>,
    /// How many files are uploaded at the same time.
    pub(crate) parallel_uploads: Option<u16>,
    /// How long a change rests before it is sent, in milliseconds.
    pub(crate) upload_delay: Option<u64>,
    /// What happens to names that the service refuses.
    pub(crate) names: Option<NameMode>,
    /// Whether symbolic links can be made.
    pub(crate) symlinks: Option<SymlinkMode>,
    /// Patterns of names that never leave this machine.
    pub(crate) local_only: Option<Vec<String>>,
    /// Owner of everything, by number.
    pub(crate) uid: Option<u32>,
    /// Group of everything, by number.
    pub(crate) gid: Option<u32>,
    /// Permission bits that files and folders lack unless a program set others.
    pub(crate) umask: Option<ModeBits>,
    /// Permission bits of files that no program set others for.
    pub(crate) file_mode: Option<ModeBits>,
    /// Permission bits of folders that no program set others for.
    pub(crate) dir_mode: Option<ModeBits>,
    /// Longest time a system call waits for a folder not known yet, in seconds.
    pub(crate) metadata_timeout: Option<u64>,
    /// Longest time a read waits for its first byte, in seconds.
    pub(crate) read_timeout: Option<u64>,
    /// Most sites that `mount --tree` shows.
    pub(crate) tree_sites: Option<u32>,
    /// Whether the kernel reads files by itself where it is permitted to.
    pub(crate) passthrough: Option<PassthroughMode>,
    /// More deletions than this within a minute are held back; zero sets no limit.
    pub(crate) hold_deletions: Option<u64>,
    /// The same for this share of the drive, in percent.
    pub(crate) hold_share: Option<Percent>,
    /// Whether the desktop shows what needs attention.
    pub(crate) notifications: Option<bool>,
    /// Where tokens and typed secrets are kept.
    pub(crate) secrets: Option<KeepMode>,
    /// Addresses of the service.
    pub(crate) endpoints: Endpoints,
    /// Settings of single accounts.
    pub(crate) accounts: BTreeMap<String, AccountLayer>,
    /// What is mounted where.
    pub(crate) mounts: BTreeMap<PathBuf, MountLayer>,
}

/// Addresses that replace those of the account's cloud.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Endpoints {
    /// Graph, including the version: `https://graph.microsoft.com/v1.0`.
    pub(crate) graph: Option<Url>,
    /// Sign-in: `https://login.microsoftonline.com`.
    pub(crate) login: Option<Url>,
}

/// Settings of one account, used by `login`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccountLayer {
    /// The application (client) id.
    pub(crate) client_id: Option<String>,
    /// The tenant: an id, a domain, `common`, `organizations` or `consumers`.
    pub(crate) tenant: Option<String>,
    /// The cloud.
    pub(crate) cloud: Option<String>,
    /// File that holds the secret of a confidential application.
    pub(crate) client_secret_file: Option<PathBuf>,
    /// The last day on which that secret is good.
    pub(crate) client_secret_expires: Option<Date>,
    /// The certificate used instead of a secret.
    pub(crate) certificate: Option<PathBuf>,
    /// Its private key.
    pub(crate) key: Option<PathBuf>,
    /// File that holds the passphrase of the key.
    pub(crate) key_passphrase_file: Option<PathBuf>,
    /// The thumbprint under which the certificate is registered.
    pub(crate) thumbprint: Option<String>,
    /// Whether the application signs in by itself.
    pub(crate) app_only: Option<bool>,
    /// Whose drive such an application mounts.
    pub(crate) user: Option<String>,
    /// The registered redirect address, if it is not `http://localhost`.
    pub(crate) redirect_uri: Option<String>,
    /// The permissions to ask for.
    pub(crate) scopes: Option<Vec<String>>,
}

impl AccountLayer {
    /// Lays these settings over others.
    fn over(self, below: Self) -> Self {
        Self {
            client_id: self.client_id.or(below.client_id),
            tenant: self.tenant.or(below.tenant),
            cloud: self.cloud.or(below.cloud),
            client_secret_file: self.client_secret_file.or(below.client_secret_file),
            client_secret_expires: self.client_secret_expires.or(below.client_secret_expires),
            certificate: self.certificate.or(below.certificate),
            key: self.key.or(below.key),
            key_passphrase_file: self.key_passphrase_file.or(below.key_passphrase_file),
            thumbprint: self.thumbprint.or(below.thumbprint),
            app_only: self.app_only.or(below.app_only),
            user: self.user.or(below.user),
            redirect_uri: self.redirect_uri.or(below.redirect_uri),
            scopes: self.scopes.or(below.scopes),
        }
    }
}

/// What `mount` does at one mountpoint when the command line says nothing else.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MountLayer {
    /// The account.
    pub(crate) account: Option<AccountName>,
    /// The drive's id.
    pub(crate) drive: Option<String>,
    /// Whose drive, by sign-in name or id.
    pub(crate) user: Option<String>,
    /// Address of a SharePoint site.
    pub(crate) site: Option<String>,
    /// Name of a library of that site.
    pub(crate) library: Option<String>,
    /// A team whose files are meant, by name or id.
    pub(crate) team: Option<String>,
    /// One channel of it.
    pub(crate) channel: Option<String>,
    /// A folder or file that somebody shared, by name or link.
    pub(crate) shared: Option<String>,
    /// Whether the application's own folder is meant.
    pub(crate) app_folder: Option<bool>,
    /// A folder that is mounted in the place of the root.
    pub(crate) folder: Option<String>,
    /// Whether all drives of the account are meant.
    pub(crate) tree: Option<bool>,
    /// Whether changes are refused.
    pub(crate) read_only: Option<bool>,
    /// Whether other users may enter.
    pub(crate) allow_other: Option<bool>,
}

impl MountLayer {
    /// Tells whether it says whose files are meant.
    pub(crate) fn names_whose(&self) -> bool {
        let named = [
            &self.drive,
            &self.user,
            &self.site,
            &self.team,
            &self.shared,
        ];
        named.into_iter().any(Option::is_some)
    }

    /// Tells whether it says what the mount begins at.
    pub(crate) fn names_root(&self) -> bool {
        self.names_whose()
            || self.app_folder == Some(true)
            || self.tree == Some(true)
            || self.folder.is_some()
    }
}

/// A share, as a whole number from 0 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Percent(pub(crate) u8);

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer) {
            Ok(percent @ 0..=100) => Ok(Self(percent)),
            _ => Err(serde::de::Error::custom(
                "must be a whole number from 0 to 100, which is a percentage",
            )),
        }
    }
}

/// Permission bits, written in octal. As text only: in a number a reader cannot tell 644 from 0o644.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ModeBits(pub(crate) u32);

impl<'de> Deserialize<'de> for ModeBits {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bits = String::deserialize(deserializer)
            .ok()
            .and_then(|text| u32::from_str_radix(text.trim_start_matches("0o"), 8).ok())
            .filter(|bits| *bits <= 0o777);
        bits.map(Self).ok_or_else(|| {
            serde::de::Error::custom(
                "must be permission bits in octal and in quotes, for example \"640\"",
            )
        })
    }
}

/// When `close(2)` of a changed file returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum UploadMode {
    /// Once the change is safe on this machine.
    Background,
    /// Once the service has it.
    OnClose,
}

/// What happens to names that the service refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NameMode {
    /// They are stored under a reversible spelling.
    Encode,
    /// Creating one fails.
    Reject,
}

/// Where tokens and typed secrets are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum KeepMode {
    /// In the keyring of the session if it has one, else in files.
    Auto,
    /// In the keyring.
    Keyring,
    /// In files that only their owner can read.
    File,
}

/// What happens when a program makes a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum SymlinkMode {
    /// It is stored as a small file that names its target.
    Store,
    /// The call fails.
    Off,
}

/// The keys that hold permission bits, which `--option` takes without quotes.
const MODE_KEYS: &[&str] = &["umask", "file_mode", "dir_mode"];

/// Whether the kernel reads files by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PassthroughMode {
    /// Where it can and may.
    Auto,
    /// Never.
    Off,
}

/// The keys of the top level, for finding the one that was meant.
const TOP_KEYS: &[&str] = &[
    "account",
    "ca_bundle",
    "proxy",
    "content_proxy",
    "cache_size",
    "free_space",
    "poll",
    "upload",
    "parallel_uploads",
    "upload_delay",
    "names",
    "symlinks",
    "local_only",
    "uid",
    "gid",
    "umask",
    "file_mode",
    "dir_mode",
    "metadata_timeout",
    "read_timeout",
    "tree_sites",
    "passthrough",
    "hold_deletions",
    "hold_share",
    "notifications",
    "secrets",
    "endpoints",
    "accounts",
    "mounts",
];

/// The keys of `[endpoints]`.
const ENDPOINT_KEYS: &[&str] = &["graph", "login"];

/// The keys of `[accounts.NAME]`.
const ACCOUNT_KEYS: &[&str] = &[
    "client_id",
    "tenant",
    "cloud",
    "client_secret_file",
    "client_secret_expires",
    "certificate",
    "key",
    "key_passphrase_file",
    "thumbprint",
    "app_only",
    "user",
    "redirect_uri",
    "scopes",
];

/// The keys of `[mounts."PATH"]`.
const MOUNT_KEYS: &[&str] = &[
    "account",
    "drive",
    "user",
    "site",
    "library",
    "team",
    "channel",
    "shared",
    "app_folder",
    "folder",
    "tree",
    "read_only",
    "allow_other",
];

impl Layer {
    /// Reads the file; a missing one says nothing.
    pub(crate) fn from_file(path: &Path) -> Outcome<Self> {
        let text = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Ok(metadata) if metadata.len() > FILE_SIZE_MAX => {
                return Err(Failure::usage(
                    format!("configuration {}", path.display()),
                    "is larger than 1 MiB",
                )
                .next("put the right file there"));
            }
            _ => fs::read_to_string(path)
                .explain(|| format!("reading {}", path.display()))
                .map_err(|failure| failure.next("check the owner and the mode of that file"))?,
        };
        Self::parse(&text, &format!("configuration {}", path.display()))
    }

    /// Reads the environment.
    pub(crate) fn from_env() -> Outcome<Self> {
        Ok(Self {
            endpoints: Endpoints {
                graph: env_url(ENV_GRAPH_URL)?,
                login: env_url(ENV_LOGIN_URL)?,
            },
            ..Self::default()
        })
    }

    /// Reads one `--option key=value`, where the value may do without quotes.
    pub(crate) fn from_option(option: &str) -> Outcome<Self> {
        let what = format!("--option {option}");
        let Some((key, value)) = option.split_once('=') else {
            return Err(Failure::usage(what, "is not of the form key=value")
                .next("write for example --option poll=60"));
        };
        let (key, value) = (key.trim(), value.trim());
        let bare = format!("{key} = {value}");
        let text = match DeTable::parse(&bare) {
            Ok(_) if !MODE_KEYS.contains(&key) || value.starts_with(['"', '\'']) => bare,
            _ => format!("{key} = {}", toml::Value::String(value.to_owned())),
        };
        Self::parse(&text, &what)
    }

    /// Reads TOML; `source` begins the error text.
    fn parse(text: &str, source: &str) -> Outcome<Self> {
        let table = DeTable::parse(text).map_err(|error| complaint(text, source, &error))?;
        check_keys(table.get_ref(), text, source)?;
        toml::from_str(text).map_err(|error| complaint(text, source, &error))
    }

    /// Lays this layer over another one.
    pub(crate) fn over(self, below: Self) -> Self {
        let mut accounts = below.accounts;
        for (name, own) in self.accounts {
            let under = accounts.remove(&name).unwrap_or_default();
            accounts.insert(name, own.over(under));
        }
        let mut mounts = below.mounts;
        mounts.extend(self.mounts);
        Self {
            account: self.account.or(below.account),
            ca_bundle: self.ca_bundle.or(below.ca_bundle),
            proxy: self.proxy.or(below.proxy),
            content_proxy: self.content_proxy.or(below.content_proxy),
            cache_size: self.cache_size.or(below.cache_size),
            free_space: self.free_space.or(below.free_space),
            poll: self.poll.or(below.poll),
            upload: self.upload.or(below.upload),
            parallel_uploads: self.parallel_uploads.or(below.parallel_uploads),
            upload_delay: self.upload_delay.or(below.upload_delay),
            names: self.names.or(below.names),
            symlinks: self.symlinks.or(below.symlinks),
            local_only: self.local_only.or(below.local_only),
            uid: self.uid.or(below.uid),
            gid: self.gid.or(below.gid),
            umask: self.umask.or(below.umask),
            file_mode: self.file_mode.or(below.file_mode),
            dir_mode: self.dir_mode.or(below.dir_mode),
            metadata_timeout: self.metadata_timeout.or(below.metadata_timeout),
            read_timeout: self.read_timeout.or(below.read_timeout),
            tree_sites: self.tree_sites.or(below.tree_sites),
            passthrough: self.passthrough.or(below.passthrough),
            hold_deletions: self.hold_deletions.or(below.hold_deletions),
            hold_share: self.hold_share.or(below.hold_share),
            notifications: self.notifications.or(below.notifications),
            secrets: self.secrets.or(below.secrets),
            endpoints: Endpoints {
                graph: self.endpoints.graph.or(below.endpoints.graph),
                login: self.endpoints.login.or(below.endpoints.login),
            },
            accounts,
            mounts,
        }
    }

    /// The machine's file, the person's over it, and the environment over both.
    pub(crate) fn load(config_file: &Path) -> Outcome<Self> {
        let machine = Self::from_file(&machine_file())?;
        Ok(Self::from_env()?.over(Self::from_file(config_file)?.over(machine)))
    }
}

fn env_url(variable: &str) -> Outcome<Option<Url>> {
    let Some(value) = env::var_os(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    let value = value.to_string_lossy();
    Url::parse(&value).map(Some).map_err(|error| {
        Failure::usage(variable, format!("is not a URL: {error}"))
            .next("write for example https://graph.microsoft.com/v1.0, or unset the variable")
    })
}

/// Refuses a key nobody would read, and names the one that was probably meant.
fn check_keys(table: &DeTable<'_>, text: &str, source: &str) -> Outcome {
    check_table(table, TOP_KEYS, text, source)?;
    for (key, value) in table {
        let Some(section) = value.get_ref().as_table() else {
            continue;
        };
        let named_keys = match key.get_ref().as_ref() {
            "endpoints" => {
                check_table(section, ENDPOINT_KEYS, text, source)?;
                continue;
            }
            "accounts" => ACCOUNT_KEYS,
            "mounts" => MOUNT_KEYS,
            _ => continue,
        };
        for entry in section.values() {
            if let Some(entry) = entry.get_ref().as_table() {
                check_table(entry, named_keys, text, source)?;
            }
        }
    }
    Ok(())
}

fn check_table(table: &DeTable<'_>, known: &[&str], text: &str, source: &str) -> Outcome {
    for key in table.keys() {
        let name = key.get_ref().as_ref();
        if known.contains(&name) {
            continue;
        }
        let line = line_of(text, key.span().start);
        return Err(
            Failure::usage(source, format!("line {line}: unknown key \"{name}\""))
                .next(suggestion(name, known)),
        );
    }
    Ok(())
}

/// Names the nearest key, or all of them when none is near.
fn suggestion(name: &str, known: &[&str]) -> String {
    let nearest = known
        .iter()
        .map(|key| (strsim::damerau_levenshtein(name, key), key))
        .min();
    match nearest {
        Some((distance, key)) if distance <= 1 + key.len() / 3 => {
            format!("write \"{key}\" instead, or remove the line")
        }
        _ => format!("remove it; the keys here are {}", known.join(", ")),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text
        .bytes()
        .take(offset)
        .filter(|&byte| byte == b'\n')
        .count()
}

/// Says where the file is wrong, quoting the line's key but never its value, which may be secret.
fn complaint(text: &str, source: &str, error: &toml::de::Error) -> Failure {
    let Some(span) = error.span() else {
        return Failure::usage(source, error.message()).next("correct the file");
    };
    let number = line_of(text, span.start);
    let line = text.lines().nth(number - 1).unwrap_or_default();
    let key = line.split_once('=').map(|(key, _)| key.trim());
    let place = match key {
        Some(key) if !key.is_empty() => format!("line {number}: \"{key}\""),
        _ => format!("line {number}"),
    };
    Failure::usage(source, format!("{place}: {}", error.message())).next("correct that line")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Outcome<Layer> {
        Layer::parse(text, "configuration /c/config.toml")
    }

    fn error(text: &str) -> String {
        parse(text).expect_err("refused").to_string()
    }

    /// Every key of the tables above, so that they and the structures cannot drift apart.
    const COMPLETE: &str = r#"
        account = "work"
        ca_bundle = "/etc/ssl/corp.pem"
        proxy = "http://proxy.example:3128"
        content_proxy = "http://proxy.example:3129"
        cache_size = "10GiB"
        free_space = 1073741824
        poll = 30
        upload = "on-close"
        upload_delay = 1000
        parallel_uploads = 4
        names = "reject"
        symlinks = "off"
        local_only = ["*.tmp"]
        uid = 1000
        gid = 1000
        umask = "027"
        file_mode = "640"
        dir_mode = "0o750"
        metadata_timeout = 2
        read_timeout = 15
        tree_sites = 200
        passthrough = "off"
        hold_deletions = 1000
        hold_share = 33
        notifications = true
        secrets = "file"
        [endpoints]
        graph = "http://127.0.0.1:1/v1.0"
        login = "http://127.0.0.1:1"
        [accounts.work]
        client_id = "00000000-0000-0000-0000-000000000000"
        tenant = "contoso.example"
        cloud = "global"
        client_secret_file = "/run/secret"
        client_secret_expires = "2028-11-30"
        certificate = "/run/cert.pem"
        key = "/run/key.pem"
        key_passphrase_file = "/run/passphrase"
        thumbprint = "00"
        app_only = true
        redirect_uri = "http://localhost:9090/x/"
        scopes = ["Files.ReadWrite.All"]
        [mounts."/home/ada/OneDrive"]
        account = "work"
        drive = "b!x"
        user = "ada@contoso.example"
        site = "https://contoso.sharepoint.example/sites/team"
        library = "Documents"
        team = "Builders"
        channel = "General"
        shared = "Papers"
        app_folder = false
        folder = "a/b"
        tree = false
        read_only = true
        allow_other = false
    "#;

    #[test]
    fn every_known_key_is_read() {
        let layer = parse(COMPLETE).expect("complete file");
        assert_eq!(layer.cache_size, Some(ByteSize(10 << 30)));
        assert_eq!(layer.upload, Some(UploadMode::OnClose));
        assert_eq!(layer.mounts.len(), 1);
        for key in TOP_KEYS
            .iter()
            .chain(ENDPOINT_KEYS)
            .chain(ACCOUNT_KEYS)
            .chain(MOUNT_KEYS)
        {
            assert!(COMPLETE.contains(key), "{key} is not in the test file");
        }
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line_and_the_right_one() {
        let text = error("poll = 30\ncahce_size = \"1G\"\n");
        assert!(
            text.contains("/c/config.toml: line 2: unknown key \"cahce_size\""),
            "{text}"
        );
        assert!(text.contains("next: write \"cache_size\""), "{text}");
        let text = error("[accounts.work]\n\ntennant = \"x\"\n");
        assert!(text.contains("line 3: unknown key \"tennant\""), "{text}");
        assert!(text.contains("\"tenant\""), "{text}");
        let text = error("entirely_else = 1\n");
        assert!(text.contains("the keys here are account, "), "{text}");
    }

    #[test]
    fn a_wrong_value_names_key_and_line_but_not_the_value() {
        let text = error("poll = 30\ncache_size = \"plenty\"\n");
        assert!(text.contains("line 2: \"cache_size\""), "{text}");
        let text = error("upload = \"later\"\n");
        assert!(
            text.contains("line 1: \"upload\"") && text.contains("on-close"),
            "{text}"
        );
        assert!(error("poll = \n").contains("line 1"));
        assert!(error("poll = -1\n").contains("line 1: \"poll\""));
        for share in ["101", "-1", "\"a third\"", "0.33"] {
            let text = error(&format!("hold_share = {share}\n"));
            assert!(
                text.contains("line 1: \"hold_share\": must be a whole number"),
                "{text}"
            );
        }
        assert!(error("[endpoints]\ngraph = \"no url\"\n").contains("line 2: \"graph\""));
    }

    #[test]
    fn permission_bits_are_octal_text() {
        let layer = parse(COMPLETE).expect("file");
        assert_eq!(layer.umask, Some(ModeBits(0o027)));
        assert_eq!(layer.dir_mode, Some(ModeBits(0o750)));
        for option in ["umask=022", "umask=22", "umask=0o22", "umask=\"022\""] {
            let layer = Layer::from_option(option).expect(option);
            assert_eq!(layer.umask, Some(ModeBits(0o022)), "{option}");
        }
        for wrong in ["644", "0o644", "\"4755\"", "\"rw\"", "\"9\"", "\"\""] {
            let text = error(&format!("file_mode = {wrong}\n"));
            assert!(text.contains("line 1: \"file_mode\": must be"), "{text}");
        }
    }

    #[test]
    fn later_layers_win() {
        let below = parse(COMPLETE).expect("file");
        let above = Layer::from_option("poll=5").expect("option");
        let layer = above.over(below);
        assert_eq!(layer.poll, Some(5));
        assert_eq!(layer.cache_size, Some(ByteSize(10 << 30)));
    }

    #[test]
    fn options_need_no_quotes_and_are_checked_like_the_file() {
        let layer = Layer::from_option("cache_size=3GiB").expect("bare value");
        assert_eq!(layer.cache_size, Some(ByteSize(3 << 30)));
        let layer = Layer::from_option("local_only=[\"*.bak\"]").expect("list");
        assert_eq!(layer.local_only, Some(vec!["*.bak".to_owned()]));
        for bad in ["poll", "pool=3", "poll=soon", "upload=never"] {
            let text = Layer::from_option(bad).expect_err("refused").to_string();
            assert!(text.contains(&format!("--option {bad}")), "{text}");
        }
    }

    #[test]
    fn a_missing_file_says_nothing() {
        let layer = Layer::from_file(Path::new("/nonexistent/config.toml")).expect("no file");
        assert!(layer.account.is_none());
    }
}
