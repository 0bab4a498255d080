"""Detection with searched networks: MMDetection's side of the house.

Takes an architecture from `nas` and its retrained weights into an EfficientDet-style detector
(BN-NAS, Section 4.4, Table 3). Importing this package installs the stand-in for mmcv's compiled
operators, where they are missing, and registers with MMDetection

- `SearchedBackbone` and `TorchvisionBackbone`: features at strides 8, 16 and 32;
- `BiFPN`, the neck, and `EfficientDetHead`;
- `EfficientDet`, which puts them together;
- `SeededCocoDataset`, `EpochSampler` and two hooks, with which a training that was interrupted is
  the one that was not, and `UnroundedCocoMetric`,

so that an ordinary config uses them with `custom_imports = dict(imports=["detection"])`; the
configs of Table 3 lie under `configs/`. Everything else is MMDetection's own. Needs the `detection`
extra, and has to be imported before anything imports `mmcv.ops`.
"""

from __future__ import annotations

import contextlib
import io
from importlib import import_module

_EXTRA = ("mmcv", "mmdet", "mmengine", "pycocotools")
_REGISTERING = (
    "backbone",
    "bifpn",
    "coco_metric",
    "efficientdet",
    "head",
    "hooks",
    "reproducible",
    "torchvision_backbone",
)


def _register() -> None:
    for name in _EXTRA:
        try:
            import_module(name)
        except ImportError as error:
            raise ImportError(
                f"detection needs MMDetection, and {name} cannot be imported ({error}): "
                f"pip install 'bnnas[detection]'.",
                name=name,
            ) from error
    from detection.mmcv_ops import install_operators

    install_operators()
    with contextlib.redirect_stdout(io.StringIO()):  # mmdet prints which optional parts are absent
        for name in _REGISTERING:
            import_module(f"detection.{name}")


_register()
