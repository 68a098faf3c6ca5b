"""Checks of the settings: every value can be read, and every variable of our prefix is a setting."""

from __future__ import annotations

from atemporal import registries as registry_files
from atemporal.doctor.check import Check, Result, ok, warning, wrong
from atemporal.doctor.instruments import Instruments
from atemporal.errors import Invalid
from atemporal.identity.trusted import group_size
from atemporal.prices import load
from atemporal.unknown_settings import unknown_variables

VALUES = "settings.values"
_CORRECT = "correct the variable and restart the daemons"


def values(instruments: Instruments) -> Result:
    """Every value is one, and there is a callback key."""
    try:
        settings = instruments.settings
        keys = settings.keys
    except Invalid as error:
        return wrong(str(error), _CORRECT)
    return ok(f"{len(settings.model_fields_set)} are set; callback keys: {', '.join(keys)}")


def identity(instruments: Instruments) -> Result:
    """The certificates are there by which the machines' proofs are verified."""
    try:
        size = group_size(instruments.settings)
    except Invalid as error:
        return wrong(str(error), _CORRECT)
    return ok(
        "each instance by a call of its own" if size == 1 else f"up to {size} instances a call"
    )


def prices(instruments: Instruments) -> Result:
    """The price table can be read, and has the default instance type."""
    settings = instruments.settings
    try:
        known = load(settings)
    except Invalid as error:
        return wrong(str(error), f"correct the table (`atemporal prices check`); {_CORRECT}")
    if settings.prices_file is None:
        return ok("there is no price table: nothing is reckoned")
    if known.of(settings.instance_type, "on-demand") is None:
        return warning(
            f"the price table has no {settings.instance_type} in {settings.region}, which jobs get "
            "that name no type",
            "add its price (`atemporal prices make`), and restart the daemons",
        )
    return ok(f"the price table has {settings.instance_type} in {settings.region}")


def registries(instruments: Instruments) -> Result:
    """What opens private registries can be read."""
    try:
        known = registry_files.load(instruments.settings)
    except Invalid as error:
        return wrong(str(error), f"correct the file; {_CORRECT}")
    named = ", ".join(sorted(known.passes))
    return ok(f"passwords are known of: {named}" if named else "no registry has a password here")


def names(instruments: Instruments) -> Result:
    """No variable of our prefix is mistyped."""
    unknown = unknown_variables(instruments.environment)
    if unknown:
        return warning(
            "; ".join(unknown), "correct the names, or unset them: what they set is not in effect"
        )
    return ok("every ATEMPORAL_* variable is a setting")


CHECKS = (
    Check(VALUES, values),
    Check("settings.names", names),
    Check("settings.identity", identity, (VALUES,)),
    Check("settings.prices", prices, (VALUES,)),
    Check("settings.registries", registries, (VALUES,)),
)
