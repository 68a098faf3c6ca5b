"""Webhooks: events sent to somebody's own receiver, signed as the Standard Webhooks specification says.

`address` says where one may be sent to, `signature` how it is signed, `retry` when it is tried again,
`answer` what came of it; all are pure. `sender` makes the request. What is sent, and in which order, is
up to `atemporal.store`.
"""
