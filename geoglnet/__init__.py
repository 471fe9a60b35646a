"""geoglnet: land-cover and building maps from scenes of any size, with GLNet (Chen et al., CVPR 2019).

Public names are resolved on first use, so that ``import geoglnet`` loads neither torch nor GDAL. They are those of ``__all__``;
everything else may change without notice. A public name or parameter that is to go warns with ``DeprecationWarning`` for at
least one minor version first, and the warning names what to use instead.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names for type checkers and editors; a test compares the two
    from geoglnet.api.adaptation import Adaptation as Adaptation
    from geoglnet.api.adaptation import adapt as adapt
    from geoglnet.api.demonstration import demo as demo
    from geoglnet.api.model import Model as Model
    from geoglnet.api.model import get_model as get_model
    from geoglnet.api.model import load_model as load_model
    from geoglnet.api.polygons import PolygonLayer as PolygonLayer
    from geoglnet.api.polygons import vectorize as vectorize
    from geoglnet.api.prediction import Prediction as Prediction
    from geoglnet.api.prediction import estimate as estimate
    from geoglnet.api.prediction import iter_blocks as iter_blocks
    from geoglnet.api.prediction import predict as predict
    from geoglnet.api.report import Report as Report
    from geoglnet.api.session import options as options
    from geoglnet.api.training import Scores as Scores
    from geoglnet.api.training import Training as Training
    from geoglnet.api.training import evaluate as evaluate
    from geoglnet.api.training import train as train
    from geoglnet.config import Branches as Branches
    from geoglnet.config import ModelConfig as ModelConfig
    from geoglnet.config import RegionConfig as RegionConfig
    from geoglnet.config import Sharing as Sharing
    from geoglnet.errors import GeoglnetError as GeoglnetError
    from geoglnet.export.programs import export_model as export_model
    from geoglnet.legend import Legend as Legend
    from geoglnet.models.checkpoint import load_checkpoint as load_checkpoint
    from geoglnet.models.foreign.importing import import_model as import_model
    from geoglnet.models.glnet import GLNet as GLNet
    from geoglnet.prediction.predict_config import PredictConfig as PredictConfig
    from geoglnet.raster.scene import open_scene as open_scene
    from geoglnet.vector.settings import VectorConfig as VectorConfig
    from geoglnet.vector.values import RasterValues as RasterValues

    __version__: str

_HOME = {
    "Adaptation": "geoglnet.api.adaptation",
    "Branches": "geoglnet.config",
    "GLNet": "geoglnet.models.glnet",
    "GeoglnetError": "geoglnet.errors",
    "Legend": "geoglnet.legend",
    "Model": "geoglnet.api.model",
    "ModelConfig": "geoglnet.config",
    "PolygonLayer": "geoglnet.api.polygons",
    "PredictConfig": "geoglnet.prediction.predict_config",
    "Prediction": "geoglnet.api.prediction",
    "RasterValues": "geoglnet.vector.values",
    "RegionConfig": "geoglnet.config",
    "Report": "geoglnet.api.report",
    "Scores": "geoglnet.api.training",
    "Sharing": "geoglnet.config",
    "Training": "geoglnet.api.training",
    "VectorConfig": "geoglnet.vector.settings",
    "adapt": "geoglnet.api.adaptation",
    "demo": "geoglnet.api.demonstration",
    "estimate": "geoglnet.api.prediction",
    "evaluate": "geoglnet.api.training",
    "export_model": "geoglnet.export.programs",
    "get_model": "geoglnet.api.model",
    "import_model": "geoglnet.models.foreign.importing",
    "iter_blocks": "geoglnet.api.prediction",
    "load_checkpoint": "geoglnet.models.checkpoint",
    "load_model": "geoglnet.api.model",
    "open_scene": "geoglnet.raster.scene",
    "options": "geoglnet.api.session",
    "predict": "geoglnet.api.prediction",
    "train": "geoglnet.api.training",
    "vectorize": "geoglnet.api.polygons",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("geoglnet")  # which loads a parser of mails
    if name not in _HOME:
        raise AttributeError(f"module 'geoglnet' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
