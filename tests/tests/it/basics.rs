//! Everyday programs work on the mount, and the service sees what a person would expect of them.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;

use onedrivefs_sim::DriveHandle;
use onedrivefs_tests::{Home, Need, Service, Who, needs, tree, wait};

/// Files as a person has them, in `$W/src`.
const MAKE_FILES: &str = r#"
mkdir -p "$W/src/docs/deep/er" "$W/src/empty"
for i in $(seq 1 20); do echo "line $i of the file" > "$W/src/docs/file $i.txt"; done
echo "the needle is here" > "$W/src/docs/deep/er/hay.txt"
head -c 300000 /dev/urandom > "$W/src/docs/deep/random.bin"
: > "$W/src/docs/nothing"
"#;

fn everyday_programs(who: Who) {
    let service = Service::start();
    let home = Home::of(&service, who);
    home.log_in();
    let mount = home.mount();
    home.sh(MAKE_FILES);

    home.sh(r#"cp -r "$W/src" "$M/copy"; diff -r "$W/src" "$M/copy""#);
    let listed = home.sh(r#"cd "$M"; ls -lR"#);
    assert!(listed.contains("file 17.txt") && listed.contains("./copy/docs/deep/er:"));
    let found = home.sh(r#"grep -rl needle "$M""#);
    assert!(found.contains("copy/docs/deep/er/hay.txt"), "{found}");
    home.sh(r#"cd "$M"
        mv copy moved; test ! -e copy; test -f moved/docs/nothing
        mv moved/docs/deep/er/hay.txt "moved/straw.txt"; grep -q needle moved/straw.txt
        mv moved/docs/deep "moved/deeper"; test -d moved/deeper/er
        echo more >> moved/straw.txt; test "$(wc -l < moved/straw.txt)" = 2
        du -s . > /dev/null; df . > /dev/null; find . -type f | wc -l"#);
    home.sh(
        r#"tar -C "$W" -cf "$M/src.tar" src; mkdir "$M/untar"; tar -C "$M/untar" -xf "$M/src.tar"
        diff -r "$W/src" "$M/untar/src"; tar -C "$M/untar" -cf - src | tar -tf - > /dev/null"#,
    );
    mount.sync();
    let drive = service.default_drive();
    assert_eq!(
        drive.read("/moved/straw.txt").as_deref(),
        Some(b"the needle is here\nmore\n".as_slice())
    );
    assert!(!drive.exists("/copy"));
    assert!(drive.entry("/untar/src/empty").is_some_and(|e| e.folder));
    home.sh(r#"rm -r "$M/moved" "$M/untar"; rm "$M/src.tar"; test -z "$(ls -A "$M")""#);
    mount.sync();
    assert_eq!(drive.dump(), Vec::new());
    mount.unmount();
}

#[test]
fn ls_cp_mv_rm_grep_and_tar_work() {
    if needs::met(&[Need::Fuse]) {
        everyday_programs(Who::Me);
    }
}

#[test]
fn ls_cp_mv_rm_grep_and_tar_work_for_an_ordinary_user() {
    if needs::met(&[Need::FuseForUsers]) {
        everyday_programs(Who::Nobody);
    }
}

fn rsync_and_git(who: Who) {
    let service = Service::start();
    let home = Home::of(&service, who);
    home.log_in();
    let mount = home.mount();
    home.sh(MAKE_FILES);
    home.sh(r#"rsync -a "$W/src/" "$M/synced/"; diff -r "$W/src" "$M/synced""#);
    let again = home.sh(r#"rsync -ai "$W/src/" "$M/synced/""#);
    assert_eq!(again, "", "a second rsync has nothing to do");
    home.sh(r#"cd "$M"; mkdir repo; cd repo
        git init -q .; git config user.email ada@example.com; git config user.name Ada
        cp -r "$W/src/docs" .; git add .; git commit -qm first
        echo more >> "docs/file 1.txt"; git commit -qam second
        git mv "docs/file 2.txt" renamed.txt; git commit -qm third
        git gc -q; git fsck --strict; test -z "$(git status --porcelain)"
        git log --oneline | wc -l | grep -qx 3
        git checkout -q HEAD~2; test -f "docs/file 2.txt"; git checkout -q -"#);
    mount.sync();
    let drive = service.default_drive();
    assert_eq!(
        drive.read("/repo/.git/HEAD"),
        home.sh(r#"cat "$M/repo/.git/HEAD""#).into_bytes().into()
    );
    // What the service has is a repository, too: fetched anew, it is in order.
    mount.unmount();
    home.sh("rm -rf \"$XDG_CACHE_HOME\"/onedrivefs");
    let mount = home.mount();
    home.sh(r#"cd "$M/repo"; git fsck --strict; test -z "$(git status --porcelain)""#);
    home.sh(r#"diff -r "$W/src" "$M/synced""#);
    mount.unmount();
}

#[test]
fn rsync_and_git_work() {
    if needs::met(&[Need::Fuse, Need::Program("rsync"), Need::Program("git")]) {
        rsync_and_git(Who::Me);
    }
}

#[test]
fn rsync_and_git_work_for_an_ordinary_user() {
    if needs::met(&[
        Need::FuseForUsers,
        Need::Program("rsync"),
        Need::Program("git"),
    ]) {
        rsync_and_git(Who::Nobody);
    }
}

/// Saves a file the way a program does, and expects one new version of the same item.
fn assert_one_version_per_save(pattern: &str, script: &str) {
    let service = Service::start();
    let drive = service.default_drive();
    let id = drive.put("/notes/thesis.txt", "first").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    assert_eq!(home.sh(r#"cat "$M/notes/thesis.txt""#), "first");
    for (number, text) in [(2, "second"), (3, "third")] {
        home.sh(&format!("cd \"$M/notes\"; T={text}\n{script}"));
        mount.sync();
        let entry = drive.entry("/notes/thesis.txt").expect("still there");
        assert_eq!(entry.id, id, "{pattern}: the same item");
        assert_eq!(entry.versions, number, "{pattern}: one version per save");
        assert_eq!(
            drive.read("/notes/thesis.txt").as_deref(),
            Some(text.as_bytes()),
            "{pattern}"
        );
        assert_eq!(home.sh(r#"cat "$M/notes/thesis.txt""#), text, "{pattern}");
    }
    assert_only(&drive, &["/notes", "/notes/thesis.txt"]);
    for line in service.request_lines() {
        for temporary in ["tmp", "thesis.txt~", ".swp", "4913", "goutput", "bak"] {
            assert!(
                !line.contains(temporary),
                "{pattern}: the service saw {line}"
            );
        }
        assert!(!line.starts_with("delete "), "{pattern}: {line}");
    }
    mount.unmount();
}

fn assert_only(drive: &DriveHandle, paths: &[&str]) {
    let all: Vec<String> = drive.dump().into_iter().map(|entry| entry.path).collect();
    assert_eq!(all, paths);
}

#[test]
fn a_save_in_place_is_one_version() {
    if needs::met(&[Need::Fuse]) {
        assert_one_version_per_save("in place", r#"printf %s "$T" > thesis.txt"#);
    }
}

#[test]
fn a_save_with_backup_rename_as_vim_does_is_one_version() {
    if needs::met(&[Need::Fuse]) {
        assert_one_version_per_save(
            "vim",
            r#": > 4913; chmod 600 4913; rm 4913
            printf x > .thesis.txt.swp
            mv thesis.txt thesis.txt~; printf %s "$T" > thesis.txt; sync thesis.txt
            rm thesis.txt~; rm .thesis.txt.swp"#,
        );
    }
}

#[test]
fn a_save_by_a_temporary_file_renamed_over_the_original_is_one_version() {
    if needs::met(&[Need::Fuse]) {
        assert_one_version_per_save(
            "temporary file",
            r#"printf %s "$T" > .thesis.txt.tmp; sync .thesis.txt.tmp; mv .thesis.txt.tmp thesis.txt"#,
        );
    }
}

#[test]
fn a_save_by_gnome_programs_is_one_version() {
    if needs::met(&[Need::Fuse]) {
        assert_one_version_per_save(
            "gio",
            r#"printf %s "$T" > .goutputstream-AB12; mv .goutputstream-AB12 thesis.txt"#,
        );
    }
}

#[test]
fn a_save_with_a_backup_link_falls_back_and_is_one_version() {
    if needs::met(&[Need::Fuse]) {
        assert_one_version_per_save(
            "backup that stays until the end",
            r#"! ln thesis.txt thesis.bak 2>/dev/null
            cp thesis.txt thesis.txt.bak; printf %s "$T" > thesis.tmp
            mv thesis.tmp thesis.txt; rm thesis.txt.bak"#,
        );
    }
}

#[test]
fn vim_itself_saves_one_version() {
    if needs::met(&[Need::Fuse, Need::Program("vim")]) {
        assert_one_version_per_save(
            "vim itself",
            r#"vim -u NONE -N -es -c "set nobackup writebackup backupskip= backupcopy=no noeol nofixeol" \
                -c "%s/.*/$T/" -c "wq" thesis.txt < /dev/null"#,
        );
    }
}

#[test]
fn metadata_changes_and_open_files_behave_as_on_a_local_disk() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(
        r#"cd "$M"
        echo a > f; chmod 640 f; test "$(stat -c %a f)" = 640
        touch -d '2001-02-03 04:05:06.123456789 UTC' f
        test "$(stat -c %y f | cut -c1-29)" = "2001-02-03 04:05:06.123456789"
        mkdir d; ! rmdir nothing 2>/dev/null; echo x > d/x; ! rmdir d 2>/dev/null
        ! mkdir d 2>/dev/null; ! ln f g 2>/dev/null; ! mv d f 2>/dev/null
        exec 3<>f; rm f; echo later >&3; ! test -e f; exec 3>&-
        echo A > README; test "$(cat readme)" = A; ! mkdir readme 2>/dev/null
        truncate -s 100000 big; test "$(stat -c %s big)" = 100000; truncate -s 10 big
        dd if=/dev/zero of=holes bs=1 count=1 seek=70000 status=none; test "$(stat -c %s holes)" = 70001
        set -o noclobber; echo y > excl; ! (echo z > excl) 2>/dev/null; test "$(cat excl)" = y"#,
    );
    mount.sync();
    tree::assert_in_step(mount.path(), &service.default_drive());
    mount.unmount();
}

#[test]
fn a_folder_gets_other_capitals_by_way_of_another_name() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let drive = service.default_drive();
    let id = drive.put("/Folder/README", "text").expect("file");
    let home = Home::signed_in(&service);
    let mount = home.mount();
    home.sh(r#"cd "$M"; test "$(cat folder/readme)" = text
        mv Folder x; mv x folder; test "$(ls)" = folder
        test "$(cat Folder/README)" = text; echo more >> FOLDER/README
        test "$(cat folder/README)" = "textmore""#);
    mount.sync();
    assert_eq!(drive.entry("/folder/README").map(|e| e.id), Some(id));
    assert_only(&drive, &["/folder", "/folder/README"]);
    tree::assert_in_step(mount.path(), &drive);
    mount.unmount();
}

#[test]
fn a_file_that_comes_and_goes_at_once_is_never_sent() {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    mount.sync();
    let before = service.last_request();
    home.sh(r#"cd "$M"; echo x > short; rm short; mkdir gone; rmdir gone; echo l > .x.swp"#);
    mount.wait_sent(wait::secs(20));
    mount.sync();
    let upload = service.upload_since(before);
    assert_eq!((upload.sessions, upload.puts), (0, 0), "{upload:?}");
    assert_eq!(service.default_drive().dump(), Vec::new());
    assert_eq!(home.sh(r#"cat "$M/.x.swp""#), "l\n");
    mount.unmount();
}

#[test]
fn the_kernel_reads_far_ahead_where_that_can_be_set() {
    if !needs::met(&[Need::Fuse, Need::Root]) {
        return;
    }
    let service = Service::start();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let device = fs::metadata(mount.path()).expect("mount").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let setting = format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb");
    if File::options().write(true).open(&setting).is_err() {
        needs::cannot("the settings of block devices cannot be written");
        return;
    }
    let set = fs::read_to_string(&setting).expect("setting");
    assert_eq!(set.trim(), "512");
    mount.unmount();
}
