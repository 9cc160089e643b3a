//! SQLite by its own program. Locks between two connections are tested in `it/together.rs`.

use onedrivefs_sim::Entry;

use crate::{mount_anew, on_a_mount};

/// How SQLite takes back what is not committed: from a journal of what was, or with a log of what
/// is to be.
const MODES: &[&str] = &["delete", "wal"];

#[test]
fn databases_are_whole_after_kills_and_remounts() {
    on_a_mount(
        &["sqlite3"],
        |_| {},
        |home, mount| {
            let drive = home.service.default_drive();
            let for_each = |script: &str| {
                for mode in MODES {
                    home.sh(&format!("cd \"$M\"; mode={mode}; db={mode}.db\n{script}"));
                }
            };
            for_each(
                r#"sqlite3 $db "pragma journal_mode=$mode;
                  create table t(n integer primary key, text);
                  with recursive c(n) as (select 1 union all select n + 1 from c where n < 5000)
                  insert into t select n, hex(randomblob(50)) from c;" > /dev/null"#,
            );
            let mount = mount_anew(home, mount);
            // A transaction in the middle of which the program is killed, when its cache is full.
            for_each(
                r#"mkfifo "$W/$mode"; sqlite3 $db < "$W/$mode" > "$W/$mode.out" & exec 3> "$W/$mode"
                echo "pragma cache_size=5; begin; update t set text = 'lost'; select 'updated';" >&3
                until grep -q updated "$W/$mode.out"; do sleep 0.02; done
                kill -9 $!; wait $! || true; exec 3>&-; ls $db-* > /dev/null
                test "$(sqlite3 $db "pragma integrity_check; select count(*), sum(text = 'lost') from t")" \
                  = "$(printf 'ok\n5000|0')""#,
            );
            let mount = mount_anew(home, mount);
            let dump = || -> Vec<Entry> { drive.dump() };
            let before = dump();
            for_each(
                r#"sqlite3 $db "update t set text = 'new' where n % 7 = 0; delete from t where n > 4000;
                  vacuum;""#,
            );
            let mount = mount_anew(home, mount);
            for_each(
                r#"test "$(sqlite3 $db "pragma integrity_check; pragma journal_mode;
                  select count(*), sum(text = 'new') from t")" = "$(printf "ok\n$mode\n4000|571")""#,
            );
            let after = dump();
            let paths: Vec<&str> = after.iter().map(|entry| entry.path.as_str()).collect();
            assert_eq!(
                paths,
                ["/delete.db", "/wal.db"],
                "journals go with the last user"
            );
            for (before, after) in before.iter().zip(&after) {
                assert_eq!(before.id, after.id, "{}", after.path);
                assert_eq!(before.versions + 1, after.versions, "{}", after.path);
            }
            mount
        },
    );
}
