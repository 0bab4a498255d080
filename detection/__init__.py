"""Detection with searched networks: MMDetection's side of the house.

Takes an architecture from ``nas`` and its retrained weights into an EfficientDet-style detector
(BN-NAS, Section 4.4, Table 3): the searched backbone with taps at strides 8, 16 and 32, the
BiFPN and the EfficientDet head, registered in MMDetection's model registry, and evaluation with
COCO's metrics. Needs the ``detection`` extra; importing this package alone does not.
"""
