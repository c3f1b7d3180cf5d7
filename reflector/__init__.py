"""Reflector mode: a BGP route reflector (RFC 4456) without a kernel, for pods and hosts that forward nothing.

The protocol is the Speaker's; here is only where its settings come from. `options` reads the command line, `flags`
makes settings of it alone (dynamic neighbours from address ranges), `resources` makes them of Calico's resources, and
`__main__` is the composition root, which runs the node daemon's own life with either.
"""
