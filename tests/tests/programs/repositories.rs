//! git and make, which judge files by their times, inode numbers and sizes.

use onedrivefs_tests::tree;

use crate::{mount_anew, on_a_mount};

/// A repository of more than 2,000 objects in `$W/origin`.
const ORIGIN: &str = r#"
export GIT_CONFIG_COUNT=3 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=Ada \
  GIT_CONFIG_KEY_1=user.email GIT_CONFIG_VALUE_1=ada@example.com \
  GIT_CONFIG_KEY_2=gc.auto GIT_CONFIG_VALUE_2=0
git init -q "$W/origin"; cd "$W/origin"
for dir in $(seq 30); do
  mkdir -p "src/part $dir"
  for file in $(seq 60); do echo "$dir $file: $RANDOM$RANDOM" > "src/part $dir/file-$file.txt"; done
  git add .; git commit -qm "Part $dir"
done
test "$(git count-objects | cut -d' ' -f1)" -gt 1900
"#;

#[test]
fn git_clones_commits_collects_and_finds_nothing_wrong() {
    on_a_mount(
        &["git"],
        |_| {},
        |home, mount| {
            home.sh(&format!(
                "{ORIGIN}\n{}",
                r#"git clone -q "$W/origin" "$M/clone"; cd "$M/clone"
                test "$(git rev-list --objects --all | wc -l)" -gt 1900
                test -z "$(git status --porcelain)"
                git checkout -qb topic; sed -i 's/^/changed /' "src/part 3/"*; git commit -qam changed
                git mv "src/part 4" "src/moved"; git rm -rq "src/part 5"; git commit -qm "moved, removed"
                git checkout -q -; git merge -q --no-edit topic; git stash list
                git worktree add -q "$M/worktree" topic; git worktree remove "$M/worktree"
                git fsck --full --strict --no-progress
                git gc -q --prune=now; git fsck --full --strict --no-progress
                git push -q "$W/origin" topic; test -z "$(git status --porcelain)""#,
            ));
            mount.sync();
            tree::assert_in_step(mount.path(), &home.service.default_drive());
            let mount = mount_anew(home, mount);
            // Whatever git remembers of a file, the index says: none was looked into.
            let before = home.service.downloaded_bytes();
            home.sh(r#"cd "$M/clone"; test -z "$(git diff-files)""#);
            let index = home.service.downloaded_bytes() - before;
            assert!(
                index < 1 << 20,
                "{index} bytes read for the state of the tree"
            );
            home.sh(r#"cd "$M/clone"; git fsck --full --strict --no-progress
                test -z "$(git status --porcelain)""#);
            mount
        },
    );
}

#[test]
fn make_builds_nothing_again_after_a_remount() {
    on_a_mount(
        &["make"],
        |_| {},
        |home, mount| {
            home.sh(r#"mkdir "$M/project"; cd "$M/project"
                printf 'all: $(patsubst %%.c,%%.o,$(wildcard *.c))\n\tcat *.o > $@\n' > Makefile
                printf '%%.o: %%.c\n\tcp $< $@; echo $< >> built\n' >> Makefile
                for i in $(seq 40); do echo "$i" > "$i.c"; done
                make -s; make -q; test "$(wc -l < built)" = 40
                stat -c '%n %y %i %s' * > "$W/stat""#);
            let mount = mount_anew(home, mount);
            home.sh(
                r#"cd "$M/project"; stat -c '%n %y %i %s' * | diff "$W/stat" -
                grep -qv '\.000000000 ' "$W/stat"; make -q
                sleep 0.01; echo new > 7.c; ! make -q; make -s; test "$(tail -n +41 built)" = 7.c; make -q"#,
            );
            mount
        },
    );
}
