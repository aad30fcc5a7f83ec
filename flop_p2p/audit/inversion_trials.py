"""Inversion tried on many images of all sites, and scored against what somebody has who sees nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flop_p2p.audit.exposures import Exposure, Noise, of_message, of_one_step
from flop_p2p.audit.federation import Federation, Victim
from flop_p2p.audit.intervals import inversion_verdict, mean_interval, rate_interval
from flop_p2p.audit.inversion import PixelRange, Reconstruction, invert
from flop_p2p.audit.quality import identified, match, psnr, squared_errors, ssim
from flop_p2p.config import ExperimentSettings
from flop_p2p.errors import ConfigError
from flop_p2p.seeding import derive, derive_int

MOST_OTHERS = 500  # images that reconstructions are compared to beside the originals
MOST_DRAWN = 8  # images of a picture
ONE_STEP, MESSAGE = "one step", "message"

Progress = Callable[[str, int, int], None]


@dataclass
class Trial:
    """What was reconstructed under one exposure, over all attacks.

    originals, found: pairs of images in 0 to 1 for a picture, ``[channels, height, width]`` each.
    """

    knows: str
    attacks: int = 0
    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    mean_image: list[float] = field(default_factory=list)
    nearest_other: list[float] = field(default_factory=list)
    identified: list[bool] = field(default_factory=list)
    chance: list[float] = field(default_factory=list)
    distance: list[float] = field(default_factory=list)
    originals: list[np.ndarray] = field(default_factory=list)
    found: list[np.ndarray] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    """Originals and reconstructions of one kind of gradient, by exposure."""

    round: int
    source: str
    batch: int
    trials: dict[str, Trial]


def invert_all(
    federation: Federation, settings: ExperimentSettings, pixels: PixelRange, progress: Progress
) -> tuple[list[dict[str, Any]], list[Picture]]:
    """Rows and pictures of all inversions before the current round: of one step by size of batch, and of messages.

    Args:
        pixels: the range of the images.

    Raises:
        ConfigError: no site has enough images for a batch, or BatchNorm does not take one so small.
    """
    rows: list[dict[str, Any]] = []
    pictures = []
    audit = settings.audit
    kinds = [(ONE_STEP, size) for size in audit.inversion_batches]
    for source, batch in [*kinds, (MESSAGE, max(audit.inversion_batches))]:
        trials = _Trials(federation, settings, pixels, source, batch).run(progress)
        pictures.append(Picture(federation.round, source, batch, trials))
        rows += [_row(federation.round, source, batch, name, trial) for name, trial in trials.items()]
    return rows, pictures


class _Trials:
    """The attacks on one kind of gradient."""

    def __init__(
        self, federation: Federation, settings: ExperimentSettings, pixels: PixelRange, source: str, batch: int
    ) -> None:
        self._federation, self._settings, self._range = federation, settings, pixels
        self._source, self._batch = source, batch
        privacy, audit = settings.privacy, settings.audit
        self._noise = Noise(privacy.noise_multiplier or audit.inversion_noise_multiplier, privacy.clipping_norm)

    def run(self, progress: Progress) -> dict[str, Trial]:
        """Attack every victim in turn; what came of it, by exposure."""
        trials: dict[str, Trial] = {}
        attacks = self._attacks()
        text = f"round {self._federation.round}, inversion of {self._source}, {self._batch} images"
        for done, (row, turn) in enumerate(attacks):
            victim = self._federation.victim(row)
            exposures = self._exposures(victim, turn)
            for place, exposure in enumerate(exposures):
                progress(f"{text}: {exposure.name}", done * len(exposures) + place, len(attacks) * len(exposures))
                trial = trials.setdefault(exposure.name, Trial(exposure.knows))
                self._score(trial, victim, exposure, self._invert(exposure, done))
        return trials

    def _attacks(self) -> list[tuple[int, int]]:
        """Sites and their turns, all sites once before one comes again."""
        federation, wanted = self._federation, -(-self._settings.audit.inversion_images // self._batch)
        most = 1 if self._source == MESSAGE else max(len(federation.training(row)) for row in range(federation.sites))
        possible = [
            (row, turn)
            for turn in range(min(wanted, most))
            for row in range(federation.sites)
            if (turn + 1) * self._batch <= len(federation.training(row))
        ]
        if not possible:
            raise ConfigError(
                f"audit.inversion_batches: no site has {self._batch} training images; take a smaller batch"
            )
        return possible[:wanted]

    def _exposures(self, victim: Victim, turn: int) -> list[Exposure]:
        if self._source == MESSAGE:
            return of_message(self._federation, victim, self._batch)
        batches = [self._images(row, turn) for row, _ in victim.senders]
        others = drawn_training(self._federation, self._settings.seed, victim.attacker)
        tried = others[: self._settings.audit.label_others].tolist()
        return of_one_step(self._federation, victim, batches, self._noise, tried)

    def _images(self, row: int, turn: int) -> list[int]:
        """The images of a site in its turn; a small site begins anew."""
        order = drawn_training(self._federation, self._settings.seed, row)
        places = np.arange(turn * self._batch, (turn + 1) * self._batch) % len(order)
        return [int(position) for position in order[places[: len(order)]]]

    def _invert(self, exposure: Exposure, attack: int) -> Reconstruction:
        federation, samples = self._federation, self._federation.samples
        seed = derive_int(self._settings.seed, "audit-noise", federation.round, attack)
        return invert(
            federation.model,
            exposure.problem,
            samples.sample_shape,
            samples.outputs,
            self._range,
            self._settings.audit,
            seed,
        )

    def _score(self, trial: Trial, victim: Victim, exposure: Exposure, result: Reconstruction) -> None:
        originals, found = self._pixels(exposure.originals), self._range.unit(result.images)
        places = match(found, originals)
        chosen = originals[places]
        others = self._pixels(self._others(victim, exposure.originals))
        trial.attacks += 1
        trial.psnr += psnr((found - chosen).square().mean(dim=(1, 2, 3))).tolist()
        trial.ssim += ssim(found, chosen).tolist()
        trial.mean_image += psnr(squared_errors(others.mean(dim=0, keepdim=True), chosen)[0]).tolist()
        trial.nearest_other += psnr(squared_errors(others, chosen)).amax(dim=0).tolist()
        if self._source == ONE_STEP:  # behind a message are so many images that some one is always near
            gallery = torch.cat([originals, others])
            trial.identified += identified(found, places, gallery, list(range(len(originals))))
            trial.chance.append(len(originals) / len(gallery))
        trial.distance.append(result.distance)
        self._keep(trial, places, chosen, found)

    def _keep(self, trial: Trial, places: Sequence[int], originals: Tensor, found: Tensor) -> None:
        """Keep pairs for a picture: of one step those of the victim's own images, which come first, in their order."""
        for row in np.argsort(places):
            own = self._source == MESSAGE or places[row] < self._batch
            if own and len(trial.found) < MOST_DRAWN:
                trial.originals.append(originals[row].cpu().numpy())
                trial.found.append(found[row].cpu().numpy())

    def _others(self, victim: Victim, originals: Sequence[int]) -> list[int]:
        """Images of the attacker's own: what it would guess from without seeing anything."""
        own = drawn_training(self._federation, self._settings.seed, victim.attacker).tolist()
        return [position for position in own if position not in set(originals)][:MOST_OTHERS]

    def _pixels(self, positions: Sequence[int]) -> Tensor:
        """Images in 0 to 1."""
        return self._range.unit(self._federation.batch(positions)[0])


def drawn_training(federation: Federation, seed: int, row: int) -> np.ndarray:
    """The training samples of a site in an order drawn by the seed."""
    return derive(seed, "audit-images", row).permutation(federation.training(row))


def _row(round_index: int, source: str, batch: int, name: str, trial: Trial) -> dict[str, Any]:
    gain = mean_interval([own - other for own, other in zip(trial.psnr, trial.nearest_other, strict=True)])
    found = rate_interval(sum(trial.identified), len(trial.identified)) if trial.identified else None
    chance = mean_interval(trial.chance)["mean"] if trial.chance else None
    return {
        "attack": "inversion",
        "round": round_index,
        "source": source,
        "batch": batch,
        "exposure": name,
        "knows": trial.knows,
        "attacks": trial.attacks,
        "psnr": mean_interval(trial.psnr),
        "ssim": mean_interval(trial.ssim),
        "psnr_mean_image": mean_interval(trial.mean_image)["mean"],
        "psnr_nearest_other": mean_interval(trial.nearest_other)["mean"],
        "gain": gain,
        "identified": found,
        "identified_by_chance": chance,
        "distance": mean_interval(trial.distance)["mean"],
        "verdict": inversion_verdict(gain, found, chance),
    }
