"""The fleet: EC2's instances beside the recorded attempts.

Promise: `reader` takes a `snapshot` of both, in the one order that is safe. What follows from it is
pure: `plan` decides what is to be done, `leftovers` which volumes may go, `reconciliation` where EC2
and the records differ.
"""
