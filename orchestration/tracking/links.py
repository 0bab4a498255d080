"""Addresses of MLflow's own pages: an experiment's cells, and those of its newest sweep compared.

MLflow takes the runs that are compared from the address. The filter, order and columns of a list
it keeps in the browser, or, where somebody shares a list with others, in a tag of the experiment
that the address names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from orchestration.tracking.tracker import PARENT, STAGE, Tracker, TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

_IS_CELL = f"tags.`{STAGE}` = 'cell'"
_MOST_COMPARED = 100  # an address has an end
_SHARED = "mlflow.sharedViewState."
_COLUMNS = [
    *(f"metrics.`{name}`" for name in ("top1", "val_top1", "flops", "params", "device_hours")),
    *(f"params.`{name}`" for name in ("trainable", "indicator", "epochs", "seed", "winner")),
]


def compare(tracker: Tracker, run_ids: Sequence[str]) -> str | None:
    """The page that compares some runs, after the server's address; None where it is away."""
    try:
        with tracker.session():
            return _compare_page(tracker.experiment_id(), run_ids)
    except TrackingError:
        return None


def _compare_page(experiment_id: str, run_ids: Sequence[str]) -> str:
    query = urlencode({"runs": json.dumps(run_ids), "experiments": json.dumps([experiment_id])})
    return f"/#/compare-runs?{query}"


def _cells_page(client: MlflowClient, experiment_id: str) -> str:
    """The list of an experiment's cells, the best test top-1 first; shares it where it is not."""
    view = {
        "searchFilter": _IS_CELL,
        "orderByKey": "metrics.`top1`",
        "orderByAsc": False,
        "selectedColumns": _COLUMNS,
    }
    text = json.dumps(view, sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    if _SHARED + key not in client.get_experiment(experiment_id).tags:
        client.set_experiment_tag(experiment_id, _SHARED + key, text)
    return f"/#/experiments/{experiment_id}/runs?viewStateShareKey={key}"


def pages(tracker: Tracker) -> dict[str, str]:
    """Title → address after the server's, of what there is to see.

    Raises:
        TrackingError: the server is away or refuses.
    """
    with tracker.session() as client:
        experiment = client.get_experiment_by_name(tracker.experiment)
        if experiment is None:
            return {}
        experiment_id = experiment.experiment_id
        shown = {"The cells, the best first": _cells_page(client, experiment_id)}
        sweeps = client.search_runs(
            [experiment_id],
            filter_string=f"tags.`{STAGE}` = 'sweep'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
        for sweep in sweeps:
            cells = client.search_runs(
                [experiment_id],
                filter_string=f"tags.`{PARENT}` = '{sweep.info.run_id}' and {_IS_CELL}",
                max_results=_MOST_COMPARED,
            )
            if len(cells) > 1:
                run_ids = [run.info.run_id for run in reversed(cells)]
                title = f"The cells of {sweep.info.run_name} compared"
                shown[title] = _compare_page(experiment_id, run_ids)
    return shown
