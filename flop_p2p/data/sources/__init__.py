"""The kinds of data that can be read, each in its own module."""

from flop_p2p.data.sources.read import read_source

__all__ = ["read_source"]
