from collections.abc import Callable

import numpy as np
import patchcore
import pytest
import torch
from numpy.typing import NDArray
from reference_simplenet import (
    Optimisers,
    ReferenceHead,
    ReferenceSimpleNet,
    Schedule,
    level_maps,
    margin_loss,
    official_embedding,
    official_optimisers,
    paper_embedding,
    paper_optimisers,
    patch_scores,
    predict_embedded,
    resize,
    training_loss,
    training_step,
    unfolded_planes,
)
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.distance import cdist
from torch import Tensor
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

OptimisersOf = Callable[[ReferenceHead], Optimisers]


def random_levels(*shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]


def window_row(level: NDArray[np.floating], channel: int, row: int) -> NDArray[np.floating]:
    """Sum of three horizontal neighbours, ``row`` - 1 lines below, zeros outside: (B, H, W)."""
    height, width = level.shape[2:]
    padded = np.pad(level[:, channel], ((0, 0), (1, 1), (1, 1)))[:, row : row + height]
    return sum(padded[..., column : column + width] for column in range(3))


def test_official_embedding_mixes_rows_and_channels_as_its_closed_form_says() -> None:
    levels = random_levels((2, 512, 5, 4), (2, 1024, 5, 4))  # one grid: nothing to resize
    found = official_embedding(levels).numpy()
    fine, coarse = (level.numpy() for level in levels)
    expected = {  # output: (level, its (channel, row) entries)
        0: (fine, [(0, 0), (0, 1)]),
        1: (fine, [(0, 2), (1, 0)]),
        2: (fine, [(1, 1), (1, 2)]),
        767: (fine, [(511, 1), (511, 2)]),
        768: (coarse, [(0, 0), (0, 1), (0, 2), (1, 0)]),
        769: (coarse, [(1, 1), (1, 2), (2, 0), (2, 1)]),
        770: (coarse, [(2, 2), (3, 0), (3, 1), (3, 2)]),
    }
    for output, (level, entries) in expected.items():
        mean = sum(window_row(level, *entry) for entry in entries) / (3 * len(entries))
        assert found[..., output] == pytest.approx(mean, abs=1e-6)


def test_official_embedding_averages_consecutive_planes_of_the_finest_grid() -> None:
    levels = random_levels((1, 512, 6, 6), (1, 1024, 3, 3))
    fine, coarse = (planes.numpy() for planes in unfolded_planes(levels))
    assert (fine.shape, coarse.shape) == ((1, 4608, 6, 6), (1, 9216, 6, 6))
    expected = np.concatenate(
        [fine.reshape(1, 768, 6, 6, 6).mean(2), coarse.reshape(1, 768, 12, 6, 6).mean(2)], axis=1
    )
    found = official_embedding(levels).permute(0, 3, 1, 2).numpy()
    assert found == pytest.approx(expected, abs=1e-6)


def test_unfolding_comes_before_the_resize() -> None:
    levels = random_levels((1, 4, 6, 6), (1, 4, 3, 3))
    first = unfolded_planes(levels)[1]
    other = unfolded_planes([levels[0], resize(levels[1], (6, 6))])[1]
    assert (first - other).abs().max() > 0.1
    assert torch.allclose(first[:, 4::9], resize(levels[1], (6, 6)), atol=1e-6)  # centre taps


def test_paper_embedding_averages_a_patch_with_zeros_outside_and_concatenates() -> None:
    fine, coarse = torch.ones(1, 2, 3, 3), torch.full((1, 1, 3, 3), 9.0)
    found = paper_embedding([fine, coarse])
    assert found.shape == (1, 3, 3, 3)
    share = torch.tensor([[4, 6, 4], [6, 9, 6], [4, 6, 4]]) / 9
    assert torch.allclose(found[0], torch.stack([share, share, 9 * share], dim=-1))


