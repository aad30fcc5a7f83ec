"""One contiguous vector behind the model: exact round trips, and training that writes into it."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from flop_p2p.errors import SplitError
from flop_p2p.models import build_model
from flop_p2p.partial import Schema, bind, flatten, share_everything, split_model

StateOf = Callable[[nn.Module], dict[str, Tensor]]
Make = Callable[[], nn.Module]


def same_bits(first: Tensor, second: Tensor) -> bool:
    return torch.equal(first.contiguous().view(torch.int32), second.contiguous().view(torch.int32))


def lies_in(tensor: Tensor, vector: Tensor) -> bool:
    begin, end = vector.data_ptr(), vector.data_ptr() + 4 * vector.numel()
    return begin <= tensor.data_ptr() and tensor.data_ptr() + 4 * tensor.numel() <= end


@given(
    layers=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_flatten_and_bind_round_trip_bit_for_bit(layers: list[tuple[int, int]], seed: int) -> None:
    module, other = (nn.ModuleList(nn.Linear(*sizes) for sizes in layers) for _ in range(2))
    schema = share_everything(module).body
    random = torch.randint(-(2**31), 2**31 - 1, (schema.parameters,), generator=torch.Generator().manual_seed(seed))
    vector = random.to(torch.int32).view(torch.float32)  # every bit pattern, NaN and denormal numbers included
    bind(module, schema, vector.clone())
    assert same_bits(flatten(module, schema), vector)
    bind(other, schema, flatten(module, schema))
    for name, tensor in module.state_dict().items():
        assert same_bits(other.state_dict()[name], tensor), name


@pytest.mark.parametrize(("name", "shape"), [("mlp", (4,)), ("small-cnn", (1, 8, 8)), ("resnet18", (1, 32, 32))])
def test_bind_keeps_the_model_as_it_is(name: str, shape: tuple[int, ...], state_of: StateOf) -> None:
    model = build_model(name, shape, 3, seed=0)
    before, split = state_of(model), split_model(model)
    inputs = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    logits = model.eval()(inputs)
    for schema in (split.body, split.head):
        bind(model, schema, flatten(model, schema))
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert torch.equal(model(inputs), logits)


def test_flatten_is_a_copy_in_the_order_of_the_schema() -> None:
    model = build_model("mlp", (4,), 3, seed=0)
    schema = split_model(model).body
    vector = flatten(model, schema)
    for spec in schema.tensors:
        start, end = schema.offsets[spec.name]
        assert torch.equal(vector[start:end].view(spec.shape), model.state_dict()[spec.name])
    vector.zero_()
    assert any(parameter.any() for parameter in model.parameters())


def test_a_transposed_weight_keeps_its_values() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    module[0].weight = nn.Parameter(torch.arange(6.0).view(2, 3).T)
    schema = share_everything(module).body
    bind(module, schema, flatten(module, schema))
    assert module[0].weight.tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_an_empty_schema_has_an_empty_vector(norm_net: Make) -> None:
    module = norm_net()
    assert flatten(module, Schema(())).shape == (0,)
    bind(module, Schema(()), torch.empty(0))


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "sgd": lambda module: torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, fused=True),
    "sgd for-each": lambda module: torch.optim.SGD(module.parameters(), lr=0.1, foreach=True),
    "adam": lambda module: torch.optim.Adam(module.parameters(), lr=0.1, fused=True),
    "adamw": lambda module: torch.optim.AdamW(module.parameters(), lr=0.1),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_training_writes_into_the_vector(optimizer: str, norm_net: Make, state_of: StateOf) -> None:
    bound, free = norm_net(), norm_net()
    split = split_model(bound)
    body, head = flatten(bound, split.body), flatten(bound, split.head)
    bind(bound, split.body, body)
    bind(bound, split.head, head)
    start = body.clone()
    for module in (bound, free):
        steps, generator = OPTIMIZERS[optimizer](module), torch.Generator().manual_seed(2)
        for _ in range(3):
            steps.zero_grad()
            F.mse_loss(module(torch.randn(6, 4, generator=generator)), torch.zeros(6, 3)).backward()
            steps.step()
    for schema, vector in ((split.body, body), (split.head, head)):
        assert torch.equal(vector, flatten(bound, schema))
        for name in schema.names:
            begin = schema.offsets[name][0]
            assert state_of(free)[name].allclose(bound.state_dict()[name], rtol=1e-6, atol=1e-7), name
            assert bound.state_dict()[name].data_ptr() == vector.data_ptr() + 4 * begin, name
    for begin, end in split.body.offsets.values():  # BatchNorm's running statistics included
        assert not torch.equal(body[begin:end], start[begin:end])


def test_a_change_of_the_vector_changes_the_model(norm_net: Make) -> None:
    module = norm_net().eval()
    split = split_model(module)
    body = flatten(module, split.body)
    bind(module, split.body, body)
    head = flatten(module, split.head)
    body.zero_()
    assert not any(module.state_dict()[name].any() for name in split.body.names)
    assert torch.equal(flatten(module, split.head), head)
    assert torch.equal(module(torch.randn(2, 4)), module[3].bias.expand(2, 3))


def test_head_is_never_in_the_body_vector(norm_net: Make) -> None:
    module = norm_net()
    split = split_model(module)
    body = flatten(module, split.body)
    bind(module, split.body, body)
    assert all(lies_in(module.state_dict()[name], body) for name in split.body.names)
    assert not any(lies_in(module.state_dict()[name], body) for name in (*split.head.names, *split.local))


def test_tied_tensors_stay_tied() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    schema = split_model(module).body
    vector = flatten(module, schema)
    assert len(vector) == 9 + 3 + 3
    bind(module, schema, vector)
    vector[:9] = 7
    assert module[1].weight is module[0].weight
    assert module[1].weight.eq(7).all()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda vector: vector[:-1].clone(),
        lambda vector: torch.cat([vector, vector[:1]]),
        lambda vector: vector.double(),
        lambda vector: vector.half(),
        lambda vector: vector.view(1, -1),
        lambda vector: torch.stack([vector, vector], dim=1)[:, 0],
        lambda vector: torch.empty(0),
    ],
    ids=["short", "long", "double", "half", "matrix", "strided", "empty"],
)
def test_vectors_that_do_not_fit_are_refused(
    wrong: Callable[[Tensor], Tensor], norm_net: Make, state_of: StateOf
) -> None:
    module = norm_net()
    schema, before = split_model(module).body, state_of(module)
    with pytest.raises(SplitError, match=f"{schema.parameters} float32 numbers"):
        bind(module, schema, wrong(flatten(module, schema)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
