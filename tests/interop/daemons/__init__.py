"""One module per foreign BGP daemon: its configuration, its process, its tables."""
