"""The commands of `bgpctl` that talk to a running daemon. They know the API's schema and nothing else of the speaker.

`client` asks, `tables` and `story` render, `words` says numbers and attributes, `commands` is what click sees. What
needs more than the api is handed in by the entry point, config/bgpctl.py: cleaning the kernel, and the commands that
read resources.
"""
