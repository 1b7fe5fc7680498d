"""What every test shares: one torch thread, reproducible hypothesis, and the real data sets."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

if find_spec("hypothesis"):
    from hypothesis import settings

    # A busy machine must not fail a law on time, and CI must not roll new dice.
    settings.register_profile("sciffusion", deadline=None, derandomize="CI" in os.environ)
    settings.load_profile("sciffusion")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """``shared_data("molecules/qm9")`` is the path of real data; where it is absent, a skip.

    The data lie in ``$SCIFFUSION_TEST_DATA``, or else in ``shared/data`` beside the repository.
    """
    beside = Path(__file__).resolve().parents[1] / "../shared/data"
    root = Path(os.environ.get("SCIFFUSION_TEST_DATA") or beside).resolve()

    def find(name: str) -> Path:
        path = root / name
        if not path.exists():
            pytest.skip(f"no test data at {path}; set SCIFFUSION_TEST_DATA to the folder")
        return path

    return find
