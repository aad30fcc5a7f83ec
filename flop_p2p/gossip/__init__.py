"""The round protocol: what a node does when, without sockets, clocks or training inside."""
