"""What networks of torchvision cost, which Table 2 of BN-NAS compares with.

    python -m experiments.benchmarks.count_networks

Prints what `experiments/report/published.yaml` has beside four of its rows.

FLOPs are multiply-adds of convolutions and linear layers, as in `nas.cost`. Nothing is computed:
the networks are built on PyTorch's meta device, where tensors have a shape and no content.
"""

from __future__ import annotations

from typing import Any, NamedTuple

RESOLUTION = 224

# The name in Table 2, torchvision's name, and its arguments.
NETWORKS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("ResNet50", "resnet50", {}),
    ("MobileNetV2(1.4x)", "mobilenet_v2", {"width_mult": 1.4}),
    ("ShuffleNetV2(2x)", "shufflenet_v2_x2_0", {}),
    ("EfficientNet-B0(+SE)", "efficientnet_b0", {}),
)


class Cost(NamedTuple):
    """Multiply-adds of one image, and parameters."""

    flops: int
    params: int


def count_network(model: str, options: dict[str, Any]) -> Cost:
    """Cost of one of torchvision's classifiers."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from torchvision.models import get_model

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = get_model(model, **options).eval()
        network(torch.empty(1, 3, RESOLUTION, RESOLUTION))
    # PyTorch counts a multiply-add as two operations, and only those of convolutions and products.
    num_params = sum(parameter.numel() for parameter in network.parameters())
    return Cost(counter.get_total_flops() // 2, num_params)


def main() -> None:
    """Print the costs."""
    for name, model, options in NETWORKS:
        cost = count_network(model, options)
        print(f"{name}: counted_params: {cost.params}, counted_flops: {cost.flops}")


if __name__ == "__main__":
    main()
