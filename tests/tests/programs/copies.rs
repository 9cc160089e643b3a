//! Copies and archives: what arrives has the content, the times and the permissions of the original.

use std::collections::BTreeSet;

use onedrivefs_tests::Home;

use crate::{mount_anew, on_a_mount};

/// A tree with everything that a copy can lose, in `$W/src`.
const TREE: &str = r#"
mkdir -p "$W/src/deep/er/est" "$W/src/empty"; cd "$W/src"
for i in $(seq 40); do head -c $((i * 977)) /dev/urandom > "deep/file $i"; done
head -c 3000000 /dev/urandom > deep/er/large; : > deep/er/nothing
printf '#!/bin/sh\necho ran\n' > script; chmod 755 script; chmod 600 "deep/file 1"
ln -s ../script deep/link; ln -s "nowhere at all" dangling
touch -d '1999-12-31 23:59:59.123456789 UTC' "deep/file 2"; touch -d '2031-01-01 UTC' deep/er/est
touch -h -d '2005-05-05 05:05:05.5 UTC' dangling
"#;

/// Prints all that is to be the same in `$1`.
const LISTING: &str = r#"
listing() { (cd "$1"; find . -mindepth 1 \( -type d -printf '%P %y %m %T@\n' -o -printf '%P %y %m %T@ %s %l\n' \) | sort
  find . -type f -exec sha256sum {} + | sort); }
"#;

/// The names in the tree.
fn names(home: &Home<'_>) -> BTreeSet<String> {
    let listed = home.sh(r#"find "$W/src" -mindepth 1 -printf '%f\n'"#);
    listed.lines().map(str::to_owned).collect()
}

#[test]
fn cp_keeps_content_times_modes_and_links() {
    on_a_mount(
        &[],
        |_| {},
        |home, mount| {
            home.sh(&format!(
                r#"{TREE}{LISTING}
                cp -a "$W/src" "$M/copy"; listing "$W/src" > "$W/listing"
                listing "$M/copy" | diff "$W/listing" -
                test "$("$M/copy/script")" = ran; cp -a "$M/copy" "$M/again"
                listing "$M/again" | diff "$W/listing" -"#
            ));
            let mount = mount_anew(home, mount);
            home.sh(&format!(
                r#"{LISTING} listing "$M/copy" | diff "$W/listing" -; cp -a "$M/again" "$W/back"
                listing "$W/back" | diff "$W/listing" -"#
            ));
            mount
        },
    );
}

#[test]
fn archives_are_packed_and_unpacked_in_place() {
    on_a_mount(
        &["tar", "unzip", "python3"],
        |_| {},
        |home, mount| {
            home.sh(&format!(
                r#"{TREE}{LISTING} listing "$W/src" > "$W/listing"
                tar --format=posix -C "$W" -cf "$M/src.tar" src; mkdir "$M/tar"; tar -C "$M/tar" -xpf "$M/src.tar"
                listing "$M/tar/src" | diff "$W/listing" -; tar -C "$M/tar" -df "$M/src.tar"
                tar -C "$M/tar" -cf - src | tar -C "$W/src/.." -df -
                rm "$W/src/dangling" "$W/src/deep/link"
                cd "$W"; python3 -m zipfile -c "$M/src.zip" src
                mkdir "$M/zip"; unzip -q "$M/src.zip" -d "$M/zip"; unzip -tq "$M/src.zip"
                diff -r "$W/src" "$M/zip/src""#
            ));
            let mount = mount_anew(home, mount);
            home.sh(&format!(
                r#"{LISTING} listing "$M/tar/src" | diff "$W/listing" -; unzip -tq "$M/src.zip""#
            ));
            mount
        },
    );
}

#[test]
fn rsync_deletes_and_updates_both_ways_and_shows_nothing_temporary() {
    on_a_mount(
        &["rsync"],
        |_| {},
        |home, mount| {
            let sync = r#"
                rsync -a --delete "$W/src/" "$M/dst/"; diff -r --no-dereference "$W/src" "$M/dst"
                test -z "$(rsync -ai --delete "$W/src/" "$M/dst/")""#;
            home.sh(&format!("{TREE}{sync}"));
            let mut ever = names(home);
            mount.sync();
            home.sh(&format!(
                r#"cd "$W/src"; rm "deep/file 3" dangling; rmdir empty; mv deep/er deep/est
                echo more >> "deep/file 4"; echo new > added; chmod 644 "deep/file 1"
                touch -d '2010-10-10 10:10:10.1 UTC' "deep/file 5"{sync}"#
            ));
            ever.extend(names(home));
            let mount = mount_anew(home, mount);
            // Back, after changes in the mount.
            home.sh(
                r#"cd "$M/dst"; test -z "$(rsync -ai --delete "$W/src/" "$M/dst/")"
                rm -r deep/est; echo changed > added; echo other > "deep/file 6"; mkdir later
                rsync -a --delete "$M/dst/" "$W/src/"; diff -r --no-dereference "$M/dst" "$W/src"
                test -z "$(rsync -ai --delete "$M/dst/" "$W/src/")""#,
            );
            ever.extend(names(home));
            ever.extend(["dst", "link.rclonelink", "dangling.rclonelink"].map(str::to_owned));
            mount.sync();
            let seen = home.service.default_drive().names_ever();
            let temporary: Vec<_> = seen.difference(&ever).collect();
            assert!(temporary.is_empty(), "{temporary:?}");
            mount
        },
    );
}
