#!/usr/bin/env bash
# grafana-foundation-sdk: without a version pip takes `1769699998!10.1.0`, not the newest release, 0.0.21.
#
# Releases for one version of Grafana have an epoch (`N!`, PEP 440) made of a time, and an epoch outranks
# whatever stands behind it. So pip's "latest", and each `>=`, is the SDK for the oldest Grafana that it
# covers, 10.1 of 2023. A lower bound does not help: `>=0.0.21` takes it too. Only `==` does, or a bound from
# above.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
seen=$(
  for wanted in grafana-foundation-sdk 'grafana-foundation-sdk>=0.0.21' 'grafana-foundation-sdk==0.0.21' \
    'grafana-foundation-sdk<1'; do
    "$work/venv/bin/pip" download -qq --no-deps -d "$work/got" "$wanted" 2>/dev/null
    file=$(cd "$work/got" && echo ./*)
    rm -r "$work/got"
    echo "$wanted: $(sed -E 's/^[^-]*-([^-]*)(-.*|\.tar\.gz)$/\1/' <<<"$file")"
  done
)
echo "$seen"
expected='grafana-foundation-sdk: 1769699998!10.1.0
grafana-foundation-sdk>=0.0.21: 1769699998!10.1.0
grafana-foundation-sdk==0.0.21: 0.0.21
grafana-foundation-sdk<1: 0.0.21'
[[ $seen == "$expected" ]] || { echo "pip takes another one now: this finding is out of date"; exit 1; }
