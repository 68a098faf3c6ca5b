#!/usr/bin/env bash
# python-dotenv 1.2.4: single quotes do not keep ${NAME}, and ${NAME:-default} leaves an empty NAME empty.
#
# In a shell, and in docker compose's env files, whose format this library is often taken to read, single
# quotes keep a value as it is written, and `:-` gives the default for a variable that is empty as well as
# for one that is not set. python-dotenv replaces inside every kind of quotes, because it forgets which
# kind there was, and asks only whether the variable is set. Both give a program another value without a
# word. Seen: KEPT is "pa2024word" in place of "pa${YEAR}word", FALLBACK is "" in place of "db.example".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q python-dotenv==1.2.4
cat >"$work/job.env" <<'ENV'
KEPT='pa${YEAR}word'
FALLBACK=${HOST:-db.example}
ENV
# A shell reads the very same lines; it is what the values are compared with.
shell=$(YEAR=2024 HOST='' sh -c '. "$1"; printf "%s|%s" "$KEPT" "$FALLBACK"' sh "$work/job.env")
python=$(YEAR=2024 HOST='' "$work/venv/bin/python" - "$work/job.env" <<'PYTHON'
import sys

from dotenv import dotenv_values

read = dotenv_values(sys.argv[1])
print(read["KEPT"], read["FALLBACK"], sep="|", end="")
PYTHON
)
echo "shell:         $shell"
echo "python-dotenv: $python"
# shellcheck disable=SC2016
[[ $shell == 'pa${YEAR}word|db.example' ]] || { echo "the shell reads it otherwise"; exit 1; }
[[ $python == 'pa2024word|' ]] || { echo "it reads otherwise now: this finding is out of date"; exit 1; }
