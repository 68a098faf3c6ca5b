#!/usr/bin/env bash
# ignition-validate 2.14: a file that says `compression: gzip` and is none passes without a word.
#
# The validator decodes a data: URL, so bad base64 is an error, but it does not unpack what comes out. Ignition
# does, in the initramfs of the first boot, and there the failure is a machine that does not boot: no unit, no
# log that anybody gets. So "passes ignition-validate" does not mean that a compressed inline file can be
# written. A misspelled key is a warning only, with exit status 0: look at the output too. Needs apt of Debian 12.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
(cd "$work" && apt-get download -qq ignition=2.14.0+ds1-1+b6 2>/dev/null && dpkg -x ignition_*.deb deb)
config() { # of one file, with these contents
  printf '{"ignition":{"version":"3.3.0"},"storage":{"files":[{"path":"/a","contents":{%s}}]}}' "$1"
}
seen=$(
  for contents in '"source":"data:;base64,aGV"' '"source":"data:;base64,aGVsbG8gaGVsbG8K"' \
    '"compression":"gzip","source":"data:;base64,aGVsbG8gaGVsbG8K"' '"source_":"data:;base64,aGVsbG8gaGVsbG8K"'; do
    config "$contents" >"$work/config.ign"
    "$work/deb/usr/bin/ignition-validate" "$work/config.ign" >"$work/said" 2>&1 && valid=passes || valid=fails
    words=$(grep -oE '^(warning|error)' "$work/said" || true)
    rm -rf "$work/root" "$work/cache" && mkdir "$work/root"
    for stage in fetch files; do
      IGNITION_CONFIG_FILE=$work/config.ign "$work/deb/usr/lib/dracut/modules.d/30ignition/ignition" \
        --platform=file --stage=$stage --root="$work/root" --config-cache="$work/cache" \
        --state-file="$work/state" --neednet="$work/neednet" --log-to-stdout >"$work/log" 2>&1 || true
    done
    why=$(grep -o 'invalid header' "$work/log" | head -n 1 || true)
    echo "{$contents}: validate $valid${words:+ ($words)}; written [$(cat "$work/root/a" 2>/dev/null)]${why:+ ($why)}"
  done
)
echo "$seen"
expected='{"source":"data:;base64,aGV"}: validate fails (error); written []
{"source":"data:;base64,aGVsbG8gaGVsbG8K"}: validate passes; written [hello hello]
{"compression":"gzip","source":"data:;base64,aGVsbG8gaGVsbG8K"}: validate passes; written [] (invalid header)
{"source_":"data:;base64,aGVsbG8gaGVsbG8K"}: validate passes (warning); written []'
[[ $seen == "$expected" ]] || { echo "they read it otherwise now: this finding is out of date"; exit 1; }
