//! systemd's spelling of mountpoints: the instance part of `onedrivefs@….service`.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// The unit as it is packaged; `service enable` writes it for a binary that is not.
const TEMPLATE: &str = include_str!("../../../systemd/onedrivefs@.service");

/// The unit for all mounts of the configuration.
const ALL: &str = include_str!("../../../systemd/onedrivefs-all.service");

/// Where the packaged unit expects the binary.
pub(crate) const PACKAGED_BINARY: &str = "/usr/bin/onedrivefs";

/// Name of the unit file.
pub(crate) const TEMPLATE_NAME: &str = "onedrivefs@.service";

/// Name of the unit for all mounts, and of its file.
pub(crate) const ALL_NAME: &str = "onedrivefs-all.service";

/// Escapes a path the way `systemd-escape --path` does (systemd.unit(5), "String escaping").
pub(crate) fn escape_path(path: &Path) -> String {
    let mut escaped = String::new();
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    for (index, part) in parts.enumerate() {
        if index > 0 {
            escaped.push('-');
        }
        for (position, &byte) in part.as_bytes().iter().enumerate() {
            let first = index == 0 && position == 0;
            if byte.is_ascii_alphanumeric()
                || matches!(byte, b'_' | b':')
                || (byte == b'.' && !first)
            {
                escaped.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "\\x{byte:02x}");
            }
        }
    }
    if escaped.is_empty() {
        escaped.push('-');
    }
    escaped
}

/// The unit of a mountpoint.
pub(crate) fn instance(mountpoint: &Path) -> String {
    format!("onedrivefs@{}.service", escape_path(mountpoint))
}

/// The unit file for a binary at another place than the packaged one.
pub(crate) fn template_for(binary: &Path) -> String {
    TEMPLATE.replace(PACKAGED_BINARY, &quote(binary))
}

/// The unit for all mounts, for such a binary.
pub(crate) fn all_for(binary: &Path) -> String {
    ALL.replace(PACKAGED_BINARY, &quote(binary))
}

/// Quotes a path for a command line of a unit: spaces, quotes, specifiers and variables are data.
fn quote(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            '%' | '$' => {
                quoted.push(c);
                quoted.push(c);
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_escaped_as_systemd_does() {
        // Expected values printed by systemd-escape --path.
        for (path, escaped) in [
            ("/", "-"),
            ("/home/ada/OneDrive", "home-ada-OneDrive"),
            ("/home/ada/One Drive", r"home-ada-One\x20Drive"),
            ("/home/ada/one-drive/", r"home-ada-one\x2ddrive"),
            ("/.hidden/.x", r"\x2ehidden-.x"),
            ("/srv/ü", r"srv-\xc3\xbc"),
            ("/a:b_c", "a:b_c"),
        ] {
            assert_eq!(escape_path(Path::new(path)), escaped, "{path}");
        }
    }

    #[test]
    fn the_unit_runs_the_binary_it_was_made_for() {
        let unit = template_for(Path::new("/home/ada/my bin/100%/onedrivefs"));
        assert!(
            unit.contains(r#"ExecStart="/home/ada/my bin/100%%/onedrivefs" mount %f"#),
            "{unit}"
        );
        assert!(!unit.contains(PACKAGED_BINARY));
        assert!(unit.contains("Type=notify"));
        let all = all_for(Path::new("/opt/onedrivefs"));
        assert!(
            all.contains(r#"ExecStart="/opt/onedrivefs" mount --all"#),
            "{all}"
        );
    }
}
