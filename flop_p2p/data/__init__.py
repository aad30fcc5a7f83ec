"""Data sets, their partition over sites, and the sites' fixed splits."""

from flop_p2p.data.augmentation import build_augmentation
from flop_p2p.data.dataset import Dataset
from flop_p2p.data.load import FederatedData, SiteSplit, load_federated

__all__ = ["Dataset", "FederatedData", "SiteSplit", "build_augmentation", "load_federated"]
