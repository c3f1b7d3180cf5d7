"""The commands of `bgpctl` that talk to a running daemon. They know the API's schema and nothing else of the speaker.

`client` asks, `tables` and `story` render, `commands` is what click sees, `offline` is the one command that does not
ask: removing our routes from the kernel when no daemon is left to do it.
"""
