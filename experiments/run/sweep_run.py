"""The MLflow run of a sweep: its grid as params, its table as the note, its winner as a model."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

from experiments.config.load import dump_config
from experiments.config.places import local_folder
from experiments.config.sweep import Sweep
from experiments.plan.sweep import SweepPlan
from experiments.run.sweep_result import SweepResult
from orchestration.tracking.group_run import GroupRun
from orchestration.tracking.models import register_winner
from orchestration.tracking.tracker import STAGE, Tracker, TrackingError

_log = logging.getLogger(__name__)


class SweepRun(GroupRun):
    """The run that the cells' runs are nested under."""

    @classmethod
    def of(cls, plan: SweepPlan, tracker: Tracker, tags: Mapping[str, str]) -> SweepRun:
        """The run of a sweep."""
        return cls(
            name=plan.sweep.name,
            tracker=tracker,
            tags={STAGE: "sweep", **tags},
            params=plan.sweep.params,
            group=plan.group,
        )

    def show(self, result: SweepResult) -> None:
        """End it with what was found, and register the winner's network."""
        winner = result.winner
        self._register(result)
        self.finish(
            "FAILED" if result.failures else "FINISHED",
            metrics=result.metrics,
            params={} if winner is None else {"winner": winner.plan.config.name},
            artifacts=_draw(result),
            parts=[record.fingerprint for record in result.records],
            tags={"mlflow.note.content": f"{self._compare_link(result)}{result.summary()}"},
        )

    def _register(self, result: SweepResult) -> None:
        name, winner = result.plan.sweep.name, result.winner
        if winner is None or winner.retrain_run_id is None:
            return
        try:
            register_winner(
                self.tracker,
                name=name,
                run_id=winner.retrain_run_id,
                description=f"Found by the cell {winner.plan.config.name} of the sweep {name}.",
            )
        except TrackingError as error:
            _log.warning("The winner of %s is not registered in MLflow: %s", name, error)

    def _compare_link(self, result: SweepResult) -> str:
        """To MLflow's own page that compares the cells, in Markdown; empty while it is away."""
        run_ids = [row.run_id for row in result.cells if row.run_id is not None]
        try:
            with self.tracker.session():
                experiment_id = self.tracker.experiment_id()
        except TrackingError:
            return ""
        query = urlencode({"runs": json.dumps(run_ids), "experiments": json.dumps([experiment_id])})
        return f"[Compare the cells](#/compare-runs?{query})\n\n"


def figures_folder(sweep: Sweep) -> Path:
    """Where this machine keeps the sweep's figures."""
    return local_folder(sweep.storage) / "figures" / sweep.name


def _draw(result: SweepResult) -> Path:
    """The figure of the ablation and the resolved cells."""
    from experiments.figures.style import save_figure
    from experiments.report.ablation import ablation_figure, ablation_of

    folder = figures_folder(result.plan.sweep)
    folder.mkdir(parents=True, exist_ok=True)
    if any(row.chain for row in result.cells):
        save_figure(ablation_figure(ablation_of(result)), folder / "ablation.png")
    for cell in result.plan.sweep.cells:
        (folder / f"{cell.name}.yaml").write_text(dump_config(cell), encoding="utf-8")
    return folder
