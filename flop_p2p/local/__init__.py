"""A whole federation on one machine: real daemons as processes, real sockets on loopback, real keys."""

from flop_p2p.local.run import run_local

__all__ = ["run_local"]
