"""Regular expressions for JSON Schema: what a schema says of a text, for every team's validator.

Promise: a pattern made here, and each that a schema of ours shows, means one thing for ECMA's
expressions, which JSON Schema takes, and for engines that know no look-around (RE2, so Go; Rust's
regex). It names its characters (`[0-9]`, because engines differ in what a digit is). What a text must
not be is a `not` of the schema.
Failure: in Python's `re` alone, `$` also stands before a last newline. Our code reads with `fullmatch`;
a validator of JSON Schema in Python takes such a text, and the reader refuses it.
"""

from __future__ import annotations


def whole(form: str) -> str:
    """The pattern of a text that has the form from its beginning to its end."""
    return f"^(?:{form})$"


NO_NUL = r"^[^\x00]*$"
"""Any text without a NUL character, which neither Postgres nor an environment can hold."""
