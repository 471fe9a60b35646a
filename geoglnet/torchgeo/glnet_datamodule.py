"""GLNetDataModule: region samples of any GeoDataset, split by TorchGeo, for Lightning's Trainer and TorchGeo's command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchgeo.datamodules import GeoDataModule
from torchgeo.datasets import GeoDataset

from geoglnet.bands import Bands
from geoglnet.config import RegionConfig, from_plain, suggestion
from geoglnet.datasets.samplers import SampleConfig
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.torchgeo.adapter import split_dataset
from geoglnet.torchgeo.class_paths import split_arguments
from geoglnet.torchgeo.global_local import GlobalLocalDataset, collate
from geoglnet.torchgeo.region_samplers import BalancedRegionSampler, GriddedRegionSampler


class GLNetDataModule(GeoDataModule):
    """Split a GeoDataset of images and labels, and load region samples of its parts.

    Training regions are drawn by :class:`~geoglnet.torchgeo.BalancedRegionSampler`; those of validation, test and prediction
    lie on a grid, and all their patches are loaded. Samples are not normalized here: a :class:`GLNetTask` does that.

    Args:
        dataset: images and labels, or images alone.
        legend: classes, as an object or as the table ``[legend]`` of a configuration file; values of labels are its numbers.
        labels: intersected with ``dataset``, for configurations that cannot write ``images & labels``.
        settings: objects, or tables as of a configuration file of ``geoglnet train``: ``bands``; ``region`` (sizes of the
            model, and of the regions of validation, test and prediction); ``sample`` and ``augment`` (of training); ``values``
            (class name by label value, where the labels differ from the legend).
        splits: function of ``torchgeo.datasets`` that splits the dataset into training, validation and, if there is a third
            part, test.
        splits_args: of that function; a random one gets the generator of ``seed``.
        batch_size: regions of a step.
        length: regions of an epoch; as many as cover the dataset once when left out.
        num_workers: processes that load samples.
        seed: of the split and the samples.

    Raises:
        ConfigError: settings that are unknown or contradict each other.
    """

    def __init__(
        self,
        dataset: GeoDataset,
        legend: Legend | dict[str, Any],
        labels: GeoDataset | None = None,
        settings: dict[str, Any] | None = None,
        splits: str = "random_grid_cell_assignment",
        splits_args: dict[str, Any] | None = None,
        batch_size: int = 1,
        length: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
    ) -> None:
        given = dict(settings or {})
        self.legend = legend if isinstance(legend, Legend) else Legend.from_dict(legend)
        self.bands: Bands = _made(Bands, given.pop("bands", {}))
        self.region: RegionConfig = _made(RegionConfig, given.pop("region", {}))
        self.sample: SampleConfig = _made(SampleConfig, given.pop("sample", {}))
        self.augment: AugmentConfig = _made(AugmentConfig, given.pop("augment", {}))
        self.values: Mapping[str, str] | None = given.pop("values", None)
        for key in given:
            raise ConfigError(f"unknown settings.{key}{suggestion(key, ('bands', 'region', 'sample', 'augment', 'values'))}")
        size = self.sample.region_size
        super().__init__(type(dataset), batch_size, patch_size=size, length=length, num_workers=num_workers)
        self.whole = dataset if labels is None else dataset & labels
        self.splits, self.seed = splits, seed
        self.splits_args = split_arguments(splits_args or {"fractions": (0.8, 0.2)})
        self.collate_fn = collate  # type: ignore[assignment]
        self.aug = _unchanged

    def setup(self, stage: str) -> None:
        """Split the dataset, and make samples and samplers of the parts that a stage needs.

        Args:
            stage: ``"fit"``, ``"validate"``, ``"test"`` or ``"predict"``.

        Raises:
            ConfigError: there is no part for the stage.
            DatasetError: files cannot be used, or nothing is labeled.
        """
        if stage == "predict":
            self.predict_dataset, self.predict_sampler = self._gridded({"predict": self.whole}, "predict")
            return
        split = split_dataset(self.whole, self.splits, self.splits_args, self.seed)
        parts = dict(zip(("train", "val", "test"), split, strict=False))
        if stage == "fit":
            dataset = self._wrapped(parts, "train", self.sample, self.augment)
            self.train_dataset = dataset
            self.train_sampler = BalancedRegionSampler(
                dataset,
                self.sample.region_size,
                length=self.length,
                balanced_fraction=self.sample.balanced_fraction,
                generator=self.seed,
            )
            # Measured on the training scenes where they were not given, and the same for all that follows.
            self.bands = dataset.bands
        if stage in ("fit", "validate"):
            self.val_dataset, self.val_sampler = self._gridded(parts, "val")
        if stage == "test":
            self.test_dataset, self.test_sampler = self._gridded(parts, "test")

    def transfer_batch_to_device(self, batch: dict[str, Any], device: torch.device, dataloader_idx: int) -> dict[str, Any]:
        """Move the tensors of a batch; what has no device stays, where TorchGeo leaves it out."""
        return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}

    def _gridded(self, parts: Mapping[str, GeoDataset], part: str) -> tuple[GlobalLocalDataset, GriddedRegionSampler]:
        """Make samples of all patches, of regions side by side."""
        size = self.region.region_size
        whole = replace(self.sample, region_size=size, patch_size=self.region.patch_size, patches_per_region=0)
        wrapped = self._wrapped(parts, part, whole, AugmentConfig(d4=False, scale_min=1, scale_max=1, color=0))
        return wrapped, GriddedRegionSampler(wrapped, size)

    def _wrapped(
        self, parts: Mapping[str, GeoDataset], part: str, sample: SampleConfig, augment: AugmentConfig
    ) -> GlobalLocalDataset:
        if part not in parts:
            raise ConfigError(f"{self.splits} gives {len(parts)} parts, and none for {part}; name three in splits_args")
        return GlobalLocalDataset(
            parts[part],
            self.legend,
            values=self.values,
            bands=self.bands,
            region=self.region,
            sample=sample,
            augment=augment,
            seed=self.seed,
        )

    def _dataloader_factory(self, split: str) -> DataLoader[Any]:
        dataset, sampler = getattr(self, f"{split}_dataset"), getattr(self, f"{split}_sampler")
        return DataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=self.collate_fn,
            drop_last=split == "train" and len(sampler) >= self.batch_size,
            persistent_workers=self.num_workers > 0,
            multiprocessing_context="spawn" if self.num_workers else None,  # a fork copies GDAL's locks
        )


def _made(kind: type[Any], given: Any) -> Any:
    """Make an object of a table; what is one already stays as it is."""
    if isinstance(given, kind):
        return given
    return Bands.from_dict(given) if kind is Bands else from_plain(kind, given)


def _unchanged(batch: dict[str, Any]) -> dict[str, Any]:
    return batch