def test_paper_embedding_keeps_one_output_per_channel_on_the_finest_grid() -> None:
    levels = random_levels((2, 128, 8, 8), (2, 256, 4, 4))
    found = paper_embedding(levels)
    assert found.shape == (2, 8, 8, 384)
    alone = paper_embedding(levels[1:]).permute(0, 3, 1, 2)
    assert torch.allclose(found[..., 128:].permute(0, 3, 1, 2), resize(alone, (8, 8)))


def test_level_maps_are_the_outputs_of_the_stages() -> None:
    network = resnet18().eval()
    images = random_levels((2, 3, 64, 64))[0]
    stages = create_feature_extractor(network, {"layer1": "1", "layer3": "3"})(images)
    fine, coarse = level_maps(network, images, (1, 3))
    assert torch.equal(fine, stages["1"])
    assert torch.equal(coarse, stages["3"])


def test_loss_is_zero_only_when_both_sides_are_beyond_the_margin() -> None:
    assert margin_loss(torch.tensor([0.5, 2.0]), torch.tensor([-0.5, -3.0])) == 0
    # (0.5 - 0.25) and 0 on one side, (0.5 + 0.5) and 0 on the other
    loss = margin_loss(torch.tensor([0.25, 1.0]), torch.tensor([0.5, -1.0]))
    assert loss == pytest.approx(0.25 / 2 + 1.0 / 2)


def test_normal_and_noisy_patches_share_one_batch_normalisation() -> None:
    torch.manual_seed(0)
    head = ReferenceHead(6, 5).double()
    rows, noise = torch.randn(2, 7, 6, dtype=torch.float64)
    weights = {name: value.detach().numpy() for name, value in head.state_dict().items()}
    adapted = rows.numpy() @ weights["adaptor.weight"].T + weights["adaptor.bias"]
    both = np.concatenate([adapted, adapted + noise.numpy()])
    hidden = both @ weights["discriminator.0.weight"].T + weights["discriminator.0.bias"]
    hidden = (hidden - hidden.mean(0)) / np.sqrt(hidden.var(0) + 1e-5)
    logits = np.where(hidden > 0, hidden, 0.2 * hidden) @ weights["discriminator.3.weight"][0]
    expected = np.maximum(0.5 - logits[:7], 0).mean() + np.maximum(0.5 + logits[7:], 0).mean()
    assert training_loss(head, rows, noise).item() == pytest.approx(expected, abs=1e-12)


def test_biases_before_the_batch_normalisation_change_no_training_loss() -> None:
    torch.manual_seed(0)
    head = ReferenceHead(6, 5).double()
    rows, noise = torch.randn(2, 7, 6, dtype=torch.float64)
    before = training_loss(head, rows, noise).item()
    torch.nn.init.zeros_(head.adaptor.bias)
    torch.nn.init.zeros_(head.discriminator[0].bias)
    assert training_loss(head, rows, noise).item() == pytest.approx(before, abs=1e-12)


@pytest.mark.parametrize("optimisers_of", [official_optimisers, paper_optimisers])
def test_training_steps_part_normal_from_noisy_patches(optimisers_of: OptimisersOf) -> None:
    torch.manual_seed(0)
    head = ReferenceHead(16, 32)
    optimisers = optimisers_of(head)
    rows = torch.randn(256, 16)
    losses = [
        training_step(head, rows, torch.randn(256, 16), optimisers, margin=0.5) for _ in range(200)
    ]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    assert (
        patch_scores(head, rows.view(1, 16, 16, 16)).mean()
        < patch_scores(head, (4 * torch.randn(1, 16, 16, 16))).mean()
    )


def test_image_score_is_the_highest_raw_patch_and_the_map_is_smoothed_afterwards() -> None:
    torch.manual_seed(0)
    head = ReferenceHead(8, 4)
    embedded = torch.randn(2, 5, 5, 8)
    raw = patch_scores(head, embedded).numpy()
    scores, maps = predict_embedded(head, embedded, (40, 40))
    assert scores.tolist() == raw.reshape(2, -1).max(1).tolist()
    assert (maps.max((1, 2)) < scores).all()
    # Upsampling and smoothing are one matrix, applied to the rows and to the columns.
    upsample = resize(torch.eye(5)[None, None], (40, 5))[0, 0].numpy()
    matrix = gaussian_filter1d(np.eye(40), 4, axis=0) @ upsample
    assert maps == pytest.approx(matrix @ raw @ matrix.T, abs=1e-5)


