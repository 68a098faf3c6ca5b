#!/usr/bin/env bash
# promtool 2.42.0 passes a test that expects no alert of a name that no rule has: a misspelt test is green.
#
# `alert_rule_test` with `exp_alerts: []` says that an alert keeps still. promtool compares the alerts of that
# name that fire with none, and nothing of that name fires where no rule defines it. So the test for "does
# not fire" of a renamed or misspelt alert stays green for ever, beside a rule that fires at that moment.
# With an expected alert it fails, as one would think. Needs apt of Debian 12.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -qq prometheus=2.42.0+ds-5+deb12u1 2>/dev/null
dpkg -x prometheus_*.deb deb
version=$(deb/usr/bin/promtool --version 2>&1 | sed -nE 's/^promtool, version ([0-9.]+).*/\1/p')
cat >rules.yml <<'YAML'
groups:
  - name: disk
    rules:
      - alert: DiskIsFull
        expr: disk_free_bytes == 0
YAML
seen=$(
  echo "promtool $version"
  for name in DiskIsFull DiskIsFul; do
    cat >test.yml <<YAML
rule_files: [rules.yml]
tests:
  - interval: 1m
    input_series: [{series: disk_free_bytes, values: '0x10'}]
    alert_rule_test: [{eval_time: 5m, alertname: $name, exp_alerts: []}]
YAML
    deb/usr/bin/promtool test rules test.yml >said 2>&1 && result=SUCCESS || result=FAILED
    echo "$name, which is expected to keep still: $result"
  done
)
echo "$seen"
expected='promtool 2.42.0
DiskIsFull, which is expected to keep still: FAILED
DiskIsFul, which is expected to keep still: SUCCESS'
[[ $seen == "$expected" ]] || { echo "it judges otherwise now: this finding is out of date"; exit 1; }
