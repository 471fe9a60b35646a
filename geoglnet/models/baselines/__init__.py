"""The paper's baselines (Tables 3, 5 and 7) and today's choices, each in the place of one branch of a GLNet.

``fcn8s``, ``segnet`` and ``icnet`` are our own, written after their papers; the others are segmentation-models-pytorch's. In
the local branch's place they see patches ("patch inference"), in the global branch's place the overview, which may be the
region at its full size ("global inference").
"""
