"""One peer's protocol: RFC 4271 §8 without a socket and without a clock.

A `Session` is told what happened (connections, octets, the passing of time) and answers with a list of events: what to
dial, send and close, and what the rest of the speaker must know. The parts:

- `fsm`        states, events and the one transition table; a pair that is not in it is a defect and raises
- `machine`    one run of that table: a TCP connection with its framer and timers
- `session`    the peer: at most two machines (RFC 4271 §6.8), their collision, start and stop
- `negotiate`  our OPEN from settings, and what two OPENs agree on
- `collision`  which of two connections stays
- `retry`      when to dial again, and the damping of a peer that makes errors
- `restart`    graceful restart's helper: which families' routes stay stale, and until when
- `cause`      why a connection ends: what is sent, what is kept, what the log says
- `statistics` counters: whatever is ignored, refused or dropped here is counted here
- `local`, `events`  the values that go in and out

Rules. Time is an argument. `receive` in Established costs a list append for an UPDATE: nothing on that path may
allocate an object or touch a timer. State changes go through `Session._fire` and the table, never around them.
"""
