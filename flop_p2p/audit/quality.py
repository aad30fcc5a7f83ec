"""How near reconstructions are to the images behind them: PSNR, SSIM, and which belongs to which."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn import functional as F

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03
MOST_PSNR = 100.0  # decibels, told for equal images


def squared_errors(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared error of every image of ``first`` from every one of ``second``, ``[first, second]``."""
    exact = "donot_use_mm_for_euclid_dist"  # the quick way is wrong where images are nearly equal
    return torch.cdist(first.flatten(1), second.flatten(1), compute_mode=exact).square() / first[0].numel()


def psnr(errors: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in decibels, from mean squared errors of pixels in 0 to 1; at most 100."""
    return (-10 * errors.clamp(min=1e-30).log10()).clamp(max=MOST_PSNR)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """Structural similarity of pairs of images ``[n, channels, height, width]`` in 0 to 1, ``[n]``.

    Wang et al. 2004, equation 13, with their Gaussian window of 11 pixels (the largest odd number that fits, for
    smaller images) and standard deviation 1.5, where it lies within the image; mean over pixels and channels.
    """
    first, second = first.double(), second.double()  # variances are small differences
    size = min(WINDOW, *(side - (side + 1) % 2 for side in first.shape[2:]))
    window = _gaussian(size).to(first)

    def blur(images: Tensor) -> Tensor:
        flat = images.flatten(0, 1).unsqueeze(1)
        return F.conv2d(F.conv2d(flat, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))

    mean_a, mean_b = blur(first), blur(second)
    variance_a = blur(first * first) - mean_a**2
    variance_b = blur(second * second) - mean_b**2
    covariance = blur(first * second) - mean_a * mean_b
    c1, c2 = K1**2, K2**2
    each = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    each = each / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
    return each.view(*first.shape[:2], -1).mean(dim=(1, 2))


def _gaussian(size: int) -> Tensor:
    places = torch.arange(size, dtype=torch.float64) - size // 2
    weights = torch.exp(-(places**2) / (2 * SIGMA**2))
    return weights / weights.sum()


def match(found: Tensor, originals: Tensor) -> list[int]:
    """For each of ``found`` the place of an original of its own, so that the mean PSNR is the largest.

    A gradient knows no order of its batch; this is the assignment of Kuhn and Munkres. There are originals enough.
    """
    gain = psnr(squared_errors(found, originals)).cpu().numpy()
    _, places = linear_sum_assignment(gain, maximize=True)
    return [int(place) for place in places]


def identified(found: Tensor, places: list[int], gallery: Tensor, own: list[int]) -> list[bool]:
    """Whether each of ``found`` is nearer to the image that it is matched to than to any other of a gallery.

    Args:
        own: of each original its place in the gallery.
    """
    nearest = squared_errors(found, gallery).argmin(dim=1).tolist()
    return [nearest[row] == own[place] for row, place in enumerate(places)]
