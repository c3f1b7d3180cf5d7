"""A small cluster in network namespaces: the demo, the end-to-end tests and the benchmarks stand on it.

netns      network namespaces, with or without root (user namespaces)
cluster    nodes, switch, top-of-rack router, pods: links, addresses, the routes that Felix would write
datastore  the folder of Calico resources that the speakers read
speakers   what runs BGP: our daemon, BIRD configured as Calico does, BIRD, FRR or ourselves as top-of-rack router
probes     packets in both directions, counted by sequence number (`prober` is the process behind them)
watch      kernel routes as iproute2 shows them, and every change of them with its time
demo       `make demo`

Nothing here imports the daemon: the lab sees only its command line, its sockets and what it does to the kernel.
"""
