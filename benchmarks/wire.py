"""How much of the cipher's speed is left once a body is sealed and opened as frames.

A body of 44.7 MB (ResNet-18) goes in chunks of 4 MiB through `Sealer.seal` and `Opener.open`, headers and all their
checks included, into buffers that are used again. The floor is the bare ``AESGCM.encrypt_into`` and ``decrypt_into``
of the same chunks in the same buffers. Floor and wire take turns, chunk by chunk; the ratio is the median over the
turns of the floor's time divided by the wire's, so 1.00 means that nothing is lost.
Times are this thread's processor time, so that whatever else the machine does decides little.

    python benchmarks/wire.py [--turns 20]
"""

import argparse
import statistics
import time

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flop_p2p.wire import CHUNK_BYTES, TAG_BYTES, KeyExchange, Opener, Sealer, chunk_views

PARAMETERS = 11_176_512
NONCE, HEADER = bytes(12), bytes(58)  # the floor uses one nonce again and again: never do that elsewhere
STEPS = ("seal, floor", "seal, wire", "open, floor", "open, wire")


def session() -> tuple[Sealer, Opener]:
    """A sealer, and the opener at the other end."""
    north, south = KeyExchange(), KeyExchange()
    sealer, _ = north.derive(south.public, own="north", peer="south", federation="benchmark", session=bytes(8))
    _, opener = south.derive(north.public, own="south", peer="north", federation="benchmark", session=bytes(8))
    return sealer, opener


def turn(chunks: list[memoryview], sealer: Sealer, opener: Opener, *buffers: memoryview) -> dict[str, float]:
    """Seconds that each of the steps takes for the whole body."""
    cipher, (buffer, target) = AESGCM(bytes(32)), buffers
    took = dict.fromkeys(STEPS, 0.0)
    for index, chunk in enumerate(chunks, 1):
        into, out = buffer[: len(chunk) + TAG_BYTES], target[: len(chunk)]
        times = [time.thread_time()]
        cipher.encrypt_into(NONCE, chunk, HEADER, into)
        times.append(time.thread_time())
        cipher.decrypt_into(NONCE, into, HEADER, out)
        times.append(time.thread_time())
        header, sealed = sealer.seal(0, index, len(chunks), chunk, buffer)
        times.append(time.thread_time())
        opener.open(header, sealed, out)
        times.append(time.thread_time())
        for step, start, end in zip((STEPS[0], STEPS[2], STEPS[1], STEPS[3]), times, times[1:], strict=False):
            took[step] += end - start
    return took


def main() -> None:
    """Run the turns and print a small table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20, help="how often the whole body is sealed and opened")
    arguments = parser.parse_args()
    body = np.random.default_rng(0).normal(size=PARAMETERS).astype(np.float32)
    buffers = [memoryview(bytearray(size)) for size in (CHUNK_BYTES + TAG_BYTES, CHUNK_BYTES)]
    chunks, ends = chunk_views(body.data), session()
    turns = [turn(chunks, *ends, *buffers) for _ in range(arguments.turns + 1)][1:]  # the first one warms up
    print(
        f"{body.nbytes / 1e6:.1f} MB in {len(chunks)} chunks, {arguments.turns} turns, GB/s (median) and floor / wire"
    )
    for step in ("seal", "open"):
        floors, wires = ([took[f"{step}, {side}"] for took in turns] for side in ("floor", "wire"))
        ratios = [floor / wire for floor, wire in zip(floors, wires, strict=True)]
        speeds = (body.nbytes / 1e9 / statistics.median(seconds) for seconds in (floors, wires))
        print(
            "{}: floor {:5.2f}  wire {:5.2f}  ratio {:.3f}".format(step, *speeds, statistics.median(ratios))
            + f" (min {min(ratios):.3f}, max {max(ratios):.3f})"
        )


if __name__ == "__main__":
    main()
