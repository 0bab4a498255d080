"""Addresses of MLflow's own pages: an experiment's cells, and those of its newest sweep compared.

MLflow takes filter and order of a list of runs, and the runs that are compared, from the address;
which columns a list has, it keeps in the browser.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

from orchestration.tracking.tracker import PARENT, STAGE, Tracker

_IS_CELL = f"tags.`{STAGE}` = 'cell'"
_MOST_COMPARED = 100  # an address has an end


def compare_page(experiment_id: str, run_ids: Sequence[str]) -> str:
    """The page that compares some runs of an experiment, after the server's address."""
    query = urlencode({"runs": json.dumps(run_ids), "experiments": json.dumps([experiment_id])})
    return f"/#/compare-runs?{query}"


def cells_page(experiment_id: str) -> str:
    """The list of an experiment's cells, the best test top-1 first, after the server's address."""
    query = {
        "searchFilter": _IS_CELL,
        "orderByKey": "metrics.`top1`",
        "orderByAsc": "false",
    }
    return f"/#/experiments/{experiment_id}/runs?{urlencode(query, quote_via=quote)}"


def pages(tracker: Tracker) -> dict[str, str]:
    """Title → address after the server's, of what there is to see.

    Raises:
        TrackingError: the server is away or refuses.
    """
    with tracker.session() as client:
        experiment_id = tracker.experiment_id()
        shown = {"The cells, the best first": cells_page(experiment_id)}
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
                shown[title] = compare_page(experiment_id, run_ids)
    return shown
