//! Every way in which programs save a file makes one new version of the same item on the service,
//! and nothing temporary is ever seen there. A few more ways are in `basics`.

use std::collections::BTreeSet;

use onedrivefs_sim::DriveHandle;
use onedrivefs_tests::{Home, Need, Service, needs};

/// How a program saves `thesis.txt` in the current directory, `$T` being the new text.
struct Pattern {
    name: &'static str,
    program: Option<&'static str>,
    script: &'static str,
    /// Files that the program leaves there on purpose.
    leaves: &'static [&'static str],
}

const fn pattern(name: &'static str, script: &'static str) -> Pattern {
    Pattern {
        name,
        program: None,
        script,
        leaves: &[],
    }
}

impl Pattern {
    const fn by(mut self, program: &'static str) -> Self {
        self.program = Some(program);
        self
    }

    const fn leaving(mut self, leaves: &'static [&'static str]) -> Self {
        self.leaves = leaves;
        self
    }

    fn can_run(&self) -> bool {
        self.program
            .is_none_or(|program| needs::met(&[Need::Program("python3"), Need::Program(program)]))
    }
}

const PATTERNS: &[Pattern] = &[
    pattern("nano", r#"nano_types "$T" thesis.txt"#).by("nano"),
    pattern(
        "nano-with-backup",
        r#"nano_types --backup "$T" thesis.txt"#,
    )
    .by("nano")
    .leaving(&["thesis.txt~"]),
    pattern("glib", r#"printf %s "$T" | gio save thesis.txt"#).by("gio"),
    pattern(
        "vim-with-swap-file",
        r#"vim -u NONE -N -es -c "set swapfile nobackup writebackup backupskip= backupcopy=auto noeol nofixeol" \
            -c "%s/.*/$T/" -c "wq" thesis.txt < /dev/null"#,
    )
    .by("vim"),
    pattern(
        "emacs-backup-by-copying",
        r##"ln -s "ada@host.4711:1700000000" ".#thesis.txt"
        cp -p thesis.txt thesis.txt~; printf %s "$T" > thesis.txt; sync thesis.txt; rm ".#thesis.txt""##,
    )
    .leaving(&["thesis.txt~"]),
    pattern(
        "libreoffice",
        r#"printf ',ada,host,01.01.2026 12:00,file:///home/ada;' > ".~lock.thesis.txt#"
        printf %s "$T" > lu4711abcd.tmp; sync lu4711abcd.tmp
        mv -f lu4711abcd.tmp thesis.txt; rm ".~lock.thesis.txt#""#,
    ),
    pattern(
        "libreoffice-by-copying",
        r#"printf ',ada,host,01.01.2026 12:00,file:///home/ada;' > ".~lock.thesis.txt#"
        printf %s "$T" > "$W/lu4711.tmp"; cat "$W/lu4711.tmp" > thesis.txt
        rm ".~lock.thesis.txt#" "$W/lu4711.tmp""#,
    ),
    pattern(
        "office-with-three-names",
        r#"printf x > "~\$thesis.txt"; printf %s "$T" > 5A7C0000
        mv thesis.txt 6B8D0000.tmp; mv 5A7C0000 thesis.txt; rm 6B8D0000.tmp "~\$thesis.txt""#,
    ),
    pattern(
        "python-tempfile",
        r#"python3 -c '
import os, sys, tempfile
fd, name = tempfile.mkstemp(dir=".", prefix="tmp", suffix=".txt")
with os.fdopen(fd, "w") as file:
    file.write(sys.argv[1]); file.flush(); os.fsync(file.fileno())
os.replace(name, "thesis.txt")
fd = os.open(".", os.O_RDONLY); os.fsync(fd); os.close(fd)' "$T""#,
    )
    .by("python3"),
    pattern("sed", r#"sed -i "s/.*/$T/" thesis.txt"#),
    pattern(
        "dd-in-place",
        r#"printf %s "$T" | dd of=thesis.txt conv=notrunc status=none; truncate -s "${#T}" thesis.txt"#,
    ),
    pattern(
        "qt",
        r#"printf %s "$T" > thesis.txt.AbCdEf; chmod 644 thesis.txt.AbCdEf; mv thesis.txt.AbCdEf thesis.txt"#,
    ),
    pattern(
        "rsync",
        r#"printf %s "$T" > "$W/thesis.txt"; rsync -c "$W/thesis.txt" thesis.txt"#,
    )
    .by("rsync"),
    pattern(
        "rsync-in-place",
        r#"printf %s "$T" > "$W/thesis.txt"; rsync -c --inplace "$W/thesis.txt" thesis.txt"#,
    )
    .by("rsync"),
    pattern(
        "git-style-lock",
        r#"(set -C; printf %s "$T" > thesis.txt.lock); mv thesis.txt.lock thesis.txt"#,
    ),
    pattern(
        "swap",
        r#"printf %s "$T" > next.txt; python3 -c '
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.renameat2(-100, b"next.txt", -100, b"thesis.txt", 2) == 0, ctypes.get_errno()'
        rm next.txt"#,
    )
    .by("python3"),
    pattern(
        "mapped",
        r#"truncate -s "${#T}" thesis.txt; python3 -c '
import mmap, sys
with open("thesis.txt", "r+b") as file, mmap.mmap(file.fileno(), 0) as map:
    map[:] = sys.argv[1].encode()' "$T""#,
    )
    .by("python3"),
];

/// Ways that take the original away first, to the name of a backup or for good.
const AWAY: &[Pattern] = &[
    pattern(
        "glib-with-backup",
        r#"printf %s "$T" | gio save --backup thesis.txt"#,
    )
    .by("gio")
    .leaving(&["thesis.txt~"]),
    pattern(
        "vim-with-backup",
        r#"vim -u NONE -N -es -c "set backup backupskip= backupcopy=no noeol nofixeol" \
            -c "%s/.*/$T/" -c "wq" thesis.txt < /dev/null"#,
    )
    .by("vim")
    .leaving(&["thesis.txt~"]),
    pattern(
        "emacs-backup-by-renaming",
        r##"ln -s "ada@host.4711:1700000000" ".#thesis.txt"
        mv thesis.txt thesis.txt~; printf %s "$T" > thesis.txt; sync thesis.txt; rm ".#thesis.txt""##,
    )
    .leaving(&["thesis.txt~"]),
    pattern("sed-with-backup", r#"sed -i.bak "s/.*/$T/" thesis.txt"#).leaving(&["thesis.txt.bak"]),
    pattern(
        "install",
        r#"printf %s "$T" > "$W/thesis.txt"; install -m 644 "$W/thesis.txt" thesis.txt"#,
    ),
    pattern(
        "install-with-backup",
        r#"printf %s "$T" > "$W/thesis.txt"; install -b -m 644 "$W/thesis.txt" thesis.txt"#,
    )
    .leaving(&["thesis.txt~"]),
    pattern(
        "removed-before",
        r#"rm thesis.txt; printf %s "$T" > thesis.txt"#,
    ),
];

/// What patterns share: nano needs a terminal, and keys pressed when it has asked for them.
const HELPERS: &str = r#"
nano_types() { python3 - "$@" <<'PYTHON'
import os, pty, sys
*options, text, name = sys.argv[1:]
pid, terminal = pty.fork()
if pid == 0:
    os.environ["TERM"] = "vt100"
    os.execvp("nano", ["nano", "--ignorercfiles", "--nonewlines", *options, name])
said = b""
# Cuts the line and types another, writes, and leaves.
for wait_for, keys in ((b"Read 1 line", "\x0b" + text + "\x0f"), (b"Name to Write", "\r"), (b"Wrote 1 line", "\x18")):
    while wait_for not in said:
        said += os.read(terminal, 4096)
    os.write(terminal, keys.encode())
try:
    while os.read(terminal, 4096):
        pass
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
PYTHON
}
"#;

fn assert_saved(
    drive: &DriveHandle,
    (pattern, id): (&Pattern, &str),
    round: usize,
    (before, text): (&str, &str),
) {
    let name = pattern.name;
    let path = format!("/{name}/thesis.txt");
    let entry = drive.entry(&path).unwrap_or_else(|| panic!("{name}: gone"));
    let read = drive.read(&path).unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&read), text, "{name}: the content");
    assert_eq!(entry.id, id, "{name}: the same item");
    assert_eq!(entry.versions, round, "{name}: one version per save");
    for leaf in pattern.leaves {
        let read = drive.read(&format!("/{name}/{leaf}")).unwrap_or_default();
        let read = String::from_utf8_lossy(&read);
        assert_eq!(read.trim_end_matches('\n'), before, "{name}: the backup");
    }
}

fn assert_one_version_each(patterns: &[Pattern]) {
    if !needs::met(&[Need::Fuse]) {
        return;
    }
    let patterns: Vec<&Pattern> = patterns.iter().filter(|p| p.can_run()).collect();
    let service = Service::start();
    let drive = service.default_drive();
    let put = |p: &&Pattern| drive.put(&format!("/{}/thesis.txt", p.name), "first");
    let ids: Vec<String> = patterns
        .iter()
        .map(put)
        .map(|id| id.expect("file"))
        .collect();
    let home = Home::signed_in(&service);
    let mount = home.mount();
    let texts = ["first", "the second text", "third", "and a fourth one"];
    for (round, pair) in (2..).zip(texts.windows(2)) {
        let text = pair[1];
        for Pattern { name, script, .. } in &patterns {
            home.sh(&format!(
                "{HELPERS}\ncd \"$M/{name}\"; T='{text}'\n{script}"
            ));
            let read = home.sh(&format!("cat \"$M/{name}/thesis.txt\""));
            assert_eq!(read.trim_end_matches('\n'), text, "{name}: here");
        }
        mount.sync();
        for (pattern, id) in patterns.iter().zip(&ids) {
            assert_saved(&drive, (pattern, id), round, (pair[0], text));
        }
    }
    let mut expected = BTreeSet::from(["thesis.txt".to_owned()]);
    for pattern in &patterns {
        expected.insert(pattern.name.to_owned());
        expected.extend(pattern.leaves.iter().map(|&name| name.to_owned()));
    }
    assert_eq!(
        drive.names_ever(),
        expected,
        "all that others may have seen"
    );
    mount.unmount();
}

#[test]
fn every_way_of_saving_is_one_version_of_the_same_item_and_shows_nothing_temporary() {
    assert_one_version_each(PATTERNS);
}

#[test]
fn a_save_that_moves_the_original_away_for_good_is_one_version_as_well() {
    assert_one_version_each(AWAY);
}
