#!/usr/bin/env bash
# docker with runc 1.1.5 ignores the mode of a tmpfs where the image has that folder: it gets the folder's.
#
# `--tmpfs /var/log/server:mode=1777`, in compose `tmpfs: ["/var/log/server:mode=1777"]`, reads as "everybody
# may write there". It does so where the image has no such folder. Where it has one, the tmpfs gets that
# folder's mode, but not its owner: it is root's. So a server that runs as its own user with a read-only root
# can not write into its own log folder, which is 0755, and nothing is said. What helps: a folder that the
# image does not have, or the options uid= and gid=. Needs a docker that answers (DOCKER_HOST), busybox-static.
set -euo pipefail
runc=$(runc --version | sed -nE 's/^runc version ([0-9.]+).*/\1/p')
image=finding-tmpfs:$$
work=$(mktemp -d)
trap 'docker image rm --force "$image" >/dev/null 2>&1; rm -rf "$work"' EXIT
mkdir -p "$work/bin" "$work/tmp" "$work/own"
cp /bin/busybox "$work/bin/busybox"
chmod 0755 "$work" "$work/own"
chown 1000:1000 "$work/own"
tar -C "$work" -c . | docker import - "$image" >/dev/null
seen=$(
  echo "runc $runc"
  for folder in /own /new; do
    echo "$folder: $(docker run --rm --network none --user 1000 --tmpfs "$folder:mode=1777" "$image" \
      /bin/busybox stat -c '%a of %u' "$folder")"
  done
)
echo "$seen"
expected='runc 1.1.5
/own: 755 of 0
/new: 1777 of 0'
[[ $seen == "$expected" ]] || { echo "it does otherwise now: this finding is out of date"; exit 1; }
