"""EC2's API: what a request to the twin means.

`api` has the table of all actions, `action` what is known of each; their handlers are in
`launching`, `instances`, `tags`, `volumes` and `images`, and work on an `account`. `wire` is the
protocol, `filters` and `page` what the Describe calls share, `description` how instances look.
`interceptor` stands before and behind every call, with the `limits` of an account.
"""
