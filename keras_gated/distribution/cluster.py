"""The processes of a training, as the environment names them."""

import json
import os
from collections.abc import Mapping
from typing import NamedTuple

ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
COUNT = "KERAS_DISTRIBUTION_NUM_PROCESSES"
INDEX = "KERAS_DISTRIBUTION_PROCESS_ID"
"""The variables of `keras.distribution.initialize`."""


class Cluster(NamedTuple):
    """The processes that train together."""

    addresses: tuple[str, ...]
    """`host:port` of each process, or of the first alone."""
    count: int
    """The number of processes."""
    index: int
    """The number of this one, from 0."""


def from_environment(environment: Mapping[str, str] = os.environ) -> Cluster | None:
    """The processes that environment variables name.

    Args:
        environment: The variables: those of `keras.distribution.initialize`,
            TensorFlow's `TF_CONFIG`, or `RANK` and others of PyTorch's `torchrun`.
            Default: those of this process.

    Returns:
        The processes; `None` if no variable names any.

    Raises:
        ValueError: A variable is missing or impossible.
    """
    if environment.get(ADDRESSES):
        addresses = tuple(environment[ADDRESSES].replace(" ", "").split(","))
        named = environment.get(COUNT, len(addresses)), environment.get(INDEX)
        variables = f"{ADDRESSES}, {COUNT} and {INDEX}"
    elif environment.get("TF_CONFIG"):
        variables = "TF_CONFIG"
        try:
            config = json.loads(environment[variables])
            jobs, task = config["cluster"], config["task"]
            # TensorFlow calls the first worker "chief", if it is named at all.
            addresses = (*jobs.get("chief", ()), *jobs.get("worker", ()))
            place = "chief" in jobs and task["type"] == "worker"
            named = len(addresses), int(task["index"]) + int(place)
            if set(jobs) - {"chief", "worker"}:
                raise ValueError("jobs other than chief and worker")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"TF_CONFIG does not name workers ({error!r}): {environment[variables]}"
            ) from error
    elif environment.get("MASTER_ADDR") and environment.get("RANK"):
        variables = "MASTER_ADDR, MASTER_PORT, WORLD_SIZE and RANK"
        port = environment.get("MASTER_PORT", "29500")
        addresses = (f"{environment['MASTER_ADDR']}:{port}",)
        named = environment.get("WORLD_SIZE"), environment.get("RANK")
    else:
        return None
    try:
        count, index = map(int, named)
    except (ValueError, TypeError):
        count, index = 0, 0
    if not 0 <= index < count or len(addresses) not in (1, count):
        raise ValueError(
            f"{variables} must name the number of processes, the number of this one, "
            f"from 0, and the address of each or of the first. Received: {named}, "
            f"{addresses}"
        )
    return Cluster(addresses, count, index)
