"""All sites of a simulation in memory: bodies, heads and optimizers as rows of matrices, and one model for them all."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from flop_p2p.config import TrainingSettings
from flop_p2p.learning import Blueprint, Stack, Trainee
from flop_p2p.partial import Binding, flatten
from flop_p2p.simulation.memory import shared_rows, shared_tensor


class Population:
    """The state of ``sites`` sites, all with the blueprint's initial values.

    Memory is the sum of the attributes, and one model a process. Forked processes share them.

    Args:
        bodies_in: a folder for a file that holds the bodies instead of memory.

    Attributes:
        bodies: ``[sites, parameters]``, float32. What is exchanged, and nothing else.
        heads: ``[sites, head parameters]``, float32. Never mixed.
        optimizers: ``[sites, state]``, float32; without columns where it is dropped after every round.
        local: the integer buffers by name, ``[sites, ...]``.
        exchanged: what the exchange keeps from round to round, likewise.
    """

    def __init__(
        self, blueprint: Blueprint, sites: int, training: TrainingSettings, bodies_in: Path | None = None
    ) -> None:
        self.split = blueprint.split
        template = blueprint.template
        body, head = flatten(template, self.split.body), flatten(template, self.split.head)
        kept = training.optimizer_state == "keep"
        numbers = Trainee(template, blueprint.head, training).optimizer.numbers if kept else 0
        self.bodies = shared_rows(sites, len(body), body.device, bodies_in)
        self.heads = shared_rows(sites, len(head), body.device)
        self.optimizers = shared_rows(sites, numbers, body.device)
        self.bodies[:] = body
        self.heads[:] = head
        state = template.state_dict()
        self.local = {name: _repeat(state[name], sites) for name in self.split.local}
        self.exchanged: dict[str, Tensor] = {}

    def trained(self) -> dict[str, Tensor]:
        """What training changes, ``[sites, ...]`` each, by name."""
        local = {f"local/{name}": buffers for name, buffers in self.local.items()}
        return {"bodies": self.bodies, "heads": self.heads, "optimizers": self.optimizers, **local}

    def tensors(self) -> dict[str, Tensor]:
        """All that changes, ``[sites, ...]`` each, by name."""
        return {**self.trained(), **self.exchanged}


class Workbench:
    """One model with its optimizer that takes turns at the sites of a population: its tensors are views of their rows.

    A process has one, however many sites there are.
    """

    def __init__(self, population: Population, blueprint: Blueprint, training: TrainingSettings) -> None:
        model = copy.deepcopy(blueprint.template)
        self.trainee = Trainee(model, blueprint.head, training)
        self._population = population
        self._body = Binding(model, population.split.body)
        self._head = Binding(model, population.split.head)
        state = model.state_dict(keep_vars=True)
        self._local = {name: state[name] for name in population.local}

    def place(self, site: int) -> nn.Module:
        """The model of one site, until the next call."""
        population = self._population
        self._body.to(population.bodies[site])
        self._head.to(population.heads[site])
        for name, buffer in self._local.items():
            buffer.data = population.local[name][site]
        if population.optimizers.shape[1]:
            self.trainee.optimizer.bind(population.optimizers[site])
        return self.trainee.model

    @contextmanager
    def stack(self, sites: Sequence[int]) -> Iterator[Stack]:
        """The models of several sites, side by side in new memory; what became of them is kept at the end."""
        population, rows = self._population, list(sites)
        trained = population.trained()
        copies = {name: tensor[rows] for name, tensor in trained.items()}
        tensors = {name: copies[f"local/{name}"] for name in population.local}
        for part, schema in (("bodies", population.split.body), ("heads", population.split.head)):
            for spec in schema.tensors:
                start, end = schema.offsets[spec.name]
                tensors[spec.name] = copies[part][:, start:end].view(len(rows), *spec.shape)
        optimizers = copies["optimizers"]
        if not optimizers.shape[1]:
            optimizers = optimizers.new_zeros(len(rows), self.trainee.optimizer.numbers)
        yield Stack(tensors, optimizers)
        for name, tensor in trained.items():
            tensor[rows] = copies[name]


def _repeat(value: Tensor, sites: int) -> Tensor:
    repeated = shared_tensor((sites, *value.shape), value.dtype, value.device)
    repeated[:] = value
    return repeated
