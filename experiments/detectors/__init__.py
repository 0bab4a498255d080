"""Finished detectors, used: detections on images, export, a config for MMDetection's own tools.

Nothing here imports MMDetection before it is needed.
"""
