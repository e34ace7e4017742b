"""What connects processes, on each backend."""

import json
import os

import keras
import numpy as np

from keras_gated.distribution.cluster import Cluster
from keras_gated.replicas import Tensor


class Engine:
    """Connects this process to the others.

    Args:
        cluster: The processes.

    Attributes:
        count: The number of processes.
        index: The number of this one.
        sees_all: Whether a program sees the batches of all, so that nothing is left to
            be summed.
    """

    sees_all = False

    def __init__(self, cluster: Cluster) -> None:
        self.count, self.index = cluster.count, cluster.index

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, of float32 or float64, as a tensor."""
        raise NotImplementedError

    def broadcast(self, octets: np.ndarray, root: int) -> np.ndarray:
        """What one process has, `uint8 [n]`; all others give as many of any value."""
        raise NotImplementedError

    def wait(self) -> None:
        """Returns when all processes have come here."""
        raise NotImplementedError


class TensorFlowEngine(Engine):
    """The collectives of `tf.distribute.MultiWorkerMirroredStrategy`.

    Keras's `fit` does not run under this strategy (3.15 fails when it builds the
    model), and rescales gradients before it sums them. So `fit` runs as if it were
    alone, and sums are made by the strategy where one is needed.
    """

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        import tensorflow as tf

        if len(cluster.addresses) < cluster.count:
            raise ValueError(
                "TensorFlow needs the addresses of all processes. Received: "
                f"{cluster.addresses}"
            )
        os.environ["TF_CONFIG"] = json.dumps(
            {
                "cluster": {"worker": cluster.addresses},
                "task": {"type": "worker", "index": cluster.index},
            }
        )
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def total(self, values: Tensor) -> Tensor:
        with self._strategy.scope():
            return self._strategy.reduce("SUM", values, axis=None)

    def broadcast(self, octets: np.ndarray, root: int) -> np.ndarray:
        import tensorflow as tf

        words = np.zeros(-(-len(octets) // 4), "int32")
        if self.index == root:
            words.view("uint8")[: len(octets)] = octets
        summed = self.total(tf.constant(words)).numpy()
        return summed.view("uint8")[: len(octets)]

    def wait(self) -> None:
        import tensorflow as tf

        self.total(tf.zeros(1)).numpy()


class TorchEngine(Engine):
    """The collectives of `torch.distributed`."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        import torch

        cuda = torch.cuda.is_available()
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo",
            init_method=f"tcp://{cluster.addresses[0]}",
            world_size=cluster.count,
            rank=cluster.index,
        )
        self._device = "cuda" if cuda else "cpu"

    def total(self, values: Tensor) -> Tensor:
        import torch

        summed = values.detach().clone()
        torch.distributed.all_reduce(summed)
        return summed

    def broadcast(self, octets: np.ndarray, root: int) -> np.ndarray:
        import torch

        received = torch.tensor(octets, device=self._device)
        torch.distributed.broadcast(received, root)
        return received.cpu().numpy()

    def wait(self) -> None:
        import torch

        torch.distributed.barrier()


class JAXEngine(Engine):
    """The processes of `keras.distribution`, with `DataParallel` over all devices."""

    sees_all = True

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)
        keras.distribution.initialize(
            cluster.addresses[0], cluster.count, cluster.index
        )
        devices = keras.distribution.list_devices()
        keras.distribution.set_distribution(
            keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
        )

    def broadcast(self, octets: np.ndarray, root: int) -> np.ndarray:
        from jax.experimental import multihost_utils

        is_source = self.index == root
        return np.asarray(multihost_utils.broadcast_one_to_all(octets, is_source))

    def wait(self) -> None:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices("keras_gated")


def connect(cluster: Cluster) -> Engine:
    """Connects this process to the others; returns when all have come.

    Args:
        cluster: The processes.

    Raises:
        ValueError: The Keras backend has no engine.
    """
    engines = {"tensorflow": TensorFlowEngine, "torch": TorchEngine, "jax": JAXEngine}
    backend = keras.config.backend()
    if backend not in engines:
        raise ValueError(f"The backend {backend} does not train with several processes")
    return engines[backend](cluster)
