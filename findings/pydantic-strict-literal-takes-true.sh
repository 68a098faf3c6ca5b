#!/usr/bin/env bash
# pydantic 2.14.3: a strict model's `Literal[1]` takes JSON's `true`, which its own JSON Schema refuses.
#
# Strict mode is to convert nothing, and of `int` it refuses `true`. Of a literal it does not: the value is
# looked up by equality, and in Python True == 1. A version field such as `v: Literal[1]` so reads
# `{"v": true}` as version 1, while the schema made of the same model says `const: 1, type: integer`, which a
# JSON Schema validator does not find in `true`. Who checks by the schema and who checks by the model differ.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q pydantic==2.14.3 jsonschema==4.26.0
seen=$("$work/venv/bin/python" - <<'PYTHON'
from typing import Literal

import jsonschema
from pydantic import BaseModel, ConfigDict, ValidationError


class Number(BaseModel):
    model_config = ConfigDict(strict=True)
    v: int


class Version(BaseModel):
    model_config = ConfigDict(strict=True)
    v: Literal[1]


for model in (Number, Version):
    try:
        model.model_validate_json('{"v": true}')
        read = "takes it"
    except ValidationError:
        read = "refuses it"
    try:
        jsonschema.validate({"v": True}, model.model_json_schema())
        schema = "takes it"
    except jsonschema.ValidationError:
        schema = "refuses it"
    print(f"{model.__name__}: the model {read}, its schema {schema}")
PYTHON
)
echo "$seen"
expected='Number: the model refuses it, its schema refuses it
Version: the model takes it, its schema refuses it'
[[ $seen == "$expected" ]] || { echo "it reads otherwise now: this finding is out of date"; exit 1; }