def test_the_unused_upsampling_of_features_changes_nothing() -> None:
    torch.manual_seed(0)
    model = ReferenceSimpleNet(resnet18(), ReferenceHead(1536, 16))
    images = torch.randn(2, 3, 64, 64)
    scores, maps = model.predict(images)
    without = model.predict(images, upsample_features=False)
    assert (scores.shape, maps.shape) == ((2,), (2, 64, 64))
    assert np.array_equal(scores, without[0])
    assert np.array_equal(maps, without[1])


def test_fitting_on_images_lowers_the_loss_and_repeats_itself() -> None:
    def losses() -> list[float]:
        torch.manual_seed(0)
        head = ReferenceHead(384, 32)
        model = ReferenceSimpleNet(resnet18(), head, paper_embedding)
        images = torch.randn(4, 3, 64, 64)
        schedule = Schedule(passes=6, batch_size=3, sigma=0.5)
        return model.fit(images, schedule, official_optimisers(head))

    found = losses()
    assert len(found) == 6
    assert found[-1] < found[0]
    assert found == losses()


def test_coreset_takes_the_farthest_patch_each_time() -> None:
    # Mean distances: 0: 22.6, 1: 22, 2: 21.8, 10: 23.4, 100: 77.4, so 100 first, then 10; from
    # there on the distance to 10 is the smallest but one: 0 (10), then 2 (2 from 0), then 1.
    line = np.array([[0], [1], [2], [10], [100]], dtype=np.float32)
    order = patchcore.greedy_coreset(line, 5, seed=0)
    assert line[order, 0].tolist() == [100, 10, 0, 2, 1]


@pytest.mark.parametrize("seed", range(5))
def test_coreset_covers_every_cluster_before_any_twice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    centres = 100 * np.eye(200)[:6]  # 200 channels: the random projection is used
    features = (centres[rng.integers(0, 6, (10, 4, 4))] + rng.normal(size=200) / 100).astype("f4")
    bank = patchcore.fit(features, 6 / 160, seed)
    assert sorted(cdist(bank, centres).argmin(1)) == [0, 1, 2, 3, 4, 5]


def test_a_coreset_as_large_as_the_patches_is_all_of_them() -> None:
    features = np.random.default_rng(0).normal(size=(2, 3, 3, 5)).astype("f4")
    bank = patchcore.fit(features, 1.0, seed=0)
    assert sorted(map(tuple, bank)) == sorted(map(tuple, features.reshape(-1, 5)))
    assert (patchcore.score(bank, features) == 0).all()


def test_patch_distance_is_to_the_nearest_in_the_bank_and_the_image_takes_the_highest() -> None:
    bank = np.array([[0, 0], [10, 0]], dtype=np.float32)
    features = np.array([[[[3, 4], [10, 1]]], [[[4, 0], [6, 0]]]], dtype=np.float32)
    distances = patchcore.score(bank, features)
    assert distances.tolist() == [[[5, 1]], [[4, 4]]]
    assert patchcore.image_scores(distances).tolist() == [5, 4]


def test_distances_in_chunks_equal_scipy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patchcore, "CHUNK_VALUES", 7 * 30)
    rng = np.random.default_rng(0)
    bank, features = rng.normal(size=(30, 16)), rng.normal(size=(3, 5, 4, 16))
    expected = cdist(features.reshape(-1, 16), bank).min(1).reshape(3, 5, 4)
    found = patchcore.score(bank.astype("f4"), features.astype("f4"))
    assert found == pytest.approx(expected, abs=1e-5)
