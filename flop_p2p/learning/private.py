"""Differentially private training of one site: DP-SGD (Abadi et al. 2016, algorithm 1), over body and head together."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from flop_p2p.config import PrivacySettings, TrainingSettings
from flop_p2p.errors import ConfigError
from flop_p2p.learning.batches import steps_of_round
from flop_p2p.learning.device import seed_generators
from flop_p2p.learning.draws import Draws
from flop_p2p.learning.partway import Partway
from flop_p2p.learning.poisson import build_sampling
from flop_p2p.learning.samples import Samples
from flop_p2p.learning.trainee import Trainee
from flop_p2p.learning.training import Learner, frozen_error

Gradients = dict[str, Tensor]
AT_ONCE = 1 << 22  # numbers of gradients of single samples held at once: with 16 MiB fastest (`small-cnn`)
LEAST_AT_ONCE, MOST_AT_ONCE = 4, 64  # samples
TINY = 1e-6  # so that a gradient of zero can be divided by its norm


class PrivateLearner(Learner):
    """A `Learner` whose every gradient is a sum of clipped gradients of single samples, plus noise.

    A step takes part of each record, or patient, by Poisson sampling, and may be empty: it adds noise all the same. The
    gradient of a sample is clipped by its norm over all weights that are trained, body and head together, and divided
    by the expected size of a batch, not by the real one.

    Args:
        draws: where noise and sampling come from.

    Attributes:
        rate: probability with which a record or patient takes part in a step.

    Raises:
        ConfigError: as `Learner`; or the data tell no patients to protect.
    """

    def __init__(
        self,
        name: str,
        trainee: Trainee,
        samples: Samples,
        indices: np.ndarray,
        settings: TrainingSettings,
        seed: int,
        steps: int | None = None,
        *,
        privacy: PrivacySettings,
        draws: Draws,
    ) -> None:
        self._sampling = build_sampling(name, indices, samples.patients, privacy, settings.batch_size)
        steps = steps or steps_of_round(self._sampling.units, settings)
        super().__init__(name, trainee, samples, indices, settings, seed, steps)
        self.rate = self._sampling.rate
        self._privacy, self._draws = privacy, draws
        numbers = sum(weight.numel() for weight in (*trainee.body, *trainee.head))
        self._at_once = min(MOST_AT_ONCE, max(LEAST_AT_ONCE, AT_ONCE // max(1, numbers)))
        for layer in trainee.model.modules():
            if getattr(layer, "inplace", False):
                layer.inplace = False  # type: ignore[assignment]  # to torch.func what changes in place is slow
        self._randomness = ""  # not tried out yet

    def batches(self, round_index: int) -> list[np.ndarray]:
        """The samples of each step of a round, positions in the data set; secret draws give others each time."""
        return [self._sampling.batch(self._draws, round_index, step) for step in range(self.steps)]

    def _restore_random(self, round_index: int, partway: Partway | None) -> None:
        """Dropout and augmentation go on with other random numbers: those used are not kept."""
        self.try_out()
        seed = self._draws.generator_seed(round_index, 0 if partway is None else partway.step)
        seed_generators(seed, self._samples.inputs.device)

    def _pause(self, losses: Sequence[Tensor]) -> Partway:
        return Partway(torch.stack(list(losses)).cpu(), ())

    def _step(self, positions: np.ndarray, lr: float, round_index: int, step: int) -> Tensor:
        """One gradient step; the sum of its losses over the expected size of a batch."""
        gradients, loss = self.clipped(positions)
        if not gradients:
            raise frozen_error(self.name)
        spread = self._privacy.noise_multiplier * self._privacy.clipping_norm
        sizes = [gradient.numel() for gradient in gradients.values()]
        noise = torch.split(self._draws.normal(round_index, step, sum(sizes)).to(loss.device), sizes)
        weights = dict(self.trainee.model.named_parameters())
        for (name, gradient), part in zip(gradients.items(), noise, strict=True):
            gradient.add_(part.view_as(gradient), alpha=spread).div_(self._sampling.expected)
            weights[name].grad = gradient
        self.trainee.optimizer.step(lr)
        self.trainee.optimizer.clear_gradients()
        return loss / self._sampling.expected

    def clipped(self, positions: np.ndarray) -> tuple[Gradients, Tensor]:
        """The sum of the clipped gradients of the samples at ``positions``, by weight, and the sum of their losses.

        Weights that are frozen now have none.

        Raises:
            ConfigError: as `try_out`.
        """
        self.try_out()
        weights = {
            name: weight.detach() for name, weight in self.trainee.model.named_parameters() if weight.requires_grad
        }
        total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        loss = torch.zeros((), device=self._samples.inputs.device)
        if not weights:
            return total, loss
        seed = int(torch.randint(1 << 62, ())) if self._randomness == "same" else None
        for chunk in torch.split(self._samples.positions(positions), self._at_once):
            if len(chunk):
                inputs, labels = self._samples.batch(chunk, self._augment)
                with self._dropout(seed):
                    gradients, losses = self._of_each(weights, inputs, labels)
                self._add_clipped(total, gradients)
                loss += losses.sum()
        return total, loss

    @contextlib.contextmanager
    def _dropout(self, seed: int | None) -> Iterator[None]:
        """Dropout from ``seed``, beside the generators that all else draws from; None for dropout from these.

        Samples that share dropout must do so in the whole step: with another mask for each chunk, one more sample would
        move others to another chunk and mask, and change the sum by more than the clipping norm.
        """
        if seed is None:
            yield
            return
        device = self._samples.inputs.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            seed_generators(seed, device)
            yield

    def _add_clipped(self, total: Gradients, gradients: Gradients) -> None:
        """Add the gradients ``[samples, ...]``, each scaled down to the clipping norm where it is longer."""
        flat = {name: gradient.flatten(1) for name, gradient in gradients.items()}
        norms = torch.stack([gradient.square().sum(dim=1) for gradient in flat.values()]).sum(dim=0).sqrt()
        factors = (self._privacy.clipping_norm / (norms + TINY)).clamp(max=1.0)
        for name, gradient in flat.items():
            total[name] += (factors @ gradient).view_as(total[name])

    def _of_each(self, weights: Gradients, inputs: Tensor, labels: Tensor) -> tuple[Gradients, Tensor]:
        """The gradient ``[samples, ...]`` and loss ``[samples]`` of each sample."""

        def loss(weights: Gradients, sample: Tensor, label: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.trainee.model, weights, (sample.unsqueeze(0),))
            return self.objective.loss(logits, label.unsqueeze(0))

        each = vmap(grad_and_value(loss), in_dims=(None, 0, 0), randomness=self._randomness)
        result: tuple[Gradients, Tensor] = each(weights, inputs, labels)
        return result

    def try_out(self) -> None:
        """Find out, once, whether samples may have other dropout each or, where torch.func cannot, the same in a step.

        Not before training, for a process that has computed gradients where there is a GPU cannot be forked any more.

        Raises:
            ConfigError: no gradients of single samples can be had of the model.
        """
        if self._randomness:
            return
        self.trainee.model.train()
        reason = ""
        for self._randomness in ("different", "same"):
            try:
                self.clipped(np.resize(self._sampling.indices, 2))
            except Exception as error:
                reason = reason or next(iter(str(error).strip().splitlines()), type(error).__name__)
            else:
                return
        self._randomness = ""
        raise ConfigError(
            f"privacy.noise_multiplier: no gradients of single samples can be had of this model ({reason})"
        )
