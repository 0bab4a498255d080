"""Data sets in COCO's format: one made on the spot, checks, metrics and pictures of any.

Nothing here imports torch or MMDetection, so that the process which starts a detection job can
tell what is wrong with its data before any worker exists.
"""
