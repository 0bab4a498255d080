"""Detection with searched networks: MMDetection's side of the house.

Takes an architecture from `nas` and its retrained weights into an EfficientDet-style detector
(BN-NAS, Section 4.4, Table 3). Importing this package registers with MMDetection, as soon as that
is imported,

- `SearchedBackbone` and `TorchvisionBackbone`: features at strides 8, 16 and 32;
- `BiFPN`, the neck, and `EfficientDetHead`;
- `EfficientDet`, which puts them together;
- `SeededCocoDataset`, `EpochSampler` and two hooks, with which a training that was interrupted is
  the one that was not, and `UnroundedCocoMetric`,

so that an ordinary config uses them with `custom_imports = dict(imports=["detection"])`; the
configs of Table 3 lie under `configs/`. Where mmcv has no compiled operators, what answers for them
is installed, so this has to be imported before `mmcv.ops`. Everything else is MMDetection's own and
needs the `detection` extra; `detection.coco`, data in COCO's format, does without.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from importlib import import_module
from types import ModuleType

import wrapt

_EXTRA = ("mmcv", "mmdet", "mmengine", "pycocotools")
_PACKAGES = ("mmdet.models", "mmdet.datasets", "mmdet.evaluation")
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


@functools.cache
def register() -> None:
    """Make MMDetection know this package's modules; once, and after that at no cost.

    Raises:
        ImportError: a package of the `detection` extra is missing.
    """
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


@wrapt.when_imported("mmcv")
def _answer_for_operators(module: object) -> None:
    from detection.mmcv_ops import install_operators

    install_operators()


_imported: set[str] = set()


def _register_after(module: ModuleType) -> None:
    """Register once no package of MMDetection is half imported."""
    _imported.add(module.__name__)
    if all(name in _imported for name in _PACKAGES if name in sys.modules):
        register()


if "mmengine" in sys.modules:  # such as by `custom_imports` of a config
    register()
else:  # a process that only reads annotation files pays nothing for it
    for _package in _PACKAGES:
        wrapt.register_post_import_hook(_register_after, _package)
