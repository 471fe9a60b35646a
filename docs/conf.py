"""The documentation site: ``sphinx-build -W --keep-going docs site``; notebooks are executed, on generated scenes.

``GEOGLNET_DOCS_NOTEBOOKS=off`` builds it without running them.
"""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
TUTORIALS = HERE / "tutorials"  # copies, ignored by git: Sphinx reads nothing above its own folder

shutil.rmtree(TUTORIALS, ignore_errors=True)
TUTORIALS.mkdir()
for notebook in sorted((HERE.parent / "examples").glob("*.ipynb")):
    shutil.copy(notebook, TUTORIALS)

project = "geoglnet"
author = "the geoglnet developers"
version = release = installed_version("geoglnet")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click", "sphinx_copybutton"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

nb_execution_mode = os.environ.get("GEOGLNET_DOCS_NOTEBOOKS", "force")
nb_execution_raise_on_error = True
nb_execution_in_temp = True  # what notebooks write goes with them
nb_execution_timeout = 3000
nb_merge_streams = True
os.environ["GEOGLNET_PROGRESS"] = "0"  # widgets of bars mean nothing on a page
os.environ.pop("MPLBACKEND", None)  # figures come through the kernel's own
os.environ.pop("GEOGLNET_SCENE", None)  # pages show generated scenes only

autodoc_member_order = "bysource"
python_maximum_signature_line_length = 100
python_use_unqualified_type_names = True
smartquotes = False  # options begin with two dashes
autodoc_default_options = {"members": True, "inherited-members": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"geoglnet {version}"
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
