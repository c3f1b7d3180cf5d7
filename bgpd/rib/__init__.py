"""The routing information bases (RFC 4271 §3.2) and the decision process (§9).

Parts: `path` (what a route is), `adj_rib_in` (what each peer said), `decision` (which path is best and why another is
not), `loc_rib` (all usable paths of all prefixes), `nexthop` (what BGP next hops resolve to), `reflection` (who may be
told what, RFC 4456), `export` (a path's outgoing attributes), `update_group` (Adj-RIB-Out).

Rules that keep it fast:
- No object and no Python loop per prefix where nothing differs. A Path is shared by all prefixes of an UPDATE that
policy
  treats alike; a Loc-RIB entry with several paths is a tuple shared by all prefixes that have just these paths.
- One narrow door: `LocRib.announce` and `LocRib.withdraw` are the only ways to change a table, and `RibChange` groups
of
  keys the only thing that consumers (kernel, update groups) get.
- Adj-RIB-Out is not stored. What a peer was told is a function of the Loc-RIB entry and the group's export chain, so a
  withdrawal is due exactly where the old path passes that function and the new one does not.
"""
