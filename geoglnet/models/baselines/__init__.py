"""The paper's baselines (Tables 3, 5 and 7) and today's choices: networks that see patches, or overviews.

``fcn8s``, ``segnet`` and ``icnet`` are our own, written after their papers; the others are segmentation-models-pytorch's.
"""
