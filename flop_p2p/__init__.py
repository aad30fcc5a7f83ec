"""flop-p2p: peer-to-peer federated learning for hospitals; the body is shared, the head stays at home."""

__version__ = "0.1.0"
