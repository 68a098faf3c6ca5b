"""EC2's signed instance identity documents: which instance a machine is, proved and not believed.

Import from the modules: `trusted` needs no cryptography, which is megabytes in a process's memory.
"""
