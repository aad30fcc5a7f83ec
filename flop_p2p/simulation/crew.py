"""Who does the work of a simulation: this process alone, or several that were forked from it, one a core."""

import multiprocessing
import os
import signal
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Literal, Protocol, cast

import msgpack  # type: ignore[import-untyped]
import torch

from flop_p2p import errors
from flop_p2p.errors import FlopError, RunError
from flop_p2p.simulation.work import Work

Job = Literal["train_group", "evaluate", "evaluate_pooled"]
Item = int | list[int]  # what a job is for: a site, or a group
Result = tuple[Any, Any]
FLUSH_SECONDS = 0.02  # results are sent together, so that ten thousand small sites do not make as many messages


class Crew(Protocol):
    """Does a job for many sites. What comes of it does not depend on who does it, or in which order."""

    def run(self, job: Job, sites: Sequence[Item], *arguments: Any) -> Iterator[Result]:
        """Do ``job`` (a method of `Work`) for all ``sites`` or groups of them; each with its result, in any order.

        Raises:
            FlopError: what the job raised.
            RunError: a worker died.
        """

    def halt(self) -> None:
        """Let `run` come to an end early: sites that were begun are finished, no further ones are begun."""

    def close(self) -> None:
        """End all workers."""


class Alone:
    """This process does everything."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._halted = False

    def run(self, job: Job, sites: Sequence[Item], *arguments: Any) -> Iterator[Result]:
        """As `Crew.run`."""
        self._halted = False
        for site in sites:
            yield site, getattr(self._work, job)(site, *arguments)
            if self._halted:
                return

    def halt(self) -> None:
        """As `Crew.halt`."""
        self._halted = True

    def close(self) -> None:
        """Nothing."""


class Forked:
    """Worker processes, one torch thread each, that share the population with this one.

    They are forked at the first job, so that they see everything as it is then; what changes later, changes in shared
    memory. Each takes the next site as soon as it is free. They end when this process does, however it ends.

    Args:
        count: workers.
    """

    def __init__(self, work: Work, count: int) -> None:
        self._work, self._count = work, count
        context = multiprocessing.get_context("fork")
        self._next, self._halted = context.Value("q", 0), context.Value("b", 0)
        self.processes: list[BaseProcess] = []
        self._pipes: list[Connection] = []

    def run(self, job: Job, sites: Sequence[Item], *arguments: Any) -> Iterator[Result]:
        """As `Crew.run`."""
        self._start()
        self._next.value, self._halted.value = 0, 0
        order = msgpack.packb([job, list(sites), list(arguments)])
        for pipe in self._pipes:
            pipe.send_bytes(order)
        busy = list(self._pipes)
        while busy:
            for pipe in cast(list[Connection], wait(busy)):
                answer = self._receive(pipe)
                if answer["done"]:
                    busy.remove(pipe)
                yield from ((site, result) for site, result in answer["results"])

    def halt(self) -> None:
        """As `Crew.halt`."""
        self._halted.value = 1

    def close(self) -> None:
        """End all workers; what they have begun is given up."""
        if self.processes:
            self._end()
        self.processes, self._pipes = [], []

    def _start(self) -> None:
        if self.processes:
            return
        context = multiprocessing.get_context("fork")
        pairs = [context.Pipe() for _ in range(self._count)]
        self._pipes = [ours for ours, _ in pairs]
        for _, theirs in pairs:
            others = [pipe for pair in pairs for pipe in pair if pipe is not theirs]
            process = context.Process(target=self._serve, args=(theirs, others), daemon=True)
            process.start()
            self.processes.append(process)
        self._end = weakref.finalize(self, _end, tuple(self._pipes), tuple(self.processes))
        for _, theirs in pairs:
            theirs.close()

    def _receive(self, pipe: Connection) -> Any:
        try:
            answer = msgpack.unpackb(pipe.recv_bytes())
        except (EOFError, OSError):
            process = self.processes[self._pipes.index(pipe)]
            process.join()
            self.close()
            raise RunError(
                f"a worker process ended with exit code {process.exitcode}; if memory ran out take fewer --workers; "
                "go on with the same command and --resume"
            ) from None
        if "error" in answer:
            self.close()
            kind, text = answer["error"]
            raise getattr(errors, kind)(text)
        return answer

    def _serve(self, pipe: Connection, others: Sequence[Connection]) -> None:
        """The life of a worker."""
        for number in (signal.SIGINT, signal.SIGTERM):  # they may reach all processes; the one that forked decides
            signal.signal(number, signal.SIG_IGN)
        for other in others:
            other.close()  # or the end of this pipe would go unnoticed
        torch.set_num_threads(1)
        try:
            while True:
                job, sites, arguments = msgpack.unpackb(pipe.recv_bytes())
                self._do(pipe, job, sites, arguments)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return

    def _do(self, pipe: Connection, job: Job, sites: Sequence[Item], arguments: Sequence[Any]) -> None:
        results: list[Result] = []
        sent = time.monotonic()
        while (position := self._take()) < len(sites) and not self._halted.value:
            site = sites[position]
            try:
                results.append((site, getattr(self._work, job)(site, *arguments)))
            except FlopError as error:
                pipe.send_bytes(msgpack.packb({"error": [type(error).__name__, str(error)]}))
                return
            if time.monotonic() - sent > FLUSH_SECONDS:
                pipe.send_bytes(msgpack.packb({"results": results, "done": False}))
                results, sent = [], time.monotonic()
        pipe.send_bytes(msgpack.packb({"results": results, "done": True}))

    def _take(self) -> int:
        with self._next.get_lock():
            position: int = self._next.value
            self._next.value += 1
        return position


def _end(pipes: Sequence[Connection], processes: Sequence[BaseProcess]) -> None:
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.kill()
        process.join()


def build_crew(work: Work, workers: int) -> Crew:
    """One that ``workers`` processes make up."""
    return Forked(work, workers) if workers > 1 else Alone(work)


def usable_workers(asked: int, rows: int, threads: int, device: torch.device) -> int:
    """How many processes to take: as many as asked for, or one a core (``asked`` 0), and never more than rows.

    One where several would not pay or cannot be forked safely: with several torch threads, on a GPU, outside Linux.

    Raises:
        RunError: more than one is asked for where that cannot be.
    """
    able = sys.platform == "linux" and threads == 1 and device.type == "cpu"
    if asked > 1 and not able:
        raise RunError(f"--workers {asked}: several need Linux, --threads 1 and --device cpu; leave --workers out")
    cores = len(os.sched_getaffinity(0)) if able else 1
    return min(asked or cores, max(1, rows))
