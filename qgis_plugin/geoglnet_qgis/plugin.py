"""The plugin object: adds the provider and the settings page, and takes them away again."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QCoreApplication

from .options_page import OptionsPageFactory
from .provider import GeoglnetProvider
from .translation import install_translator


class GeoglnetPlugin:
    """What QGIS makes of the plugin.

    Args:
        iface: QGIS's interface; ``None`` in ``qgis_process``.
    """

    def __init__(self, iface: Any) -> None:
        self._iface = iface
        self._provider: GeoglnetProvider | None = None
        self._options: OptionsPageFactory | None = None
        self._translator = install_translator()

    def initProcessing(self) -> None:
        """Register the provider; ``qgis_process``, which has no windows, calls only this."""
        self._provider = GeoglnetProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        """Register the provider and the options page; called by the desktop."""
        self.initProcessing()
        self._options = OptionsPageFactory(self._refresh)
        self._iface.registerOptionsWidgetFactory(self._options)

    def unload(self) -> None:
        if self._options is not None:
            self._iface.unregisterOptionsWidgetFactory(self._options)
            self._options = None
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)
            self._provider = None
        if self._translator is not None:
            QCoreApplication.removeTranslator(self._translator)
            self._translator = None

    def _refresh(self) -> None:
        """Ask again which models to offer, after the settings changed."""
        if self._provider is not None:
            self._provider.refreshAlgorithms()
