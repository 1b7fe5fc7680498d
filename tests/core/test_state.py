"""States: immutable mappings of fields that travel through torch like one value."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sciffusion.layout import Dense, Masked, Packed
from sciffusion.noise import Noise
from sciffusion.process import Gaussian, Joint
from sciffusion.schedule import RectifiedFlow
from sciffusion.state import State, batch_of, cat, layout_of, take


def crystal() -> State:
    """Packed atoms beside one dense lattice per sample: no leading dimension is shared."""
    atoms = Packed(torch.tensor([0, 0, 0, 1]), 2)
    fields = {"frac": torch.arange(12.0).reshape(4, 3), "lattice": torch.ones(2, 3, 3)}
    return State(fields, {"frac": atoms, "lattice": Dense(2)}, {"edges": torch.tensor([[0], [1]])})


def test_a_state_is_a_mapping_whose_fields_may_have_different_layouts() -> None:
    state = crystal()
    assert list(state) == ["frac", "lattice"] and len(state) == 2
    assert state.batch == batch_of(state) == 2
    assert state["frac"].shape == (4, 3)
    assert isinstance(state.layout("frac"), Packed) and layout_of(state, "lattice") == Dense(2)
    assert repr(state) == "State(batch=2, frac: float32[4, 3], lattice: float32[2, 3, 3])"


def test_one_layout_serves_all_fields() -> None:
    state = State({"a": torch.zeros(2, 1), "b": torch.zeros(2, 5)}, Dense(2))
    assert state.layout("a") is state.layout("b")


def test_a_state_cannot_be_changed() -> None:
    state = crystal()
    with pytest.raises(TypeError):
        state["frac"] = torch.zeros(4, 3)  # type: ignore[index]
    with pytest.raises(TypeError):
        state.context["edges"] = torch.zeros(1)  # type: ignore[index]
    fields = {"a": torch.zeros(1)}
    held = State(fields, Dense(1))
    fields["a"] = torch.ones(1)
    assert float(held["a"]) == 0.0


def test_replacing_a_field_keeps_the_others_the_layouts_and_the_context() -> None:
    state = crystal()
    new = state.replace({"frac": state["frac"] + 1})
    assert torch.equal(new["frac"], state["frac"] + 1) and new["lattice"] is state["lattice"]
    assert (
        new.layout("frac") is state.layout("frac")
        and new.context["edges"] is state.context["edges"]
    )
    with pytest.raises(KeyError, match="no field"):
        state.replace({"atoms": torch.zeros(4)})


def test_map_gives_every_function_the_field_of_its_name() -> None:
    state = crystal()
    total = state.map(lambda a, b: a + b, state)
    assert all(torch.equal(total[k], 2 * state[k]) for k in state)


def test_a_state_is_a_pytree() -> None:
    state = crystal()
    leaves, spec = pytree.tree_flatten(state)
    assert len(leaves) == 2
    again = pytree.tree_unflatten([x * 2 for x in leaves], spec)
    assert isinstance(again, State) and torch.equal(again["frac"], 2 * state["frac"])
    assert again.layout("frac") is state.layout("frac") and set(again.context) == {"edges"}
    with pytest.raises(TypeError):
        again.context["edges"] = 0  # type: ignore[index]


def test_differentiation_transforms_pass_states_through() -> None:
    def total(state: State) -> Tensor:
        return state["frac"].square().sum() + state["lattice"].sum()

    gradient = torch.func.grad(total)(crystal())
    assert isinstance(gradient, State)
    assert torch.equal(gradient["frac"], 2 * crystal()["frac"])
    assert torch.equal(gradient["lattice"], torch.ones(2, 3, 3))


def test_a_plain_tensor_goes_in_and_comes_out_as_a_plain_tensor() -> None:
    process, x = Gaussian(RectifiedFlow()), torch.zeros(2, 3)
    assert isinstance(process.perturb(x, torch.tensor(0.5), Noise(0)).x_t, Tensor)
    assert isinstance(process.prior(x, Noise(0)), Tensor)
    joint = Joint({"frac": process, "lattice": process})
    noised = joint.perturb(crystal(), torch.tensor(0.5), Noise(0)).x_t
    assert isinstance(noised, State) and set(noised.context) == {"edges"}


def test_fields_and_layouts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        State({}, Dense(1))
    with pytest.raises(ValueError, match="no layout for the fields"):
        State({"a": torch.zeros(1)}, {"b": Dense(1)})
    with pytest.raises(ValueError, match="disagrees about the number of samples"):
        State({"a": torch.zeros(1), "b": torch.zeros(2)}, {"a": Dense(1), "b": Dense(2)})


def test_layouts_of_other_names_are_left_out() -> None:
    part = State({"a": torch.zeros(2)}, {"b": Dense(5), "a": Dense(2)})
    assert part.batch == 2
    with pytest.raises(KeyError):
        part.layout("b")


def test_samples_are_taken_from_fields_of_different_layouts() -> None:
    whole = State(dict(crystal()), {k: crystal().layout(k) for k in crystal()})
    picked = take(whole, torch.tensor([1, 0, 1]))
    assert isinstance(picked, State) and picked.batch == 3
    assert torch.equal(picked["frac"], whole["frac"][[3, 0, 1, 2, 3]])
    assert picked["lattice"].shape == (3, 3, 3)
    back = cat([whole, picked])
    assert isinstance(back, State) and back.batch == 5
    assert torch.equal(back["frac"], torch.cat([whole["frac"], picked["frac"]]))
    assert torch.equal(take(torch.arange(3), torch.tensor([2, 2])), torch.tensor([2, 2]))  # type: ignore[arg-type]
    assert cat([torch.zeros(2), torch.ones(1)]).shape == (3,)  # type: ignore[union-attr]


def test_batches_of_different_kinds_are_not_joined() -> None:
    a, both = (
        State({"a": torch.zeros(2, 3)}, Dense(2)),
        {"a": torch.zeros(2, 3), "b": torch.zeros(2)},
    )
    masked = State({"a": torch.zeros(2, 3)}, Masked(torch.ones(2, 3, dtype=torch.bool)))
    for other in (masked, State(both, Dense(2))):
        for pair in ([a, other], [other, a]):
            with pytest.raises(ValueError, match="of other kinds"):
                cat(pair)
    for values, counts in (([], "0 states and 0"), ([a, torch.zeros(2, 3)], "1 states and 1")):
        with pytest.raises(ValueError, match=counts):
            cat(values)  # type: ignore[arg-type]


def test_a_state_with_a_context_is_not_rearranged() -> None:
    for call in (lambda: take(crystal(), torch.tensor([0])), lambda: cat([crystal(), crystal()])):
        with pytest.raises(ValueError, match="context .'edges'. cannot be rearranged"):
            call()
