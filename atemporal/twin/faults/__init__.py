"""What goes wrong on the twin when somebody asks for it, and otherwise never.

`kind` has all kinds of faults, `rule` says when one is injected, `active_rules` are the rules of a
twin, `plan` what they mean for its machines, `fault` one fault of one machine, `journal` the record
of all injected faults, `admin` the endpoint for all of it.
"""
