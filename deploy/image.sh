#!/usr/bin/env bash
# usage: deploy/image.sh ARCHIVE.tar
# Builds the image's last stage without a Docker engine, and tries it. Needs root, buildah and debootstrap (apt names).
# The binary is the release build of this clone; where Docker is at hand, `docker build -f deploy/Dockerfile .` builds it inside.
# The image is written as a docker archive (`docker load`, `ctr images import`). Tried in it, with a read-only root file system,
# as the unprivileged user of the image: `demo --once`, and SIGTERM to `up`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

[ $# -eq 1 ] || { echo "usage: ${0##*/} ARCHIVE.tar" >&2; exit 2; }
archive=$(realpath "$1")
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/bifold
base=$cache/image-base
work=$(mktemp -d)
export STORAGE_DRIVER=vfs
b() { buildah --root "$work/storage" --runroot "$work/run" "$@"; }
finish() {
    umount -R "$work/root" 2>/dev/null || true
    b umount --all >/dev/null 2>&1 || true
    umount "$work"/storage/overlay/*/merged 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

cargo build --release --locked --bin bifold
target=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')
mkdir -p "$work/build/src/target/release" "$work/build/image/var/lib/bifold" "$work/build/image/tmp"
cp "$target/release/bifold" "$work/build/src/target/release/"
strip "$work/build/src/target/release/bifold"

# What distroless/cc has: the C library, its certificates, no shell of ours is needed.
if [ ! -e "$base/.done" ]; then
    rm -rf "$base"
    debootstrap --variant=minbase --include=ca-certificates,libgcc-s1,libstdc++6,zlib1g bookworm "$base" >"$work/debootstrap.log" ||
        { tail -5 "$work/debootstrap.log" >&2; exit 1; }
    touch "$base/.done"
fi
mkdir -p "$work/base"/{etc,tmp,proc,usr/lib,usr/local/bin,var/lib}
cp -a "$base/usr/lib/$(uname -m)-linux-gnu" "$work/base/usr/lib/"
cp -a "$base/usr/lib64" "$work/base/usr/" 2>/dev/null || cp -a "$base"/usr/lib/ld-linux-*.so.* "$work/base/usr/lib/"
rm -rf "$work/base/usr/lib/$(uname -m)-linux-gnu"/{gconv,perl*,audit,security}
for folder in lib lib64; do ln -s "usr/$folder" "$work/base/$folder"; done
cp -aL "$base"/etc/{ssl,passwd,group,nsswitch.conf} "$work/base/etc/"

container=$(b from scratch)
b add -q "$container" "$work/base" / >/dev/null
b commit -q "$container" localhost/bifold-runtime >/dev/null

b bud -q --isolation=chroot --pull-never --build-arg RUNTIME=localhost/bifold-runtime --build-arg BUILDER=scratch \
    --build-context "build=$work/build" -f deploy/Dockerfile -t localhost/bifold . >/dev/null
rm -f "$archive"
b push -q localhost/bifold "docker-archive:$archive:bifold:latest"
echo "image: $(du -h "$archive" | cut -f1) as an archive, $(gzip -c "$archive" | wc -c | awk '{printf "%.0f MB", $1 / 1e6}') compressed"

container=$(b from --pull-never localhost/bifold)
mkdir -p "$work/root"
mount --bind -o ro "$(b mount "$container")" "$work/root"
mount -o remount,ro,bind "$work/root"
mount -t tmpfs -o mode=1777 tmpfs "$work/root/tmp"
mount -t tmpfs -o uid=65532,gid=65532 tmpfs "$work/root/var/lib/bifold"
run() { chroot --userspec=65532:65532 "$work/root" /usr/local/bin/bifold "$@"; }

echo "image: $(run --version)"
BIFOLD_DATA_DIR=/var/lib/bifold/demo run demo --once --listen 127.0.0.1:0 >"$work/demo" 2>"$work/demo.err" ||
    { cat "$work/demo" "$work/demo.err" >&2; exit 1; }
echo "image: demo --once is verified, as user 65532 with a read-only root file system"

cp examples/fraud/pipeline.sql "$work/root/tmp/pipeline.sql"
BIFOLD_DATA_DIR=/var/lib/bifold/up BIFOLD_PIPELINE=/tmp/pipeline.sql run up --listen 127.0.0.1:0 >"$work/up" 2>"$work/up.err" &
pid=$!
for _ in $(seq 100); do
    grep -q '"ready"' "$work/up" && break
    sleep 0.1
done
grep -q '"ready"' "$work/up" || { cat "$work/up.err" >&2; exit 1; }
begun=$SECONDS
# chroot execs the program: the signal goes to it, as a container's does.
pkill -TERM -P "$pid" -x bifold || kill -TERM "$pid"
wait "$pid" && echo "image: up ended $((SECONDS - begun)) s after SIGTERM, with 0"
