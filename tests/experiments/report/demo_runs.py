"""Runs as `make demo` leaves them, made up: a sweep of twelve cells and a detector."""

from __future__ import annotations

import io
from collections.abc import Sequence

import PIL.Image

from orchestration.tracking.reader import TrackedRun
from tests.experiments.made_up_runs import MadeUpRuns, space_of

HISTORY = [[[0.1 * epoch, 0.5, 0.2]] * 4 for epoch in range(1, 6)]


class DemoRuns(MadeUpRuns):
    """`arch` is everybody's; with two seeds there are twice as many cells."""

    def __init__(self, arch: str = "0 3 0 3 0 1 0 1", seeds: Sequence[int] = (0,)) -> None:
        super().__init__()
        self.arch = arch
        self.add("demo", "sweep", {"space": "micro", "data": "digits", "winner": "bn-bn-10-0"})
        self.change(-1, "metrics", random_baseline=0.93, random_baseline_std=0.01, random_top1=0.8)
        for trainable in ("all", "bn"):
            for epochs in (1, 3, 10):
                for seed in seeds:
                    self._cells(trainable, epochs, seed)
        params = {"detect.data.name": "digit_scenes", "backbone.arch": arch}
        metrics = {"coco/bbox_mAP": 0.3, "coco/bbox_mAP_50": 0.5, "flops": 2.7e9, "params": 4.1e6}
        costs = {f"{c}_{p}": 1e6 for c in ("flops", "params") for p in ("backbone", "neck", "head")}
        self.add("detector", "detect", params, metrics | costs)
        for number, run in enumerate(self.tracked):
            source = {"mlflow.source.name": f"bnnas run {'folder/' * 30}s.yaml"}
            if run.kind not in ("sweep", "cell"):
                source["bnnas.fingerprint"] = f"{number:064x}"
            self.change(number, "tags", **source)

    def _cells(self, trainable: str, epochs: int, seed: int) -> None:
        end = f"{trainable}-{epochs}-{seed}"
        space = space_of(4, [(3, 3), (5, 3), (7, 3)])
        supernet = self.scored_supernet(
            f"supernet-{end}", space, HISTORY, trainable=trainable, seed=seed, epochs=epochs
        )
        for indicator, search in (("accuracy", self.accuracy_search), ("bn", self.search)):
            self.cell(
                f"{trainable}-{indicator}-{epochs}-{seed}",
                seed,
                {
                    "supernet": supernet,
                    "search": search(f"search-{indicator}-{end}", seed, supernet),
                    "retrain": self.retrain(f"retrain-{indicator}-{end}", seed),
                },
                indicator=indicator,
                trainable=trainable,
                epochs=epochs,
                parent="demo",
            )
            self.change(-1, "params", winner=self.arch)

    def figures(self, run: TrackedRun, prefix: str) -> list[bytes]:
        png = io.BytesIO()
        PIL.Image.new("RGB", (128, 128), "gray").save(png, "png")
        return [png.getvalue()] * 8
