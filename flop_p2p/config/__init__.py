"""Settings: frozen pydantic models of `experiment.toml`, `federation.toml`, `site.toml`; unknown keys are refused."""

from flop_p2p.config.audit import AuditSettings
from flop_p2p.config.base import Settings, first_difference, read_toml, validate
from flop_p2p.config.data import DataSettings
from flop_p2p.config.experiment import PRESETS, ComparisonSettings, ExperimentSettings, load_experiment
from flop_p2p.config.federation import (
    FederationSettings,
    Member,
    SampleSettings,
    Signature,
    load_federation,
)
from flop_p2p.config.gossip import GossipSettings
from flop_p2p.config.model import ModelSettings
from flop_p2p.config.privacy import PrivacySettings
from flop_p2p.config.site import SiteDataSettings, SitePrivacySettings, SiteSettings, load_site
from flop_p2p.config.topology import Edge, TopologyFile, TopologySettings
from flop_p2p.config.training import TrainingSettings, learning_rate_factor

__all__ = [
    "PRESETS",
    "AuditSettings",
    "ComparisonSettings",
    "DataSettings",
    "Edge",
    "ExperimentSettings",
    "FederationSettings",
    "GossipSettings",
    "Member",
    "ModelSettings",
    "PrivacySettings",
    "SampleSettings",
    "Settings",
    "Signature",
    "SiteDataSettings",
    "SitePrivacySettings",
    "SiteSettings",
    "TopologyFile",
    "TopologySettings",
    "TrainingSettings",
    "first_difference",
    "learning_rate_factor",
    "load_experiment",
    "load_federation",
    "load_site",
    "read_toml",
    "validate",
]
