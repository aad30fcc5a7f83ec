"""Everything that can be checked before the first start: files, keys, data, model, disk, clock, neighbours."""

import asyncio
import functools
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass

from flop_p2p.config import FederationSettings, SiteSettings
from flop_p2p.config.federation import PROTOCOL_VERSION
from flop_p2p.errors import ConfigError, FlopError, NodeError, TransportError
from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.identity.keys import Keys, load_keys
from flop_p2p.learning import Ledger
from flop_p2p.node.egress import EgressLog
from flop_p2p.node.gate import NodeGate
from flop_p2p.node.lock import StateLock
from flop_p2p.node.membership import Membership, check_own_key
from flop_p2p.node.spending import budget_of
from flop_p2p.node.worker import SiteModel
from flop_p2p.transport.base import Peer, TransportKeys
from flop_p2p.transport.probe import probe

CLOCK_SKEW_SECONDS = 5.0
CHECKPOINTS_ON_DISK = 3  # two kept, and one being written


@dataclass(frozen=True)
class Check:
    """One line of `flop-p2p preflight`."""

    name: str
    ok: bool
    text: str


class Preflight:
    """Checks a site in the order in which a start would need things; what depends on a failed check is left out."""

    def __init__(self, site: SiteSettings) -> None:
        self._site = site

    def checks(self) -> Iterator[Check]:
        """Each check when it is done."""
        site = self._site
        membership: Membership | None = None
        keys: Keys | None = None
        model: SiteModel | None = None
        try:
            keys = load_keys(site.keys)
            yield Check("keys", True, f"{site.keys}: readable by this user only")
        except FlopError as error:
            yield Check("keys", False, str(error))
        try:
            membership = Membership(site)
            current = membership.revisions[-1]
            yield Check("federation", True, f"{current.name}, revision {current.revision}, id {current.id[:16]}...")
        except FlopError as error:
            yield Check("federation", False, str(error))
        if membership is not None and keys is not None:
            yield _check("own entry", lambda: _own_entry(membership, keys, site.name))
        if membership is not None:
            try:
                model = SiteModel(membership.revisions[0], site)
                yield Check("data and model", True, _describe(model))
            except FlopError as error:
                yield Check("data and model", False, str(error))
        if model is not None and membership is not None and model.sampling_rate is not None:
            rate, federation = model.sampling_rate, membership.revisions[0]
            yield _check("privacy", lambda: _privacy(site, federation, rate, model.steps))
        if model is not None:
            yield _check("disk", lambda: _disk(site, model))
        if membership is not None and keys is not None and model is not None:
            yield from self._neighbours(membership, keys, model)

    def _neighbours(self, membership: Membership, keys: Keys, model: SiteModel) -> Iterator[Check]:
        federation = membership.revisions[0]
        protocol = RoundProtocol(self._site.name, membership.plan(), federation.gossip, federation.training.rounds)
        gate = NodeGate(self._site.name, membership, protocol, model.schema_hash, model.body_hash)
        for peer in membership.peers(0):
            if peer.control is None:
                yield Check(f"neighbour {peer.name}", True, "only dials out, so it cannot be tried from here")
            else:
                greet = functools.partial(self._greet, peer, keys, gate, membership)
                yield _check(f"neighbour {peer.name}", greet)

    def _greet(self, peer: Peer, keys: Keys, gate: NodeGate, membership: Membership) -> str:
        """Greet a neighbour. The greeting leaves the site, and so it is in the egress log."""
        federation, site = membership.revisions[0], self._site
        with StateLock(site.state), closing(EgressLog(site.state, site.name)) as egress:
            result = asyncio.run(
                probe(
                    peer,
                    name=site.name,
                    keys=TransportKeys(keys.curve_public, keys.curve_secret),
                    gate=gate,
                    egress=egress,
                    gossip=federation.gossip,
                    proxy=site.proxy,
                )
            )
        if not result.accepted:
            raise TransportError(result.reason)
        if result.clock_skew is not None and abs(result.clock_skew) > CLOCK_SKEW_SECONDS:
            raise TransportError(f"{peer.control}: its clock is {result.clock_skew:+.0f} s off ours; set both by NTP")
        latency = "" if result.latency is None else f" in {1000 * result.latency:.0f} ms"
        return f"{peer.control}: greeted us{latency}, speaks protocol {PROTOCOL_VERSION}"


def _check(name: str, run: Callable[[], str]) -> Check:
    try:
        return Check(name, True, run())
    except FlopError as error:
        return Check(name, False, str(error))


def _own_entry(membership: Membership, keys: Keys, name: str) -> str:
    check_own_key(membership, keys, name)
    return f"{name} is a member, and the keys are the ones in the federation"


def _describe(model: SiteModel) -> str:
    body, head = model.split.body.parameters, model.split.head.parameters
    return f"{model.describe_data()}; body {body:,} numbers (shared), head {head:,} (stays here)"


def _privacy(site: SiteSettings, federation: FederationSettings, rate: float, steps: int) -> str:
    """What the whole run would spend, and how far the budget goes."""
    privacy, rounds = federation.privacy, federation.training.rounds
    budget = budget_of(privacy, site)
    affordable = Ledger(privacy, rate, budget).rounds(steps, rounds)
    if affordable == 0:
        raise ConfigError(f"epsilon {budget:g} is spent before the first round is over: this site would never send")
    spent = Ledger(privacy, rate, None, [(privacy.noise_multiplier, rate, steps * affordable)]).epsilon
    how_far = "all" if affordable == rounds else f"{affordable} of {rounds}"
    limit = "" if budget is None else f" of {budget:g}"
    return f"epsilon {spent:.2f}{limit} at delta {privacy.delta:g}, a {privacy.unit}, for {how_far} rounds"


def _disk(site: SiteSettings, model: SiteModel) -> str:
    parent = next(folder for folder in (site.state, *site.state.parents) if folder.exists())
    free = shutil.disk_usage(parent).free
    needed = CHECKPOINTS_ON_DISK * model.checkpoint_bytes
    if free < needed:
        raise NodeError(f"{parent}: {free / 1e6:,.0f} MB free, checkpoints need {needed / 1e6:,.1f} MB; free some")
    return f"{parent}: {free / 1e6:,.0f} MB free, checkpoints need {needed / 1e6:,.1f} MB"
