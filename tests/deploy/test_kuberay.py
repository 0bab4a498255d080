"""The manifests for Kubernetes: fields that KubeRay has, and sizes that a config fits."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from experiments.config.load import load_experiment
from orchestration.cluster.capacity import num_workers_that_fit
from orchestration.cluster.scaling import Scaling
from orchestration.jobs.trials import DRIVER_BYTES
from tests.deploy.deploy_files import ROOT, locked, project, read_yaml

_SCHEMA = json.loads(Path(__file__).with_name("kuberay.schema.json").read_text(encoding="utf-8"))
_FILES = ["kuberay/raycluster.yaml", "kuberay/rayjob.yaml"]
_GIB = 1024**3
# Ray takes this share of a container's memory for objects, and what is left is its `memory`.
_OBJECTS = 0.3


def _cluster(file: str) -> dict[str, Any]:
    spec: dict[str, Any] = read_yaml(file)["spec"]
    return dict(spec.get("rayClusterSpec", spec))


def _pods(file: str) -> dict[str, dict[str, Any]]:
    """The pods' specs by group, the head's as `head`."""
    cluster = _cluster(file)
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    groups["head"] = cluster["headGroupSpec"]
    return {name: group["template"]["spec"] for name, group in groups.items()}


def _resources(pod: dict[str, Any]) -> dict[str, float]:
    """What Ray finds in a pod."""
    (container,) = pod["containers"]
    limits = container["resources"]["limits"]
    memory_bytes = float(limits["memory"].removesuffix("Gi")) * _GIB * (1 - _OBJECTS)
    gpus = float(limits.get("nvidia.com/gpu", 0))
    return {"CPU": float(limits["cpu"]), "memory": memory_bytes, "GPU": gpus}


def _group(file: str, name: str) -> dict[str, Any]:
    (group,) = [one for one in _cluster(file)["workerGroupSpecs"] if one["groupName"] == name]
    return dict(group)


def _containers(file: str) -> Iterator[dict[str, Any]]:
    for pod in _pods(file).values():
        yield from pod["containers"]


@pytest.mark.parametrize("file", _FILES)
def test_every_field_is_one_of_kuberays(file: str) -> None:
    errors = [error.message for error in Draft202012Validator(_SCHEMA).iter_errors(read_yaml(file))]
    assert errors == []


@pytest.mark.parametrize("file", _FILES)
def test_a_misspelt_field_is_none_of_kuberays(file: str) -> None:
    manifest = read_yaml(file)
    manifest["spec"].get("rayClusterSpec", manifest["spec"])["autoscalingOptions"] = {}
    assert not Draft202012Validator(_SCHEMA).is_valid(manifest)


@pytest.mark.parametrize("file", _FILES)
def test_all_pods_have_one_image_whose_ray_is_the_locked_one(file: str) -> None:
    version = project()["project"]["version"]
    assert {one["image"] for one in _containers(file)} == {f"REGISTRY/bnnas:{version}"}
    assert _cluster(file)["rayVersion"] == locked()["ray"]


@pytest.mark.parametrize("file", _FILES)
def test_nobody_gets_in_without_the_token_and_no_secret_is_written_down(file: str) -> None:
    auth = _cluster(file)["authOptions"]
    assert auth["mode"] == "token"
    assert auth["secretName"]
    for container in _containers(file):
        assert [one["name"] for one in container["env"]] == ["MLFLOW_TRACKING_URI"]
        assert container["envFrom"] == [{"secretRef": {"name": "bnnas-s3"}}]


@pytest.mark.parametrize("file", _FILES)
def test_the_head_holds_no_workers_and_gpus_come_and_go(file: str) -> None:
    cluster = _cluster(file)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert cluster["enableInTreeAutoscaling"] is True
    for group in cluster["workerGroupSpecs"]:
        has_gpu = _resources(group["template"]["spec"])["GPU"] > 0
        assert has_gpu is (group["groupName"] == "gpu")
        assert group["minReplicas"] == (0 if has_gpu else 1)
        assert group["minReplicas"] <= group["maxReplicas"]


@pytest.mark.parametrize("file", _FILES)
def test_the_scheduler_is_told_what_ray_takes(file: str) -> None:
    for container in _containers(file):
        assert container["resources"]["requests"] == container["resources"]["limits"]


@pytest.mark.parametrize(
    ("file", "pod"), [("kuberay/raycluster.yaml", "head"), ("kuberay/rayjob.yaml", "drivers")]
)
def test_where_drivers_run_there_is_room_for_one_for_every_gpu(file: str, pod: str) -> None:
    memory_bytes = _resources(_pods(file)[pod])["memory"]
    assert memory_bytes >= DRIVER_BYTES * _group(file, "gpu")["maxReplicas"]


def test_the_job_asks_for_what_its_cluster_can_give() -> None:
    file = "kuberay/rayjob.yaml"
    spec = read_yaml(file)["spec"]
    program, command, config, *words = shlex.split(spec["entrypoint"])
    assert (program, command) == ("bnnas", "run")
    assert set(words[::2]) == {"--set"}
    quickstart = ROOT / "experiments/configs/ablation_quickstart.yaml"
    shared = load_experiment(quickstart, words[1::2]).shared
    assert "://" in shared.storage.path

    scaling = Scaling(
        use_gpu=shared.cluster.use_gpu, cpus_per_worker=shared.cluster.cpus_per_worker
    )
    group = _group(file, "gpu")
    fitting = num_workers_that_fit(
        [_resources(group["template"]["spec"])], scaling.resources_per_worker
    )
    assert fitting * group["maxReplicas"] == shared.cluster.cluster_workers

    # The driver's node has the file, and at the beginning it alone has what the driver needs.
    (mount,) = _pods(file)["drivers"]["containers"][0]["volumeMounts"]
    (volume,) = _pods(file)["drivers"]["volumes"]
    assert mount["name"] == volume["name"]
    assert Path(config).parent == Path(mount["mountPath"])
    present = [one for one in _cluster(file)["workerGroupSpecs"] if one["minReplicas"] > 0]
    assert [one["groupName"] for one in present] == ["drivers"]
    assert 0 < spec["entrypointNumCpus"] <= _resources(_pods(file)["drivers"])["CPU"]
