"""One test per sentence of the paper that the code claims. Deviations are listed in docs/paper.md."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from geoglnet.config import ModelConfig, RegionConfig, Sharing, Stage
from geoglnet.datasets.regions import RegionBatch
from geoglnet.losses import fmreg_euclidean, fmreg_mean_square, focal_loss
from geoglnet.models.glnet import GLNet
from geoglnet.training.task import StageTask
from geoglnet.training.train_config import OptimConfig
from geoglnet.types import Shape
from geoglnet.windows import footprints, patch_windows

PAPER = ModelConfig(num_classes=7)


@pytest.fixture
def network() -> GLNet:
    torch.manual_seed(0)
    return GLNet(ModelConfig(3, "mobilenet_v2", pyramid_channels=8, smooth_channels=4))


@pytest.fixture
def batch() -> RegionBatch:
    shape, windows = Shape(96, 96), patch_windows(Shape(96, 96), 64, 16)
    return RegionBatch(
        overviews=torch.randn(2, 3, 64, 64),
        overview_labels=torch.randint(0, 3, (2, 96, 96)),
        patches=torch.randn(4, 3, 64, 64),
        patch_labels=torch.randint(0, 3, (4, 64, 64)),
        footprints=torch.from_numpy(footprints(windows, shape)),
        overview_index=torch.tensor([0, 1, 0, 1]),
    )


def test_images_are_fully_cropped_into_patches() -> None:
    covered = np.zeros((2448, 2448), bool)
    windows = patch_windows(Shape(2448, 2448), RegionConfig().patch_size, RegionConfig().patch_overlap)
    for window in windows:
        covered[window.toslices()] = True
    assert covered.all()
    assert len(windows) == 36


def test_the_global_image_and_the_patches_share_the_same_size_500() -> None:
    config = RegionConfig()
    assert config.overview_shape(Shape(2448, 2448)) == (500, 500)
    assert config.patch_size == 500


def test_neighboring_patches_have_at_least_50_pixels_overlap() -> None:
    starts = sorted({w.col_off for w in patch_windows(Shape(2448, 2448), 500, 50)})
    assert min(a + 500 - b for a, b in itertools.pairwise(starts)) >= 50


def test_both_branches_have_the_same_backbone_and_weights_of_their_own(network: GLNet) -> None:
    ours, theirs = network.global_branch.backbone, network.local_branch.backbone
    assert [p.shape for p in ours.parameters()] == [p.shape for p in theirs.parameters()]
    assert not {id(p) for p in ours.parameters()} & {id(p) for p in theirs.parameters()}


def test_the_default_backbone_is_fpn_with_resnet50_conv2_to_conv5() -> None:
    network = GLNet(PAPER)
    with torch.inference_mode():
        maps = network.eval().see(torch.zeros(1, 3, 128, 128))
    assert [m.shape[1] for m in maps.first.bottom_up] == [256, 512, 1024, 2048]
    assert [m.shape[-1] for m in maps.first.bottom_up] == [32, 16, 8, 4]
    assert maps.last.shape == (1, 512, 32, 32)


def test_shared_maps_are_concatenated_as_extra_channels_in_sixteen_places() -> None:
    alone, sharing = (
        GLNet(ModelConfig(7, "resnet18", sharing=s)).local_branch.pyramid for s in (Sharing.NONE, Sharing.GLOBAL_TO_LOCAL)
    )
    places = 0
    for stage in ("laterals", "smooth_first", "smooth_second"):
        for one, doubled in zip(getattr(alone, stage), getattr(sharing, stage), strict=True):
            assert doubled.in_channels == 2 * one.in_channels
            places += 1
    assert sharing.fuse.in_channels == 2 * 4 * 128
    assert places + 4 == 16


def test_f_agg_is_a_convolution_of_3x3_filters_on_the_concatenated_last_maps() -> None:
    f_agg = GLNet(PAPER).f_agg
    assert f_agg.kernel_size == (3, 3)
    assert (f_agg.in_channels, f_agg.out_channels) == (2 * 512, 7)


def test_the_aggregated_output_is_f_agg_of_both_last_maps(network: GLNet, batch: RegionBatch) -> None:
    _, logits = network.eval()(batch.overviews, batch.patches, batch.footprints, batch.overview_index)
    assert torch.equal(logits.final, network.f_agg(torch.cat([logits.x_loc, logits.x_glb], dim=1)))


def test_focal_loss_has_gamma_6_and_regularization_lambda_015_by_default() -> None:
    assert OptimConfig().gamma == 6
    assert OptimConfig().lambda_fmreg == 0.15


def test_focal_loss_is_minus_one_less_p_to_the_gamma_times_log_p() -> None:
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    labels[0, 0] = 255
    p = logits.softmax(1).gather(1, labels.clamp(max=2)[:, None])[:, 0][labels != 255]
    expected = (-((1 - p) ** 6) * p.log()).mean()
    torch.testing.assert_close(focal_loss(logits, labels), expected)


@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_label_that_is_no_class_is_an_error(num_classes: int) -> None:
    with pytest.raises(IndexError):
        focal_loss(torch.zeros(1, num_classes, 4, 4), torch.full((1, 8, 8), num_classes))


@pytest.mark.parametrize("gamma", [0.0, 2.0, 6.0])
def test_focal_loss_of_two_classes_and_its_gradient_are_those_of_any_number_of_classes(gamma: float) -> None:
    logits = torch.randn(2, 2, 8, 8, requires_grad=True)
    labels = torch.randint(0, 2, (2, 24, 24), dtype=torch.uint8)
    labels[0, :3] = 255
    full = torch.nn.functional.interpolate(logits, size=(24, 24), mode="bilinear", align_corners=False)
    p = full.softmax(1).gather(1, labels.clamp(max=1).long()[:, None])[:, 0][labels != 255]
    expected = (-((1 - p) ** gamma) * p.log()).mean()
    loss = focal_loss(logits, labels, gamma)
    torch.testing.assert_close(loss, expected)
    ours, theirs = (torch.autograd.grad(3 * value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(ours, theirs)


def test_learning_rates_are_1e_4_for_the_global_and_2e_5_for_the_local_branch_with_adam(network: GLNet) -> None:
    for stage, rate in ((Stage.GLOBAL, 1e-4), (Stage.LOCAL, 2e-5)):
        optimizer = StageTask(network, stage, OptimConfig(), 10).configure_optimizers()
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"], group["weight_decay"]) == (rate, (0.9, 0.999), 0)


def test_we_use_a_mini_batch_size_of_6() -> None:
    assert OptimConfig().batch_size == 6


def test_main_and_auxiliary_losses_have_equal_weights(network: GLNet, batch: RegionBatch) -> None:
    network.eval()
    maps, logits = network(batch.overviews, batch.patches, batch.footprints, batch.overview_index)
    task = StageTask(network, Stage.JOINT, OptimConfig(lambda_fmreg=0.0), 10).eval()
    expected = focal_loss(logits.s_agg, batch.patch_labels) + focal_loss(logits.s_loc, batch.patch_labels)
    expected = expected + focal_loss(maps.logits, batch.overview_labels)
    torch.testing.assert_close(task.differentiate(batch), expected.detach())


@pytest.mark.parametrize("form", ["euclidean", "mean_square"])
def test_the_regularization_only_updates_the_parameters_in_the_local_branch(form: str) -> None:
    x_loc, x_glb = torch.randn(2, 4, 5, 5, requires_grad=True), torch.randn(2, 4, 5, 5, requires_grad=True)
    {"euclidean": fmreg_euclidean, "mean_square": fmreg_mean_square}[form](x_loc, x_glb).backward()
    assert x_loc.grad.abs().sum() > 0
    assert x_glb.grad is None


def test_the_local_stage_leaves_the_global_branch_as_it_is(network: GLNet, batch: RegionBatch) -> None:
    task = StageTask(network, Stage.LOCAL, OptimConfig(), 10).train()
    before = {n: t.clone() for n, t in network.global_branch.state_dict().items()}
    task.differentiate(batch)
    assert all(p.grad is None for p in network.global_branch.parameters())
    assert all(torch.equal(t, before[n]) for n, t in network.global_branch.state_dict().items())
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.f_agg.parameters())


def test_the_euclidean_norm_is_taken_over_channels() -> None:
    x_loc, x_glb = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    x_loc[:, 0], x_loc[:, 1] = 3, 4
    assert fmreg_euclidean(x_loc, x_glb).item() == pytest.approx(5)


def test_unknown_regions_are_not_considered() -> None:
    logits, labels = torch.randn(1, 3, 8, 8), torch.full((1, 8, 8), 255)
    assert focal_loss(logits, labels).item() == 0


def test_the_decoder_is_affine_in_the_backbone_maps(network: GLNet) -> None:
    """Not said in the paper, but true of its network, and what lets it fold."""
    pyramid = network.global_branch.double().pyramid
    one, two = (
        [torch.randn(1, c, s, s).double() for c, s in zip((24, 32, 96, 320), (16, 8, 4, 2), strict=True)] for _ in range(2)
    )
    mixed = tuple(0.3 * a + 0.7 * b for a, b in zip(one, two, strict=True))
    torch.testing.assert_close(pyramid(mixed).logits, 0.3 * pyramid(tuple(one)).logits + 0.7 * pyramid(tuple(two)).logits)
