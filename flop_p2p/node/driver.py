"""Drives the round protocol of one site with the wall clock, a transport, and a thread that computes."""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from flop_p2p.errors import FlopError
from flop_p2p.gossip.actions import (
    Action,
    Ask,
    CancelTimer,
    Discard,
    Finish,
    Mix,
    Publish,
    Resend,
    SetTimer,
    Timer,
    Train,
)
from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.node.courier import Courier
from flop_p2p.node.journal import Journal
from flop_p2p.node.membership import Membership
from flop_p2p.node.worker import Partway, SiteModel
from flop_p2p.transport.base import (
    BodyReceived,
    Connected,
    Delivered,
    Event,
    Left,
    Lost,
    Progress,
    Said,
    Silent,
    Transport,
)

MEMBERSHIP_SECONDS = 1.0  # between looks for adopted revisions
STOP_SECONDS = 5.0  # what a stopped node spends on the exchange at hand, so that it is gone within ten

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


class Driver:
    """Carries out what the protocol asks, and tells it what happened.

    Everything about rounds is decided on the event loop; training, mixing and evaluation run in one thread beside
    it, so that a neighbour is answered while the site trains.

    Args:
        courier: makes what carries bodies between protocol and transport.
        deadline: seconds that the node waits, after its last round, for neighbours that still lack its body.
        threads: that torch computes with.
        partway: where the checkpoint was inside a round; None at the beginning of one.
        adopt: rounds in which a newly joined site trains its head alone on the body that it took over.
    """

    def __init__(
        self,
        protocol: RoundProtocol,
        model: SiteModel,
        transport: Transport,
        membership: Membership,
        journal: Journal,
        courier: Callable[..., Courier] = Courier,
        *,
        deadline: float,
        threads: int = 1,
        partway: Partway | None = None,
        adopt: int = 0,
    ) -> None:
        self._protocol = protocol
        self._model = model
        self._transport = transport
        self._membership = membership
        self._journal = journal
        self._deadline = deadline
        self._partway = partway
        self._adopt = adopt
        self._courier = courier(protocol, model, transport, journal, self._work)
        self._delivered: dict[str, int] = {}
        self._inbox: asyncio.Queue[Callable[[], list[Action]]] = asyncio.Queue()
        self._timers: dict[Timer, asyncio.TimerHandle] = {}
        # how many threads torch uses is a setting of the thread that calls it
        self._thread = ThreadPoolExecutor(1, "compute", initializer=torch.set_num_threads, initargs=(threads,))
        self._done: Mix | None = None  # what became of the latest mixing
        self._stopping = False
        self._spent = False  # the privacy budget: nothing is published any more
        self._finished: Finish | None = None

    async def run(self) -> bool:
        """Go through the rounds; True if all of them were completed, False if `stop` came before.

        Raises:
            TrainingError: training diverged.
            EgressError, NodeError, RunError: a file of the node cannot be written; nothing more is sent.
        """
        if self._protocol.published >= 0:
            await self._courier.restore(self._protocol.published)
        watches = [asyncio.create_task(watch()) for watch in (self._pump, self._watch_membership)]
        try:
            await self._perform(self._protocol.start())
            while self._finished is None:
                await self._next()
            if self._finished.complete:
                await self._linger()
        finally:
            self._stopping = True  # a round under way ends at its next gradient step
            for watch in watches:
                watch.cancel()
            for timer in self._timers.values():
                timer.cancel()
            await asyncio.to_thread(self._thread.shutdown)
        return self._finished.complete

    def stop(self) -> None:
        """Finish the exchange at hand, then end; called again or after `STOP_SECONDS`, end at once."""
        if self._stopping:
            self._finished = self._finished or Finish(complete=False)
        else:
            self._stopping = True
            asyncio.get_running_loop().call_later(STOP_SECONDS, self.stop)
        self._inbox.put_nowait(self._protocol.stop)

    async def _watch_membership(self) -> None:
        """Take up revisions of the federation that this site has adopted."""
        while True:
            await asyncio.sleep(MEMBERSHIP_SECONDS)
            self._inbox.put_nowait(self._refresh_membership)

    def _refresh_membership(self) -> list[Action]:
        try:
            adopted = self._membership.refresh()
        except FlopError as error:
            logger.warning("a revision of the federation is not taken up: %s", error)
            return []
        if adopted:
            newest = self._membership.revisions[-1]
            logger.info("revision %d is adopted; it holds from round %d", newest.revision, newest.from_round + 1)
            self._protocol.plan = self._membership.plan()
            self._transport.update_peers(self._membership.peers(self._protocol.round_index))
        return []

    async def _pump(self) -> None:
        """Hand the transport's events on; another body is taken when the one before is, so that none pile up."""
        while True:
            try:
                event = await self._transport.next_event()
            except Exception as error:
                self._inbox.put_nowait(functools.partial(_raise, error))
                return
            self._inbox.put_nowait(functools.partial(self._received, event))
            if isinstance(event, BodyReceived):
                await self._inbox.join()

    async def _next(self) -> None:
        happened = await self._inbox.get()
        try:
            await self._perform(happened())
        finally:
            self._inbox.task_done()

    def _received(self, event: Event) -> list[Action]:
        protocol = self._protocol
        match event:
            case Connected(name, greeting):
                logger.info("connected to %s, which is in round %d", name, greeting.round + 1)
                self._courier.connected(name)
                return protocol.connected(name, greeting.round, greeting.have, greeting.finished)
            case Lost(name):
                return protocol.lost(name)
            case Left(name, last_round, finished):
                logger.info("%s said goodbye after round %d%s", name, last_round + 1, ", finished" if finished else "")
                return protocol.left(name, last_round, finished)
            case Silent(name, round_index):
                logger.info("%s sends no bodies from round %d on; its privacy budget is spent", name, round_index + 1)
                return protocol.silent(name, round_index)
            case Progress(name, round_index):
                return protocol.progress(name, round_index)
            case Delivered(name, round_index):
                self._delivered[name] = max(round_index, self._delivered.get(name, -1))
                return []
            case BodyReceived():
                return self._courier.arrived(event)
            case Said():
                return self._courier.said(event)

    async def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Train(round_index):
                    self._compute(functools.partial(self._train, round_index), self._trained)
                case Publish(round_index, receivers):
                    await self._courier.publish(round_index, receivers)
                case Resend(name):
                    self._courier.resend(name)
                case Ask():
                    self._courier.ask(action)
                case Mix():
                    self._compute(functools.partial(self._mix, action), functools.partial(self._mixed, action))
                case Discard(name, round_index):
                    self._courier.drop(name, round_index)
                case SetTimer(timer, seconds):
                    self._set_timer(timer, seconds)
                case CancelTimer(timer):
                    if timer in self._timers:
                        self._timers.pop(timer).cancel()
                case Finish():
                    self._finished = action
        protocol = self._protocol
        training = protocol.phase == "training" and not self._spent
        soon = protocol.plan.receivers(protocol.round_index) if training else ()
        self._transport.set_round(protocol.round_index, soon)

    def _set_timer(self, timer: Timer, seconds: float) -> None:
        if timer in self._timers:
            self._timers.pop(timer).cancel()
        report = functools.partial(self._rings, timer)
        loop = asyncio.get_running_loop()
        self._timers[timer] = loop.call_later(seconds, self._inbox.put_nowait, report)

    def _rings(self, timer: Timer) -> list[Action]:
        actions = self._protocol.timer(timer)
        if self._protocol.phase in ("starting", "collecting", "gathering"):
            logger.warning("still waiting for %s", ", ".join(self._protocol.waiting_for) or "any neighbour")
        return actions

    async def _work(self, job: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, job)

    def _compute(self, job: Callable[[], None], done: Callable[[], list[Action]]) -> None:
        """Run ``job`` in the thread and report ``done`` when it is, or its failure."""
        loop = asyncio.get_running_loop()

        def report(future: Future[None]) -> None:
            error = future.exception()
            happened = done if error is None else functools.partial(_raise, error)
            loop.call_soon_threadsafe(self._inbox.put_nowait, happened)

        self._thread.submit(job).add_done_callback(report)

    def _train(self, round_index: int) -> None:
        """One round of training, in the thread; checkpoints fall inside it, and `stop` ends it between two steps."""
        journal, start = self._journal, time.perf_counter()
        state, self._partway = self._partway, None
        left = self._model.steps - (0 if state is None else state.step)
        if not journal.may_train(round_index, left):
            self._pass_over(round_index)
            return
        while True:
            result = self._model.train(round_index, lambda: self._stopping or journal.is_checkpoint_due(), state)
            if isinstance(result, float):
                break
            state = result
            journal.save("training", round_index, state)
            if self._stopping:
                journal.not_taken(self._model.steps - state.step)
                return
        journal.trained(result, time.perf_counter() - start)

    def _pass_over(self, round_index: int) -> None:
        """A round without training, in the thread, for the privacy budget is spent: nothing leaves."""
        self._courier.pass_over(round_index)
        self._journal.save("training", round_index)
        self._spent = True

    def _trained(self) -> list[Action]:
        if not self._spent:
            return self._protocol.trained()
        round_index = self._protocol.round_index
        if self._transport.silence(round_index):
            logger.warning(
                "round %d would exceed the privacy budget: this site trains and sends no more, and goes on receiving",
                round_index + 1,
            )
        return self._protocol.passed_over()

    def _mix(self, action: Mix) -> None:
        """Mix and evaluate, in the thread."""
        start = time.perf_counter()
        done = self._done = self._courier.mix(action)
        if done.catches_up == action.catches_up:  # else it is as if nothing had been tried
            self._journal.mixed(done, time.perf_counter() - start)
        if done.catches_up and self._adopt:
            logger.info("took over the body of %s; training the head", ", ".join(part.name for part in action.parts))
            begin = functools.partial(self._journal.may_train, max(part.round for part in action.parts) + 1)
            self._model.train_head(self._adopt, lambda: self._stopping, begin)
            self._adopt = 0

    def _mixed(self, action: Mix) -> list[Action]:
        for part in action.parts:
            self._courier.drop(part.name, part.round)
        before = self._membership.at(self._protocol.round_index)
        actions = self._protocol.mixed() if self._done is action else self._protocol.not_mixed()
        round_index, leaves_at = self._protocol.round_index, self._membership.leaves_at()
        if self._membership.at(round_index) is not before:
            self._transport.update_peers(self._membership.peers(round_index))
        if leaves_at is not None and round_index >= leaves_at:
            logger.warning("this site is no member of the federation from round %d on", leaves_at + 1)
            actions += self._protocol.stop()
        return actions

    async def _linger(self) -> None:
        """After the last round: wait until every connected neighbour has our last body, at most one deadline."""
        end = time.monotonic() + self._deadline
        while not self._stopping and self._undelivered() and (left := end - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._next(), left)

    def _undelivered(self) -> list[str]:
        last = self._protocol.published
        links = self._transport.links()
        receivers = self._protocol.plan.receivers(last) if last >= 0 else ()
        return [
            name
            for name in receivers
            if name in links and links[name].state == "connected" and self._delivered.get(name, -1) < last
        ]


def _raise(error: BaseException) -> list[Action]:
    raise error
