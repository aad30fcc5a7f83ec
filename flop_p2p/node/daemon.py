"""The daemon of one site: everything that `flop-p2p node site.toml` brings together."""

import asyncio
import functools
import gc
import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

import torch

from flop_p2p.config import FederationSettings, SiteSettings
from flop_p2p.errors import FlopError, Interrupted, NodeError
from flop_p2p.gossip.fixed_point import FixedPoint
from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.identity.keys import load_keys
from flop_p2p.node.checkpoint import Checkpoints, Progress
from flop_p2p.node.courier import Courier
from flop_p2p.node.declared import Declared
from flop_p2p.node.driver import Driver
from flop_p2p.node.egress import EgressLog
from flop_p2p.node.gate import NodeGate
from flop_p2p.node.journal import Journal
from flop_p2p.node.lock import StateLock
from flop_p2p.node.masked_courier import MaskedCourier
from flop_p2p.node.membership import Membership, check_own_key
from flop_p2p.node.prometheus import NodeMetrics
from flop_p2p.node.records import Records
from flop_p2p.node.shared_schema import write_schema
from flop_p2p.node.spending import Spending, budget_of
from flop_p2p.node.status import StatusServer
from flop_p2p.node.summary import last_line, status, summarize
from flop_p2p.node.worker import SiteModel
from flop_p2p.transport.base import TransportKeys
from flop_p2p.transport.zeromq import ZmqTransport
from flop_p2p.wire.encodings import agreed_bytes
from flop_p2p.writing import writing

METRICS_SECONDS = 1.0
LEAVE_SECONDS = 2.0  # that a stopped node spends on bodies still queued

logger = logging.getLogger(__name__)


