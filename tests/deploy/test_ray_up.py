"""`ray up`: a file that Ray's own schema accepts, with bounds that agree with each other."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import ray

from orchestration.cluster.capacity import num_workers_that_fit
from orchestration.cluster.scaling import Scaling
from tests.deploy.deploy_files import project, read_yaml

_SCHEMA = Path(ray.__file__).with_name("autoscaler") / "ray-schema.json"


def test_rays_own_schema_accepts_it() -> None:
    schema = json.loads(_SCHEMA.read_text(encoding="utf-8"))
    config = read_yaml("ray-up.yaml")
    jsonschema.validate(config, schema)
    assert not jsonschema.Draft7Validator(schema).is_valid(config | {"max_worker": 8})


def test_it_grows_within_bounds_from_a_head_that_holds_no_workers() -> None:
    config = read_yaml("ray-up.yaml")
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == head["max_workers"] == 0
    assert [one["min_workers"] for one in types.values()] == [0]
    assert sum(one["max_workers"] for one in types.values()) == config["max_workers"]
    worker = Scaling(use_gpu=True, cpus_per_worker=8).resources_per_worker
    assert num_workers_that_fit([types["gpu"]["resources"]], worker) == 1


def test_every_process_wants_the_token_and_reads_it_from_the_file_that_is_sent() -> None:
    config = read_yaml("ray-up.yaml")
    options = dict(
        option.split(" ", 1)[1].split("=", 1)
        for option in config["docker"]["run_options"]
        if option.startswith("--env ")
    )
    assert options["RAY_AUTH_MODE"] == "token"
    assert options["RAY_AUTH_TOKEN_PATH"] in config["file_mounts"]


def test_the_image_is_the_projects() -> None:
    version = project()["project"]["version"]
    assert read_yaml("ray-up.yaml")["docker"]["image"] == f"REGISTRY/bnnas:{version}"
