"""How messages and bodies travel: ZeroMQ between hospitals, memory within a process."""

from flop_p2p.transport.base import (
    Body,
    BodyReceived,
    Connected,
    Delivered,
    Egress,
    Event,
    Gate,
    Left,
    LinkStatus,
    Lost,
    OutgoingBody,
    Peer,
    Progress,
    Transport,
    TransportKeys,
)
from flop_p2p.transport.memory import MemoryNetwork, MemoryTransport
from flop_p2p.transport.probe import ProbeResult, probe
from flop_p2p.transport.zeromq import ZmqTransport

__all__ = [
    "Body",
    "BodyReceived",
    "Connected",
    "Delivered",
    "Egress",
    "Event",
    "Gate",
    "Left",
    "LinkStatus",
    "Lost",
    "MemoryNetwork",
    "MemoryTransport",
    "OutgoingBody",
    "Peer",
    "ProbeResult",
    "Progress",
    "Transport",
    "TransportKeys",
    "ZmqTransport",
    "probe",
]