class Node:
    """One site's node, ready to run.

    Args:
        adopt: rounds in which a newly joined site trains only its head on the body it took over; 0 for none.

    Raises:
        FlopError: keys, federation, data, model or state cannot be used; nothing was bound or sent.
    """

    transport_type: type[ZmqTransport] = ZmqTransport

    def __init__(self, site: SiteSettings, adopt: int = 0) -> None:
        self.site = site
        with writing(site.state):
            site.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.lock = StateLock(site.state)
        self.keys = load_keys(site.keys)
        self.membership = Membership(site)
        check_own_key(self.membership, self.keys, site.name)
        torch.set_num_threads(site.threads)  # of this thread, which builds the model
        federation = self.membership.revisions[0]
        self.model = SiteModel(federation, site)
        self.rounds = federation.training.rounds
        self.checkpoints = Checkpoints(site.state)
        self.progress = self.checkpoints.load(self.model)
        for warning in self.checkpoints.warnings:
            logger.warning(warning)
        sizes = agreed_bytes(federation.gossip, self.model.split.body.parameters)
        write_schema(site.state, self.model.split, sizes)
        self.spending = self._spending(federation)
        self.protocol = self._protocol(federation)
        self.egress = EgressLog(site.state, site.name)
        self.transport = self._transport(federation)
        self.journal = Journal(
            self.protocol,
            self.membership,
            self.model,
            self.transport,
            self.checkpoints,
            self.egress,
            Records(site.state, self._completed()),
            rounds=self.rounds,
            checkpoint_seconds=site.checkpoint_seconds,
            evaluate_every=site.evaluate_every,
            progress=self.progress,
            spending=self.spending,
        )
        partway = self.progress.partway if self.progress is not None else None
        self.driver = Driver(
            self.protocol,
            self.model,
            self.transport,
            self.membership,
            self.journal,
            self._courier(federation),
            deadline=federation.gossip.deadline,
            threads=site.threads,
            partway=partway,
            adopt=adopt if self.progress is None else 0,  # it has joined already
        )
        self.started = time.time()

    def _protocol(self, federation: FederationSettings) -> RoundProtocol:
        progress = self.progress or Progress(0, "training", federation.id, "")
        known = {revision.id for revision in self.membership.revisions}
        if progress.federation_id not in known:
            raise NodeError(
                f"{self.site.state}: holds the state of another federation ({progress.federation_id[:12]}...); "
                "give this site another state directory, or the federation file that it ran with"
            )
        protocol = RoundProtocol(
            self.site.name,
            self.membership.plan(),
            federation.gossip,
            self.rounds,
            round_index=progress.round,
            has_published=progress.phase == "published",
            first_round=self.membership.first_round,
            masked=federation.privacy.masking == "pairwise",
        )
        if progress.extra.get("data", self.model.data_hash) != self.model.data_hash:
            logger.warning("the data of this site are others than when it stopped; it goes on with them")
        protocol.absences.update(progress.extra.get("absences", {}))
        protocol.stale_uses = progress.extra.get("stale_bodies", 0)
        protocol.catch_ups = progress.extra.get("catch_ups", 0)
        protocol.masked_skips = progress.extra.get("masked_skips", [])
        return protocol

    def _spending(self, federation: FederationSettings) -> Spending | None:
        """The privacy budget of a site that trains; None without differential privacy."""
        budget, rate = budget_of(federation.privacy, self.site), self.model.sampling_rate
        if rate is None:
            return None
        return Spending(self.site.state, federation.privacy, rate, budget, begun=self.progress is not None)

    def _courier(self, federation: FederationSettings) -> Callable[..., Courier]:
        """What makes the node's courier."""
        if federation.privacy.masking == "none":
            return Courier
        return functools.partial(
            MaskedCourier,
            signing=self.keys.signing,
            federation=self.membership.own,
            signing_keys=self.membership.signing_keys,
            fixed_point=FixedPoint(federation.privacy.masking_range),
            declared=Declared(self.site.state, self.protocol.published, begun=self.protocol.published >= 0),
        )

    def _completed(self) -> int:
        """Rounds that were complete when the checkpoint was written: a server publishes after mixing."""
        published = self.progress is not None and self.progress.phase == "published"
        return self.protocol.round_index + int(published and not self.protocol.plan.trains)

    def _transport(self, federation: FederationSettings) -> ZmqTransport:
        site, member = self.site, self.membership.entry()
        gate = NodeGate(site.name, self.membership, self.protocol, self.model.schema_hash, self.model.body_hash)
        return self.transport_type(
            name=site.name,
            keys=TransportKeys(self.keys.curve_public, self.keys.curve_secret),
            peers=self.membership.peers(self.protocol.round_index),
            gate=gate,
            egress=self.egress,
            schema_hash=self.model.schema_hash,
            parameters=self.model.split.body.parameters,
            gossip=federation.gossip,
            masked=federation.privacy.masking == "pairwise",
            listen=site.listen or _every_interface(member.control),
            bulk_listen=site.bulk_listen or _every_interface(member.bulk),
            proxy=site.proxy,
        )

    async def run(self) -> dict[str, Any]:
        """Run all rounds, or until SIGTERM, and return the summary that was written.

        Raises:
            Interrupted: stopped by Ctrl-C; what there is was kept.
            FlopError: the node cannot go on.
        """
        if self.progress is not None and self.progress.phase == "done":
            return self._finished_before()
        interrupted = self._heed_signals()
        async with AsyncExitStack() as stack:
            stack.callback(self.egress.close)
            await self.transport.open()
            stack.push_async_callback(self.transport.close)
            server = StatusServer(self.site.state, self.snapshot)
            await server.start()
            stack.push_async_callback(server.close)
            if self.site.metrics.listen is not None:
                metrics = NodeMetrics(self.site.metrics.listen)
                stack.callback(metrics.close)
                task = asyncio.create_task(self._update(metrics))
                stack.callback(task.cancel)
            logger.info("%s is ready: round %d of %d", self.site.name, self.protocol.round_index + 1, self.rounds)
            try:
                complete = await self.driver.run()
            except BaseException:
                with suppress(FlopError):  # what went wrong first is what is told
                    await self._leave()
                raise
            await self._leave()
        summary = self._finish()
        if interrupted.is_set() and not complete:
            raise Interrupted(f"{last_line(summary)}; all is kept in {self.site.state}; start again to go on")
        return summary

    async def _leave(self) -> None:
        finished = self.protocol.phase == "done"
        await self.transport.goodbye(self.protocol.published, finished, None if finished else LEAVE_SECONDS)

    def _heed_signals(self) -> asyncio.Event:
        interrupted = asyncio.Event()
        loop = asyncio.get_running_loop()

        def stop(number: signal.Signals) -> None:
            logger.info("asked to stop; finishing the exchange at hand")
            if number == signal.SIGINT:
                interrupted.set()
            self.driver.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        return interrupted

    def _finished_before(self) -> dict[str, Any]:
        summary = self.journal.records.finished() or self._finish()
        logger.info("nothing is left to do: %s", last_line(summary))
        return summary

    def snapshot(self) -> dict[str, Any]:
        """The node's state as `flop-p2p status` shows it."""
        return status(self.site.name, self.protocol, self.membership, self.journal, self.transport, self.started)

    async def _update(self, metrics: NodeMetrics) -> None:
        while True:
            metrics.update(self.snapshot())
            await asyncio.sleep(METRICS_SECONDS)

    def _finish(self) -> dict[str, Any]:
        summary = summarize(self.site.name, self.protocol, self.membership, self.journal, self.transport)
        self.journal.records.finish(summary)
        if summary["complete"]:
            self.model.save_model(self.site.state / "model.safetensors")
        (logger.info if summary["whole"] else logger.warning)(last_line(summary))
        return summary


def run_node(site: SiteSettings, adopt: int = 0) -> dict[str, Any]:
    """Run the node of a site to its end and return its summary.

    Raises:
        FlopError: it cannot start or go on.
        Interrupted: stopped by Ctrl-C.
    """
    os.umask(0o077)  # what a node writes tells of patients
    node = Node(site, adopt)
    gc.freeze()  # what is loaded now stays: going through it when the process ends would take seconds
    with node.lock:
        return asyncio.run(node.run())


def _every_interface(endpoint: str | None) -> str | None:
    """Where to bind for an address that others dial."""
    return None if endpoint is None else f"tcp://*:{endpoint.rpartition(':')[2]}"
