"""PSNR and SSIM against values worked out by hand, and which reconstruction belongs to which original."""

import math

import numpy as np
import pytest
import torch

from flop_p2p.audit.quality import identified, match, psnr, squared_errors, ssim


def images(*values: float, size: int = 12) -> torch.Tensor:
    return torch.stack([torch.full((1, size, size), value) for value in values])


def noise(count: int, size: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((count, 1, size, size), dtype=np.float32))


def test_psnr_of_known_errors() -> None:
    assert psnr(torch.tensor([1.0, 0.01, 0.0])).tolist() == pytest.approx([0.0, 20.0, 100.0])


def test_squared_errors_are_those_of_every_pair() -> None:
    errors = squared_errors(images(0.0, 0.5), images(0.0, 0.5, 1.0))
    torch.testing.assert_close(errors, torch.tensor([[0.0, 0.25, 1.0], [0.25, 0.0, 0.25]]))


def test_ssim_of_an_image_with_itself_is_one() -> None:
    torch.testing.assert_close(ssim(noise(3), noise(3)), torch.ones(3, dtype=torch.float64))


def test_ssim_of_plain_images_is_the_term_of_their_means() -> None:
    c1 = 0.01**2
    expected = (2 * 0.25 * 0.75 + c1) / (0.25**2 + 0.75**2 + c1)
    assert ssim(images(0.25), images(0.75)).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("size", [12, 8, 7])
def test_ssim_equals_the_formula_pixel_by_pixel(size: int) -> None:
    first, second = noise(1, size, 1), noise(1, size, 2)
    window = min(11, size - (size + 1) % 2)
    line = [math.exp(-((place - window // 2) ** 2) / (2 * 1.5**2)) for place in range(window)]
    weights = np.outer(line, line) / sum(line) ** 2
    a, b = (image[0, 0].double().numpy() for image in (first, second))
    values = []
    for top in range(size - window + 1):
        for left in range(size - window + 1):
            x, y = (part[top : top + window, left : left + window] for part in (a, b))
            mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
            spread_x, spread_y = (weights * (x - mean_x) ** 2).sum(), (weights * (y - mean_y) ** 2).sum()
            together = (weights * (x - mean_x) * (y - mean_y)).sum()
            above = (2 * mean_x * mean_y + 0.01**2) * (2 * together + 0.03**2)
            values.append(above / ((mean_x**2 + mean_y**2 + 0.01**2) * (spread_x + spread_y + 0.03**2)))
    assert ssim(first, second).item() == pytest.approx(np.mean(values), abs=1e-5)


def test_reconstructions_are_matched_whatever_their_order() -> None:
    originals = noise(5)
    order = [3, 0, 4]
    assert match(originals[order] + 0.01, originals) == order


def test_each_reconstruction_gets_an_original_of_its_own() -> None:
    originals = images(0.0, 1.0)
    assert sorted(match(images(0.1, 0.2), originals)) == [0, 1]


def test_an_image_is_identified_only_if_no_other_is_nearer() -> None:
    gallery = images(0.0, 1.0, 0.4)
    assert identified(images(0.1, 0.5), [0, 1], gallery, [0, 1]) == [True, False]
