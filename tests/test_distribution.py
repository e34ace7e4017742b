"""Several processes train as one does with the whole batch."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import training_together
from oracles import some

from keras_gated import distribution, replicas
from keras_gated.distribution import cluster

BACKEND = keras.config.backend()
PROGRAM = [sys.executable, training_together.__file__]
of_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
of_torch = pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
has_tensorflow = pytest.mark.skipif(
    sys.modules.get("tensorflow", "") is None, reason="batches are TensorFlow's"
)


def together(count, task, folder, **options):
    """What each process returns."""
    code = distribution.launch(count, [*PROGRAM, task, os.fspath(folder)], **options)
    assert code == 0
    files = [Path(folder, f"result_{n}.json") for n in range(count)]
    return [json.loads(file.read_text()) for file in files]


def assert_same(here, there):
    assert here.keys() == there.keys()
    for name in here:
        a, b = (np.array(keras.tree.flatten(some[name])) for some in (here, there))
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5, err_msg=name)


@has_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "count"),
    [
        ("same_as_one", 2),
        ("same_as_one", 4),
        ("joint_as_one", 2),
    ],
)
def test_several_train_as_one(task, count, tmp_path):
    alone = getattr(training_together, task)(distribution.Workers())
    found = together(count, task, tmp_path)
    assert all(result == found[0] for result in found)
    assert_same(found[0], alone)


@of_tensorflow
@pytest.mark.slow
def test_replicas_of_a_strategy_train_as_one(tmp_path):
    subprocess.run([*PROGRAM, "mirrored", tmp_path], check=True)
    of_one, of_three = json.loads((tmp_path / "result_0.json").read_text())
    assert_same(of_three, of_one)


@of_torch
@has_tensorflow
def test_as_in_the_guide_of_keras_to_pytorch(tmp_path):
    alone = training_together.data_parallel(distribution.Workers())
    found = together(2, "data_parallel", tmp_path)
    assert_same({"weights": found[1]}, {"weights": alone})


@has_tensorflow
@pytest.mark.slow
def test_what_is_refused_is_so_in_all_before_the_first_step(tmp_path):
    first, second = together(2, "found_before", tmp_path)
    for name in first.keys() & {"data", "model", "code"}:
        assert first[name] == second[name]
        assert "worker 1" in first[name]
    assert "data.content" in first["data"]
    assert "units" in first.get("model", "units")
    assert "own_code" in first["code"]
    for found in (first, second):
        assert "seed" in found["seed"]
        assert "2 workers" in found["batch"]


@has_tensorflow
@pytest.mark.slow
def test_a_worker_that_is_killed_comes_back(tmp_path):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    for folder in (undisturbed, disturbed):
        folder.mkdir()
    (undisturbed / "killed").touch()
    expected = together(2, "killed", undisturbed)
    found = together(2, "killed", disturbed)
    assert (disturbed / "killed").exists()
    assert found[0] == expected[0]
    assert found[1]["weights"] == expected[1]["weights"]


def test_one_process_is_as_if_there_were_no_others(tmp_path):
    workers = distribution.initialize()
    assert (workers.count, workers.index, workers.is_first) == (1, 0, True)
    assert workers.tell("something") == "something"
    assert workers.folder(tmp_path) == tmp_path
    assert (replicas.count(), replicas.index()) == (1, 0)
    with pytest.raises(ValueError, match="built and compiled"):
        workers.prepare(keras.Sequential([keras.layers.Dense(1)]))
    with pytest.raises((ValueError, ImportError), match=r"MirroredStrategy|tensorflow"):
        distribution.initialize(strategy="mirrored")


KERAS = {cluster.ADDRESSES: "a:1, b:2", cluster.COUNT: "2", cluster.INDEX: "1"}
CONFIG = {
    "cluster": {"chief": ["a:1"], "worker": ["b:2", "c:3"]},
    "task": {"type": "worker", "index": 1},
}
TORCH = {"MASTER_ADDR": "a", "MASTER_PORT": "1", "WORLD_SIZE": "4", "RANK": "3"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (KERAS, (("a:1", "b:2"), 2, 1)),
        ({**KERAS, cluster.ADDRESSES: "a:1", cluster.COUNT: "9"}, (("a:1",), 9, 1)),
        ({"TF_CONFIG": json.dumps(CONFIG)}, (("a:1", "b:2", "c:3"), 3, 2)),
        (TORCH, (("a:1",), 4, 3)),
    ],
)
def test_the_environment_says_who_the_others_are(environment, expected):
    assert cluster.from_environment(environment) == expected


@pytest.mark.parametrize(
    "environment",
    [
        {**KERAS, cluster.INDEX: "2"},
        {**KERAS, cluster.COUNT: "3"},
        {k: v for k, v in KERAS.items() if k != cluster.INDEX},
        {"TF_CONFIG": "{}"},
        {"TF_CONFIG": json.dumps({**CONFIG, "cluster": {"ps": [], "worker": []}})},
        {**TORCH, "WORLD_SIZE": "many"},
    ],
)
def test_an_impossible_environment_is_an_error(environment):
    with pytest.raises(ValueError, match=r"KERAS_DIST|TF_CONFIG|MASTER_ADDR"):
        cluster.from_environment(environment)


def python(code):
    # -S, for nothing else is to be waited for.
    return [sys.executable, "-S", "-c", f"import os, sys, time; {code}"]


ME = f"os.environ['{cluster.INDEX}']"


def test_launch_returns_the_exit_code_and_shows_what_failed(capfd):
    assert distribution.launch(3, python("pass")) == 0
    began = time.monotonic()
    code = f"time.sleep(60) if {ME} != '1' else sys.exit('it went wrong')"
    assert distribution.launch(3, python(code)) == 1
    assert time.monotonic() - began < 30  # the others were ended
    assert "Worker 1 has failed:\nit went wrong" in capfd.readouterr().err
    with pytest.raises(ValueError, match="workers"):
        distribution.launch(0, python("pass"))


@pytest.mark.parametrize(("restarts", "code"), [(1, 0), (0, signal.SIGKILL)])
def test_all_are_started_again_when_one_is_killed(restarts, code, tmp_path, capfd):
    mark = os.fspath(tmp_path / "mark")
    kill = (
        f"there = os.path.exists({mark!r}); "
        f"{ME} == '1' and not there and (time.sleep(1), open({mark!r}, 'w'), "
        f"os.kill(os.getpid(), 9)); time.sleep(0 if there else 60); print('done', {ME})"
    )
    assert distribution.launch(2, python(kill), restarts) == code
    shown = capfd.readouterr()
    assert shown.out == ("done 0\n" if restarts else "")
    assert ("Worker 1 was killed" in shown.err) == bool(restarts)


@pytest.mark.parametrize("how", some([signal.SIGINT, signal.SIGKILL]))
def test_nothing_is_left_when_the_launcher_is_ended(how, tmp_path):
    worker = (
        "import os, time; from keras_gated.distribution import workers; "
        "workers._die_with_the_launcher(); "
        f"open(os.path.join({os.fspath(tmp_path)!r}, str(os.getpid())), 'w').close(); "
        "time.sleep(100)"
    )
    command = [sys.executable, "-c", worker]
    launch = f"from keras_gated import distribution; distribution.launch(2, {command})"
    process = subprocess.Popen(
        [sys.executable, "-c", launch],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "KERAS_BACKEND": "jax"},  # which loads sooner
    )
    while len(pids := os.listdir(tmp_path)) < 2:
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(how)
    process.wait(60)
    until = time.monotonic() + 30
    while any(running(pid) for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.1)


def running(pid):
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except FileNotFoundError:
        return False
