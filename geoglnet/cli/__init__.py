"""Command line: ``geoglnet VERB``, one file per verb.

Verbs import what they call inside the function that calls it, so that ``geoglnet --help`` starts without torch or GDAL.
"""
