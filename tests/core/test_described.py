"""The line in which a trained model is shown."""

from dataclasses import dataclass

import pytest
from torch import nn

from sciffusion.described import described
from sciffusion.registry import domains, load_domain


@dataclass
class Model:
    net: nn.Module


def test_a_model_says_its_facts_its_size_and_what_it_is_asked_by() -> None:
    model = Model(nn.Linear(99, 10))
    assert described(model, model.net) == "Model(1,000 parameters)"
    line = described(model, model.net, "8000 Hz", "mono", asked=("digit", "speaker"))
    assert line == "Model(8000 Hz, mono, 1,000 parameters, asked by digit, speaker)"


@pytest.mark.parametrize("name", domains())
def test_every_domain_shows_its_models_in_a_line(name: str) -> None:
    domain = load_domain(name)
    for model in map(domain.load, domain.models()):
        line = repr(model)
        assert line.startswith(type(model).__name__) and " parameters" in line
        assert len(line) < 200 and "\n" not in line
