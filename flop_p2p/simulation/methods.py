"""The methods that can be simulated: what each one shares, with whom, and how it trains."""

from dataclasses import dataclass
from typing import Literal

from flop_p2p.learning import Phase


@dataclass(frozen=True)
class Method:
    """One method of a comparison.

    exchange: with nobody, through a server, or along a topology.
    shares: the body, or the full model (head included); without exchange it decides nothing.
    trains: False for the baseline that predicts each site's most frequent class.
    pooled: one model on the training data of all sites in one place.
    phase: how a round trains body and head.
    fine_tunes: the last round trains the head alone and exchanges nothing, so that the number of gradient
        steps stays that of the other methods.
    """

    name: str
    summary: str
    exchange: Literal["none", "server", "gossip"] = "none"
    shares: Literal["body", "model"] = "body"
    trains: bool = True
    pooled: bool = False
    phase: Phase = "joint"
    fine_tunes: bool = False


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("majority", "predicts the site's most frequent class", trains=False),
        Method("local", "every site alone"),
        Method("pooled", "all data in one place: the upper bound", pooled=True),
        Method("fedavg", "a server averages the full model", exchange="server", shares="model"),
        Method("fedavg-ft", "fedavg, then the head alone", exchange="server", shares="model", fine_tunes=True),
        Method("flop", "a server averages the body", exchange="server"),
        Method("dfedavg", "gossip of the full model", exchange="gossip", shares="model"),
        Method("p2p-flop", "gossip of the body", exchange="gossip"),
        Method(
            "p2p-flop-alt", "gossip of the body, head and body trained in turn", exchange="gossip", phase="alternating"
        ),
    )
}
