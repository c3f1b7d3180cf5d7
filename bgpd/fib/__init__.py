"""The kernel's routes: learned from it, and written into it.

The parts, from the inside out:

* `messages`: rtnetlink octets <-> values. Writing is packed in advance, reading shares what routes have in common.
* `entries`: forwarding entries (`Form`) and nexthop objects (`Nexthop`), shared by all prefixes that use them.
* `nexthops`: our nexthop objects, their ids and their life. `side`: one family's state. `picture`: a running dump.
* `writer`, `table`: FibTable. Wanted and installed in, operations out; the write rules stand in `table`.
* `objects`: what nexthop objects of others mean for their routes.
* `learn`: Learner. Links, addresses and foreign routes in, the host's own routes (`LocalChange`) out.
* `netlink`: the sockets; the only part that is not pure. `bgpd.shell.kernel` puts all of it to work on a loop.

Three habits of the kernel shaped this. It works through a request buffer before `send` returns and answers failures
unasked: so a batch needs one acknowledgement, and nothing is ever in flight. It repeats our own writes to our own
monitor: a socket filter drops them, so events are what others did. It is silent about routes and nexthop objects that
go with a link or an address: so such events lead to a dump of that interface, and lost events to a dump of everything.

To change what counts as the host's own route, start at `learn`; how routes are written, at `writer._decide`; what a
message looks like, at `messages.Packer`.
"""
