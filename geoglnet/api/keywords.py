"""Keywords of the public functions that are settings of a configuration, or outputs by the table of layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from geoglnet.errors import ConfigError
from geoglnet.prediction.layers import LAYERS
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.vector.settings import VectorConfig

if TYPE_CHECKING:
    from geoglnet.types import StrPath

_ALIASES = {"min_area": "min_area_m2", "min_hole": "min_hole_m2", "mask": "mask_path"}  # as the command line has them


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, sorted.

    Args:
        paths: files by output.
        config: how the scene is predicted.
        vector_config: how polygons are made: all settings, or by name those that replace the model's own.
    """

    paths: dict[str, StrPath | None]
    config: PredictConfig
    vector_config: VectorConfig | Mapping[str, Any]

    @classmethod
    def of(
        cls,
        function: str,
        keywords: Mapping[str, Any],
        config: PredictConfig | None,
        vector_config: VectorConfig | Mapping[str, Any] | None,
    ) -> Request:
        """Sort keywords into outputs, settings of the prediction, and settings of polygons.

        Args:
            function: name of the public function, for the error.
            keywords: what it was called with beside its own parameters.
            config: settings that keywords are added to.
            vector_config: the same of polygons.

        Raises:
            TypeError: a keyword that nobody knows, as Python would raise it.
            ConfigError: a value that cannot be used.
        """
        outputs = {layer.keyword: name for name, layer in LAYERS.items()}
        of_prediction, of_polygons = ({field.name for field in fields(kind)} for kind in (PredictConfig, VectorConfig))
        paths: dict[str, StrPath | None] = {}
        settings: dict[str, Any] = {}
        polygons: dict[str, Any] = {}
        for keyword, value in keywords.items():
            name = _ALIASES.get(keyword, keyword)
            if keyword in outputs:
                paths[outputs[keyword]] = value
            elif name in of_prediction:
                settings[name] = value
            elif name in of_polygons:
                polygons[name] = value
            else:
                raise TypeError(f"{function}() got an unexpected keyword argument {keyword!r}")
        if not isinstance(vector_config, VectorConfig | Mapping | None):
            raise ConfigError(
                f"vector_config is a {type(vector_config).__name__}; give a VectorConfig or a mapping of its fields"
            )
        if isinstance(vector_config, VectorConfig):
            vector_config = replace(vector_config, **polygons)
        else:
            vector_config = {**(vector_config or {}), **polygons}
        return cls(paths, replace(config or PredictConfig(), **settings), vector_config)
