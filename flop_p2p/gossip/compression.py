"""Compressed gossip: what a site tells of its body in a round, and how it moves towards what the others told.

What a site i has told so far makes its *public body* p_i: every receiver holds exactly it. With quantizers (bfloat16,
int8) it is the body of the round, rounded: ``p_i = Q(x_i)``. With top-k it follows the body in small steps, as in
CHOCO-SGD (Koloskova et al., "Decentralized Stochastic Optimization and Gossip Algorithms with Compressed
Communication", ICML 2019, Algorithm 2): ``p_i <- p_i + Q(x_i - p_i)``, where Q keeps the part of the numbers that is
largest in magnitude; what it leaves out stays in the difference and comes in a later round. Then both mix by

    ``x_i <- x_i + step * sum_j W_ij (p_j - p_i)``

(its last line there; with quantizers and ``step = 1`` it is the rule of Frasca et al., "Average consensus on networks
with quantized communication", International Journal of Robust and Nonlinear Control 2009). A doubly stochastic W then
keeps the mean of the sites' bodies, however coarse Q is; mixing ``x_i`` itself with ``Q(x_j)`` would not.
"""

from dataclasses import dataclass

import numpy as np

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.seeding import derive
from flop_p2p.wire.encodings import (
    SPAN,
    Bytes,
    Encoding,
    Numbers,
    add_top_k,
    decode_bfloat16,
    decode_int8,
    encode_bfloat16,
    encode_int8,
    encode_top_k,
)


@dataclass(frozen=True)
class Published:
    """What a site tells in a round.

    public: its public body from now on, ``[parameters]``; never written to again.
    encoding: of ``data``; ``top-k`` changes the public body before, the others are complete.
    data: the message.
    """

    public: Numbers
    encoding: Encoding
    data: Bytes


def publish(body: Numbers, before: Numbers | None, gossip: GossipSettings, draw: np.random.Generator) -> Published:
    """Tell of ``body``, ``[parameters]``, what the settings ask for.

    Args:
        before: the public body of the round before; None where there is none. With top-k the body then becomes public
            as it is: CHOCO-SGD begins with it.
        draw: rounds int8, see `rounding`.

    Raises:
        TrainingError: a number is not finite.
    """
    match gossip.compression:
        case "bfloat16":
            data = encode_bfloat16(body)
            return Published(decode_bfloat16(data, len(body)), "bfloat16", data)
        case "int8":
            data = encode_int8(body, draw)
            return Published(decode_int8(data, len(body)), "int8", data)
        case "top-k" if before is not None:
            data = encode_top_k(body - before, gossip.top_k)
            return Published(add_top_k(before, data, gossip.top_k), "top-k", data)
        case _:
            public = body.copy()
            return Published(public, "float32", public.view(np.uint8))


def rounding(seed: int, name: str, round_index: int) -> np.random.Generator:
    """The random choices of site ``name`` in a round, the same in a simulation and in its node."""
    return derive(seed, "compression", name, round_index)


def move(body: Numbers, public: Numbers, mixed: Numbers, gossip: GossipSettings) -> None:
    """Move ``body`` in place by ``step * (mixed - public)``; the step is 1 but with top-k.

    Args:
        body, public: of the site, or one row for each of several.
        mixed: ``sum_j W_ij p_j``, the site itself included, of the same shape.
    """
    step = np.float32(gossip.consensus_step if gossip.compression == "top-k" else 1)
    for start in range(0, body.shape[-1], SPAN):
        block = slice(start, start + SPAN)
        change = mixed[..., block] - public[..., block]
        change *= step
        body[..., block] += change
