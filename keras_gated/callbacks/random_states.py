"""The generators of random numbers that belong to no layer."""

import importlib
import random
from typing import Any

import keras
import numpy as np


def get() -> dict[str, Any]:
    """The states of those of Python and NumPy, and of PyTorch where it runs models.

    On PyTorch, Keras's dropout draws from its generator.
    """
    version, numbers, gauss = random.getstate()
    states = {
        "python": [version, np.array(numbers, np.uint32), gauss],
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002
    }
    if keras.config.backend() == "torch":
        torch = importlib.import_module("torch")
        states["torch"] = torch.get_rng_state().numpy()
        if torch.cuda.is_available():
            states["cuda"] = [x.numpy() for x in torch.cuda.get_rng_state_all()]
    return states


def put_back(states: dict[str, Any]) -> None:
    """Sets them.

    Args:
        states: As `get` returned them.
    """
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    np.random.set_state(states["numpy"])  # noqa: NPY002
    if "torch" in states:
        torch = importlib.import_module("torch")
        torch.set_rng_state(torch.from_numpy(states["torch"].copy()))
        if "cuda" in states:
            torch.cuda.set_rng_state_all(
                [torch.from_numpy(x.copy()) for x in states["cuda"]]
            )
