"""What the daemon shows of itself: JSON over a Unix socket, health and metrics over HTTP, one page for people.

The parts:

- `schema`: the stable JSON shapes and addresses. The command line (`bgpd.ctl`) knows only this module.
- `state`: what the daemon's composition root tells the API (speaker, kernel, datastore, heartbeat).
- `views`, `tables`, `explain`, `kernel`, `health`: read-only, Speaker -> schema. Nothing here is called on the way of a
  route. `counts` walks whole tables for them, `render` makes text of attributes, `lookup` finds what a request names.
- `metrics`: Prometheus families, read from the same views when they are scraped.
- `page`: the status page.
- `server`, `endpoints`, `limits`: aiohttp over up to three sockets, who may ask there, and how much.

The rules: the API changes nothing; an answer of any size is made in slices of a few milliseconds, so that neither a
full table nor a slow reader delays a session; what can be asked from beyond this host needs a token.
"""
