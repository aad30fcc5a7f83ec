"""Data sets, their partition over sites, and the sites' fixed splits."""

from flop_p2p.data.augmentation import build_augmentation
from flop_p2p.data.dataset import Dataset
from flop_p2p.data.load import FederatedData, SiteSplit, load_federated
from flop_p2p.data.site import export_site, load_site_data, sample_settings

__all__ = [
    "Dataset",
    "FederatedData",
    "SiteSplit",
    "build_augmentation",
    "export_site",
    "load_federated",
    "load_site_data",
    "sample_settings",
]
