"""Everything geoglnet raises on purpose.

A message says what is wrong, the value found, and the way out. Each class also inherits the builtin that a caller
would guess, so that ``except FileNotFoundError`` works without knowing us::

    GeoglnetError
    ├── ConfigError (ValueError)          a setting or argument that cannot be used
    │   ├── LegendError                   class names, colors or values that do not fit
    │   ├── ResolutionError               a scene whose pixels are too large for the model
    │   └── CapacityError                 a size that the device's memory is too small for
    ├── SceneError (OSError)              a raster that cannot be read
    │   ├── SceneNotFoundError (FileNotFoundError)
    │   └── BandsError (ValueError)       bands that the model cannot take
    ├── CheckpointError (ValueError)      a model file that is truncated, foreign or too new
    ├── ModelNotFoundError (LookupError)  neither a shipped model's name nor a file
    ├── DatasetError (ValueError)         training data that cannot be used
    ├── OutputError (OSError)             an output that cannot be written
    │   └── OutputExistsError (FileExistsError)
    ├── TasksFailedError (RuntimeError)   tasks of a job that cannot be computed, whoever tries
    ├── MemoryLimitError (MemoryError)    more than may be read at once
    └── Canceled                         the user asked to stop
"""


class GeoglnetError(Exception):
    """Root of all errors that geoglnet raises on purpose; each also is the builtin that one would guess.

    >>> import geoglnet
    >>> try:
    ...     geoglnet.predict("nowhere.tif", "labels.tif", overwrite=True)
    ... except geoglnet.GeoglnetError as error:
    ...     print(type(error).__name__, isinstance(error, FileNotFoundError), error)
    SceneNotFoundError True nowhere.tif does not exist; check the path
    """


class ConfigError(GeoglnetError, ValueError):
    """A setting or argument that cannot be used."""


class LegendError(ConfigError):
    """Class names, colors or values that do not fit together."""


class ResolutionError(ConfigError):
    """A raster whose pixels are too large for the resolution that it is to be read at.

    Args:
        message: what is wrong.
        pixel_size_m: of the raster.
    """

    def __init__(self, message: str, pixel_size_m: float = 0.0) -> None:
        super().__init__(message, pixel_size_m)
        self.pixel_size_m = pixel_size_m

    def __str__(self) -> str:
        return str(self.args[0])


class CapacityError(ConfigError):
    """A size of image that the device's memory is too small for."""


class SceneError(GeoglnetError, OSError):
    """A raster that cannot be opened or read."""


class SceneNotFoundError(SceneError, FileNotFoundError):
    """No file or URL under the given name."""


class BandsError(SceneError, ValueError):
    """Bands that the model cannot take."""


class CheckpointError(GeoglnetError, ValueError):
    """A model file that is truncated, not ours, or written by a newer version."""


class ModelNotFoundError(GeoglnetError, LookupError):
    """Neither the name of a shipped model nor a model file."""


class DatasetError(GeoglnetError, ValueError):
    """Training or evaluation data that cannot be used."""


class OutputError(GeoglnetError, OSError):
    """A file that cannot be written: folder missing, disk full, no permission."""


class OutputExistsError(OutputError, FileExistsError):
    """The output exists and overwriting was not asked for."""


class TasksFailedError(GeoglnetError, RuntimeError):
    """Tasks of a job that cannot be computed, because the scene is damaged there or processes die; all others are finished."""


class MemoryLimitError(GeoglnetError, MemoryError):
    """More would be read into memory at once than ``geoglnet.options`` or the caller allows; nothing was read."""


class Canceled(GeoglnetError):  # noqa: N818 - a request, not a fault
    """The user asked to stop; nothing half-written is left under a final name."""
