"""Run one cell for real, with the random baseline beside it.

The baseline's architectures are known from the start, so their retraining fills the cores that the
chain leaves idle. Where every stage is in the store, Ray is not started at all.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from experiments.config.places import scaling
from experiments.plan.cell import CellPlan
from experiments.plan.graph import list_stages
from experiments.run.cell import CellResult, CellRun, keep_figures, make_chain
from experiments.run.detection import detect_found
from experiments.run.display import Display
from experiments.run.provenance import provenance
from experiments.run.workbench import check_places, connected, open_setting, source_tags
from experiments.stages.detect import detection_place
from experiments.stages.retrain import make_retrain
from experiments.stages.setting import Setting
from orchestration.cluster import capacity
from orchestration.store.stage_store import StageStore
from orchestration.tracking.stage_runs import Done
from orchestration.tracking.tracker import CELL, Tracker


def run_cell(plan: CellPlan, tracker: Tracker, display: Display) -> CellResult:
    """Have or make every stage of the cell.

    Raises ValueError (a wrong request) before anything is started where that can be known, and
    `JobError` when a stage fails for good; what was finished by then stays in the store.
    """
    config = plan.config
    check_places(config, tracker)
    place = None if config.detect is None else detection_place(config)
    store = StageStore(config.storage.path)
    with ExitStack() as stack:
        num_at_once = 1
        if any(one.record is None for one in list_stages(plan, store).stages):
            # Now, so that a cluster that will not do is an error before any run is begun.
            stack.enter_context(connected(config, display.say))
            num_at_once = capacity.num_jobs_at_once(scaling(config))
        code = provenance()
        tags = source_tags(code)
        run = CellRun.of(plan, tracker, tags=tags)
        run_id = run.start()
        stack.enter_context(run.marked())
        setting = stack.enter_context(
            open_setting(
                config,
                tracker,
                display,
                code=code,
                parent_run_id=run_id,
                tags={CELL: config.name, **tags},
            )
        )
        stack.enter_context(display.live())
        chain, baseline = _make_all(plan, setting, num_at_once)
        detected = None
        if place is not None:
            detected = detect_found(plan, chain[-1], setting, place)
        result = CellResult(
            plan=plan,
            chain=chain,
            baseline=baseline,
            run_id=run_id,
            figures=keep_figures(config, [*chain, *([] if detected is None else [detected])]),
            detected=detected,
        )
        run.show(result)
        return result


def _make_all(
    plan: CellPlan, setting: Setting, num_at_once: int
) -> tuple[tuple[Done, ...], tuple[Done, ...]]:
    """The chain and the baseline, so many jobs at once."""
    pool = ThreadPoolExecutor(num_at_once)
    main = pool.submit(make_chain, plan, setting)
    others = [pool.submit(make_retrain, stage, setting) for stage in plan.baseline]
    running_jobs_end = True
    try:
        return main.result(), tuple(other.result() for other in others)
    except KeyboardInterrupt:
        running_jobs_end = False  # they go on from their checkpoints next time
        raise
    finally:  # after a failure, what has not begun does not begin
        pool.shutdown(wait=running_jobs_end, cancel_futures=True)
