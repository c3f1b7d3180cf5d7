"""BIRD's control socket, for what Calico and people ask there: calicoctl node status, the probes, birdcl, exporters.

* `facts`: the speaker in BIRD's terms (protocols, states, ways of routes), as plain values; what CalicoNodeStatus
  reports is made of them, too
* `grammar`: a command line -> `Command`, or an error with BIRD's code
* `replies`: numbered lines as BIRD writes them
* `protocols`, `routes`, `status`: the answers
* `server`: the two sockets, one a family as Calico's two BIRDs have them

Layout is that of BIRD 1.6, which Calico ships and whose columns its tools take apart. Nothing can be changed here:
commands that would are refused as BIRD refuses them after `restrict`.
"""
