"""Every field of every resource, changed once on a running speaker: what resets, and when the change is in effect.

lab     node-a runs our daemon; node-b is BIRD in the mesh, the top-of-rack router is FRR
rows    one row a field: the change, what its neighbours have to change too, and how its effect is seen from outside
runner  applies a row, compares the reset that `config.diff` announced with the one the neighbours saw, and times it
table   docs/changes.md

`python -m tests.netns.change_table` runs all of it and writes the page.
"""
