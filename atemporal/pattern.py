"""Regular expressions for JSON Schema: what a schema says of a text, in every dialect the same.

Promise: a pattern made here means one thing for Python's `re` and for ECMA's expressions, which JSON
Schema takes. It names its characters (`[0-9]`, because they differ in what a digit is), and it ends
where the text ends (in Python's, `$` alone also stands before a last newline).
"""

from __future__ import annotations


def whole(form: str) -> str:
    """The pattern of a text that has the form from its beginning to its end."""
    return rf"^(?:{form})$(?!\n)"


NO_NUL = r"^[^\x00]*$"
"""Any text without a NUL character, which neither Postgres nor an environment can hold."""
