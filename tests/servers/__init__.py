"""The servers that the tests run for themselves: each in a folder of its own, on loopback only."""
