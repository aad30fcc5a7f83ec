"""The two real data sets that come with scikit-learn: they need no file and no download."""

import numpy as np

from flop_p2p.data.dataset import Dataset


def read_digits() -> Dataset:
    """1,797 handwritten digits of 43 people (Alpaydin and Kaynak 1998), 8 x 8 grey, scaled from 0..16 to 0..255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    names = tuple(str(name) for name in digits.target_names)
    return Dataset("digits", images[:, None], digits.target.astype(np.int64), names, "multiclass")


def read_breast_cancer() -> Dataset:
    """569 fine needle aspirates with 30 measurements each (Wolberg et al. 1995): malignant or benign."""
    from sklearn.datasets import load_breast_cancer

    cancer = load_breast_cancer()
    names = tuple(str(name) for name in cancer.target_names)
    table = cancer.data.astype(np.float32)
    return Dataset("breast-cancer", table, cancer.target.astype(np.int64), names, "binary")
