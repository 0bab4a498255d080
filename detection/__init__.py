"""Detection with searched networks: MMDetection's side of the house.

Takes an architecture from `nas` and its retrained weights into an EfficientDet-style detector
(BN-NAS, Section 4.4, Table 3). Importing this package registers with MMDetection, as soon as that
is imported,

- `SearchedBackbone` and `TorchvisionBackbone`: features at strides 8, 16 and 32;
- `BiFPN`, the neck, and `EfficientDetHead`;
- `EfficientDet`, which puts them together;
- `SeededCocoDataset`, `EpochSampler` and two hooks, with which an interrupted training equals an
  uninterrupted one, and `UnroundedCocoMetric`,

so that an ordinary config uses them with `custom_imports = dict(imports=["detection"])`; the
configs of Table 3 lie under `configs/`. Where mmcv has no compiled operators, replacements are
installed, so this has to be imported before `mmcv.ops`. Everything else is MMDetection's own and
needs the `detection` extra; `detection.coco`, data in COCO's format, does without.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType

import wrapt

# What `detection.training` leaves in a checkpoint: the detector's state dict, the detections of the
# last evaluation in COCO's results format, and the mean losses of every interval.
DETECTOR_FILE, DETECTIONS_FILE, LOSSES_FILE = "detector.pt", "detections.json", "losses.json"

_EXTRA = ("mmcv", "mmdet", "mmengine", "pycocotools")
_PACKAGES = ("mmdet.models", "mmdet.datasets", "mmdet.evaluation")
_REGISTERING = ("backbone", "bifpn", "coco_metric", "efficientdet", "head", "reproducible")


class MissingExtraError(ImportError, ValueError):
    """A package of the `detection` extra cannot be imported."""


@functools.cache
def register() -> None:
    """Make MMDetection know this package's modules; once, and after that at no cost.

    Raises:
        MissingExtraError: a package of the `detection` extra is missing.
    """
    for name in _EXTRA:
        try:
            import_module(name)
        except ImportError as error:
            raise MissingExtraError(
                f"detection needs MMDetection, and {name} cannot be imported ({error}): "
                f"pip install 'bnnas[detection]'.",
                name=name,
            ) from error
    _install_operators()
    with contextlib.redirect_stdout(io.StringIO()):  # mmdet prints which optional parts are absent
        for name in _REGISTERING:
            import_module(f"detection.{name}")


@contextlib.contextmanager
def mmdetection() -> Iterator[None]:
    """Use MMDetection: registered, and without its prints and warnings.

    After an error, what was printed goes to standard error. Raises as `register`.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()) as printed:
        warnings.simplefilter("ignore")
        try:
            register()
            yield
        except Exception:
            sys.stderr.write(printed.getvalue())
            raise


@wrapt.when_imported("mmcv")
def _install_operators(module: ModuleType | None = None) -> None:
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
