"""Bytes to values and back (RFC 4271 §4): the codec, and nothing else.

- `framing`       the octet stream of a TCP connection to messages (§4.1, §6.1)
- `open`, `capabilities`, `notification`, `refresh`   the small messages
- `nlri`          prefixes; one compiled pattern a family does the work
- `rules`         one table, a row an attribute: flags, check, RFC 7606 answer, RFC
- `aspath`        AS_PATH values: checks, prepending, two-octet speakers (RFC 6793)
- `attributes`    PathAttributes (interned, compared by identity) and the building of attribute blocks
- `examine`       the careful walk over an attribute block: every check, every finding
- `reader`        NLRI fields as one session agreed on them
- `update`        UPDATE messages; well-formed ones of the usual shape take a short road around `examine`
- `build`         values to UPDATE messages

Rules. Whatever a peer sends, only `BGPError` leaves this package, and only where the RFCs demand a NOTIFICATION;
everything milder is an RFC 7606 finding in the result. Nothing here knows a session, a clock or a socket. An attribute
block is kept as octets, in canonical form, and decoded when somebody asks: reflection is moving bytes.
"""
