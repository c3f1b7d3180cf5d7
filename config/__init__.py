"""Calico's resources in, SpeakerSettings out: what confd, its templates and BIRD's configuration parser do in Calico.

The parts, in the order that a change travels:

    files       a folder of YAML; inotify, debounce, what is held when files are bad or gone          (I/O)
    documents   text -> plain values; a YAML reader without the traps of YAML 1.1
    resources   plain values -> frozen, validated objects; `values`, `fields` and `selector` serve it
    snapshot    the immutable store of objects; a refused object keeps its last good version
    compile     snapshot -> SpeakerSettings of one node, whole; `cluster`, `hosts`, `candidates`, `peers`, `mesh`,
                `chains` and `statics` serve it; `memory` keeps what the next compile need not make again
    diff        two SpeakerSettings -> what changes, and what each change costs
    view, ctl   all this shown to people: `bgpctl validate`, `bgpctl resolve`

Rules. Compiling is always whole, never one resource to one action, so order of events cannot matter. One bad object
costs that object and nothing else, and is named in a `Problem` until it is mended. What is missing fails closed: no
session without the password that was asked for, no route past a filter that does not exist. Only `files`, `inotify`
and `ctl` touch the world; the rest is pure.
"""
