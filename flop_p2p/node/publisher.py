"""What a site tells its neighbours of its body in each round, and how it moves by what they told."""

import hashlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.gossip.compression import move, publish, rounding
from flop_p2p.partial import mix
from flop_p2p.transport.base import Body, OutgoingBody, Payload
from flop_p2p.wire.encodings import Bytes, Encoding

PUBLIC, ROUND = "public", "public_round"


class Publisher:
    """Bodies on their way out of one site and into its own, compressed or not as the federation says.

    Args:
        seed: of the federation.
        name: of the site.
    """

    def __init__(self, gossip: GossipSettings, seed: int, name: str) -> None:
        self._gossip = gossip
        self._seed = seed
        self._name = name
        self._public: Body | None = None  # see `flop_p2p.gossip.compression`; never written to
        self._round = -1  # in which it was told

    @property
    def kept(self) -> int:
        """How many bodies a checkpoint holds beside that of the model."""
        return int(self._gossip.compression == "top-k")

    def publish(self, body: Body, round_index: int) -> OutgoingBody:
        """What leaves for a ``body`` that nothing writes to again. Asked once more for a round, it tells the same.

        Raises:
            TrainingError: a number is not finite, and the body cannot be compressed.
        """
        if self._gossip.compression == "none":
            return _outgoing(round_index, body)
        if self._gossip.compression == "top-k" and self._public is not None and self._round == round_index:
            return _outgoing(round_index, self._public)
        told = publish(body, self._public, self._gossip, rounding(self._seed, self._name, round_index))
        base, self._public, self._round = self._round, told.public, round_index
        if self._gossip.compression != "top-k":
            return _outgoing(round_index, told.data, told.encoding)
        if told.encoding != "top-k":
            return _outgoing(round_index, told.public)
        return _outgoing(round_index, told.public, changes=Payload(told.data, _sha256(told.data), "top-k", base))

    def mix(self, body: Body, name: str, weight: float, parts: Sequence[tuple[str, float, Body]]) -> None:
        """Move ``body`` in place by what was told in this round; without compression it becomes the weighted sum.

        Args:
            name, weight: of the site's own.
            parts: name, weight and body ``[parameters]`` of each neighbour.

        Raises:
            SplitError: a body has another size.
        """
        if self._public is None:
            mix(body, name, weight, parts)
        else:
            mixed = self._public.copy()
            mix(mixed, name, weight, parts)
            move(body, self._public, mixed, self._gossip)

    def forget(self) -> None:
        """The body is another now; what was told of it before is no help."""
        self._public, self._round = None, -1

    def tensors(self) -> dict[str, Tensor]:
        """What is needed to go on, by name: with top-k the public body, once there is one."""
        if self._gossip.compression != "top-k" or self._public is None:
            return {}
        return {PUBLIC: torch.from_numpy(self._public), ROUND: torch.tensor(self._round)}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave; without it, begin anew with a whole body."""
        self.forget()
        if PUBLIC in tensors:
            self._public, self._round = tensors[PUBLIC].numpy(), int(tensors[ROUND])


def _outgoing(
    round_index: int, body: Body | Bytes, encoding: Encoding = "float32", changes: Payload | None = None
) -> OutgoingBody:
    return OutgoingBody(round_index, body, _sha256(body), encoding, changes)


def _sha256(data: Body | Bytes) -> bytes:
    return hashlib.sha256(data.data).digest()
