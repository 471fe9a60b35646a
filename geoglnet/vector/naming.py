"""Names of files as pyogrio takes them: it reads ``;``, ``!`` and ``?`` as parts of a URL, wherever they stand."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geoglnet.raster.files import is_remote
from geoglnet.types import StrPath

_PARSED = re.compile(r"[!;?\x00-\x1f]|^//")


@contextmanager
def plain_name(path: StrPath) -> Iterator[str]:
    """A name that means this file and nothing else, for as long as the context lasts.

    It is the absolute path, unless pyogrio would take that apart: then a link in a folder of its own leads there. URLs and
    GDAL's virtual paths mean what they say. Windows' names with a drive are taken as they are.
    """
    name = os.fspath(path)
    whole = Path(name).absolute()
    if is_remote(name):
        yield name
    elif os.name == "nt" or not _PARSED.search(str(whole)):
        yield str(whole)
    else:
        with tempfile.TemporaryDirectory(prefix="geoglnet-") as folder:
            if not _PARSED.search(whole.name):
                Path(folder, "at").symlink_to(whole.parent, target_is_directory=True)
                yield str(Path(folder, "at", whole.name))
                return
            # Shapefiles and others consist of several files: all that begin with the name's stem.
            for beside in whole.parent.iterdir():
                if beside.name.startswith(whole.stem):
                    Path(folder, f"named{beside.name.removeprefix(whole.stem)}").symlink_to(beside)
            yield str(Path(folder, f"named{whole.suffix}"))
