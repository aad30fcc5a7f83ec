"""The ranks that `torchrun` started, over torch.distributed: gloo between processors, NCCL between GPUs.

Nothing is pickled: what ranks tell each other is msgpack in tensors of bytes, and bodies travel as they are.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import msgpack  # type: ignore[import-untyped]
import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from flop_p2p import errors
from flop_p2p.errors import ConfigError, FlopError, RunError
from flop_p2p.learning import find_device
from flop_p2p.simulation.ranks import Ranks, Value

ENVIRONMENT = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = timedelta(hours=1)  # ranks meet at least at every checkpoint, so they wait for the training of one site


class TorchRanks(Ranks):
    """The processes of the group that `joined` makes."""

    def __init__(self) -> None:
        self.rank, self.count = dist.get_rank(), dist.get_world_size()
        self._lost = False

    def share(self, compute: Callable[[], Value]) -> list[Value]:
        """As `Ranks.share`."""
        try:
            answer: dict[str, Any] = {"value": compute()}
        except FlopError as error:
            answer = {"error": [type(error).__name__, str(error)]}
        answers = [msgpack.unpackb(data) for data in self._gather(msgpack.packb(answer))]
        for other in answers:
            if "error" in other:
                kind, text = other["error"]
                raise getattr(errors, kind)(text)
        return [other["value"] for other in answers]

    def sum(self, tensor: Tensor) -> Tensor:
        """As `Ranks.sum`."""
        with self._connected():
            dist.all_reduce(tensor)
        return tensor

    def swap(self, outgoing: Mapping[int, Tensor], incoming: Mapping[int, Tensor]) -> None:
        """As `Ranks.swap`."""
        receive = [dist.P2POp(dist.irecv, tensor, rank) for rank, tensor in incoming.items()]
        send = [dist.P2POp(dist.isend, tensor, rank) for rank, tensor in outgoing.items()]
        if receive or send:
            with self._connected():
                for work in dist.batch_isend_irecv(receive + send):
                    work.wait()

    def device(self, name: str) -> str:
        """Of the GPUs of a machine each process takes another one.

        Raises:
            ConfigError: there are fewer than processes.
        """
        if name != "cuda":
            return name
        own, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= there:
            raise ConfigError(f"--device cuda: a machine has {there} GPUs; start as many processes (--nproc-per-node)")
        torch.cuda.set_device(own)  # or every process would take some memory of the first one
        return f"cuda:{own}"

    def leave_to_first(self) -> bool:
        """Whether rank 0 tells of the error that all ranks have raised; if so, wait until it has done so and ended."""
        if self.rank == 0 or self._lost:
            return False
        with suppress(RuntimeError):
            dist.recv(torch.empty(1), src=0)  # it sends nothing: this ends as its connection does
        return True

    def _gather(self, data: bytes) -> list[bytes]:
        """The data of every rank, by rank, at all of them."""
        with self._connected():
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
            dist.all_gather(sizes, torch.tensor([len(data)]))
            longest = int(max(sizes))
            padded = torch.from_numpy(np.frombuffer(data.ljust(longest, b"\0"), dtype=np.uint8).copy())
            gathered = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.count)]
            dist.all_gather(gathered, padded)
        return [bytes(tensor.numpy()[: int(size)]) for tensor, size in zip(gathered, sizes, strict=True)]

    @contextmanager
    def _connected(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            self._lost = True
            reason = re.sub(r"^\[[^]]*\] ", "", str(error)).split(". ")[0]  # without gloo's line of code and advice
            raise RunError(
                f"process {self.rank} of {self.count} lost another one ({reason}), whose own message tells why; go on "
                "with the same command, --out and --resume"
            ) from error


@contextmanager
def joined(device: str) -> Iterator[TorchRanks]:
    """Join the other processes that torchrun started, until the end of the block.

    After an error the connections stay until the process ends, see `TorchRanks.leave_to_first`.

    Args:
        device: as in the settings; bodies on a GPU travel by NCCL.

    Raises:
        ConfigError: this process was not started by torchrun, or there is no such device.
        RunError: the processes do not find each other.
    """
    if missing := [name for name in ENVIRONMENT if name not in os.environ]:
        raise ConfigError(
            f"--engine torchrun: {missing[0]} is not set; start it as "
            "`torchrun --nproc-per-node 4 -m flop_p2p simulate ... --engine torchrun`"
        )
    find_device(device)  # or the process group would complain in its own words
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RunError(f"--engine torchrun: the processes do not find each other ({error})") from error
    ranks = TorchRanks()
    yield ranks
    ranks.share(lambda: None)  # nobody hangs up while another still listens
    dist.destroy_process_group()
