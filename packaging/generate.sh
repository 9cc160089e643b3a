#!/bin/sh
# Builds the binary and writes what packages need beside it: manual pages and completions.
#   packaging/generate.sh && cargo deb --no-build -p onedrivefs
#   packaging/generate.sh && cargo generate-rpm -p crates/onedrivefs
# ONEDRIVEFS_CLIENT_ID in the environment builds that application id in.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --locked -p onedrivefs
binary=${CARGO_TARGET_DIR:-target}/release/onedrivefs
out=packaging/out
rm -rf "$out"
mkdir -p "$out/man"
"$binary" man "$out/man"
"$binary" completions bash > "$out/onedrivefs.bash"
"$binary" completions zsh > "$out/_onedrivefs"
"$binary" completions fish > "$out/onedrivefs.fish"
