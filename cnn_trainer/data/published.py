"""The data sets that have a name, as their makers published them: classes, sizes, files and digests.

A data set whose arrays have known digests is read from any file that holds the same arrays. For the others, only
digests of the gzipped files are published, so they are read only from these files.
"""

import string
from dataclasses import dataclass
from typing import Literal

from cnn_trainer.data.splits import SplitName

NamedSource = Literal[
    "mnist", "fashion-mnist", "kmnist", "qmnist", "emnist-digits", "emnist-letters", "emnist-balanced", "mnist-5k"
]
DownloadedSource = Literal[
    "mnist", "fashion-mnist", "kmnist", "qmnist", "emnist-digits", "emnist-letters", "emnist-balanced"
]

DIGITS = [str(digit) for digit in range(10)]
# In the order of the labels: README of github.com/zalandoresearch/fashion-mnist.
CLOTHES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]

EMNIST_SOURCES: tuple[DownloadedSource, ...] = ("emnist-digits", "emnist-letters", "emnist-balanced")
EMNIST_ARCHIVE = "gzip.zip"
# Bytes and SHA-256 of EMNIST's one archive: url_checksums/emnist.txt of TensorFlow Datasets. torchvision gives its MD5,
# 58c8d27c….
EMNIST_ARCHIVE_BYTES = 561_753_746
EMNIST_ARCHIVE_SHA256 = "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"

_KINDS = ("images-idx3", "labels-idx1")
_FILES = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in _KINDS]


@dataclass(frozen=True)
class Publication:
    """A data set as published.

    Attributes:
        title: its name, as its makers write it.
        class_names: in the order of the labels, from 0.
        num_examples: of each split; all images are 28x28 and grey.
        url: where its files are, with a slash at the end.
        files: the files that are downloaded, with their SHA-256; None if the digests of the arrays are checked.
        max_bytes: the largest size of one file.
        arrays: SHA-256 of the bytes of each array in C order, labels as uint8; None if those of the files are checked.
        prefixes: what may come before ``train-images``, in lower case and without its last separator.
        folders: names of its folder, in lower case and without hyphens and underscores.
    """

    title: str
    class_names: list[str]
    num_examples: dict[SplitName, int]
    url: str
    files: dict[str, str | None]
    max_bytes: int
    arrays: dict[str, str] | None
    prefixes: tuple[str, ...]
    folders: tuple[str, ...]


def _emnist(part: str, class_names: list[str], num_train: int, num_test: int, digests: list[str]) -> Publication:
    # Digests of the files inside the archive, as listed in public code that reads them: all of them in mnists.py by
    # Connor Olding, most of them also elsewhere, with the same values. When the archive is downloaded, its own digest
    # confirms them.
    names = [f"emnist-{part}-{split}-{kind}-ubyte.gz" for split in ("train", "test") for kind in _KINDS]
    return Publication(
        title=f"EMNIST {part}",
        class_names=class_names,
        num_examples={"train": num_train, "test": num_test},
        url="https://biometrics.nist.gov/cs_links/EMNIST/",
        files=dict(zip(names, digests, strict=True)),
        max_bytes=128 * 2**20,
        arrays=None,
        prefixes=(f"emnist-{part}",),
        folders=("emnist", f"emnist{part}"),
    )


PUBLISHED: dict[NamedSource, Publication] = {
    # With the idx headers before them, the arrays have the MD5 sums published for the original files: 6bbc9ace…,
    # a25bea73…, 2646ac64…, 27ae3e4e….
    "mnist": Publication(
        title="MNIST",
        class_names=DIGITS,
        num_examples={"train": 60_000, "test": 10_000},
        url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/",  # keras/src/datasets/mnist.py
        files={"mnist.npz": None},  # which takes 11,490,434 bytes
        max_bytes=32 * 2**20,
        arrays={
            "x_train": "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
            "y_train": "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
            "x_test": "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
            "y_test": "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
        },
        prefixes=("", "mnist"),
        folders=("mnist",),
    ),
    # The arrays of files whose MD5 sums are those that the README of github.com/zalandoresearch/fashion-mnist gives:
    # 8d4fb7e6…, 25c81989…, bef4ecab…, bb300cfd….
    "fashion-mnist": Publication(
        title="Fashion-MNIST",
        class_names=CLOTHES,
        num_examples={"train": 60_000, "test": 10_000},
        url="https://storage.googleapis.com/tensorflow/tf-keras-datasets/",  # keras/src/datasets/fashion_mnist.py
        files=dict.fromkeys(_FILES),
        max_bytes=32 * 2**20,  # the largest takes 26,421,880
        arrays={
            "x_train": "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
            "y_train": "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
            "x_test": "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
            "y_test": "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
        },
        prefixes=("", "fashion", "fashion-mnist", "fashionmnist"),
        folders=("fashionmnist", "fashion"),
    ),
    # url_checksums/kmnist.txt of TensorFlow Datasets. The MD5 sums of the same files in torchvision: bdb82020…,
    # e144d726…, 5c965bf0…, 7320c461….
    "kmnist": Publication(
        title="KMNIST",
        class_names=["o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"],
        num_examples={"train": 60_000, "test": 10_000},
        url="https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        files={
            "train-images-idx3-ubyte.gz": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "train-labels-idx1-ubyte.gz": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "t10k-images-idx3-ubyte.gz": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "t10k-labels-idx1-ubyte.gz": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        },
        max_bytes=32 * 2**20,  # the largest takes 18,165,135
        arrays=None,
        prefixes=("", "kmnist"),
        folders=("kmnist",),
    ),
    # torchvision's prototype of datasets (torchvision/prototype/datasets/_builtin/mnist.py); its MD5 sums of the same
    # files are ed72d415…, 0058f8dd…, 13946310…, 5b5b0589….
    "qmnist": Publication(
        title="QMNIST",
        class_names=DIGITS,
        num_examples={"train": 60_000, "test": 60_000},
        url="https://raw.githubusercontent.com/facebookresearch/qmnist/master/",
        files={
            "qmnist-train-images-idx3-ubyte.gz": "9e26a7bf1683614e065d7b76460ccd52807165b3f22561fb782bd9f38c52b51d",
            "qmnist-train-labels-idx2-int.gz": "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
            "qmnist-test-images-idx3-ubyte.gz": "43fc22bf7498b8fc98de98369d72f752d0deabc280a43a7bcc364ab19e57b375",
            "qmnist-test-labels-idx2-int.gz": "9fbcbe594c3766fdf4f0b15c5165dc0d1e57ac604e01422608bb72c906030d06",
        },
        max_bytes=32 * 2**20,  # the largest takes 9,742,279
        arrays=None,
        prefixes=("qmnist",),
        folders=("qmnist",),
    ),
    "emnist-digits": _emnist(
        "digits",
        DIGITS,
        240_000,
        40_000,
        [
            "f7c95004d14d81af89522e67d8f0c781dfb3bd544181c81bfe1eb6b41c35b726",
            "6638a6ff5fe2eefd9cca2471995b46c82986b8e4b2a70d2f5ce8e05d7edb319e",
            "20ebe43509264f7639d37c835a3f0b009e90b29e00a099a03101abe1644a3f63",
            "bad1834c45d5988e270b99d43b13edc3fd898f658ffbc2caf2846ef27f7b05b0",
        ],
    ),
    # Each class is a letter, both capital and small.
    "emnist-letters": _emnist(
        "letters",
        list(string.ascii_uppercase),
        124_800,
        20_800,
        [
            "6288f418a917e007bf5fddb823a2dc7a5c6a35031401b93292a539cb12bd881f",
            "9759af91ea6bccdf07a6040fd085861f2ec88e37f7c3f5760f6feb57106fbe5c",
            "50f0e93d75b99b463e9760b8345866f22587fa2c2fba472730a5ba09c693412d",
            "924955c31fe7fd809b7303b5c0141282955f4b8390c74cdfd5d80435e0f4b4cb",
        ],
    ),
    # For 15 letters, the capital and the small one are one class (Cohen and others, EMNIST, 2017, figure 2).
    "emnist-balanced": _emnist(
        "balanced",
        [*DIGITS, *string.ascii_uppercase, *"abdefghnqrt"],
        112_800,
        18_800,
        [
            "74295e75e4e9fa2c102147460ee7eb763653d5132d883a84fb88932bfb8d2db4",
            "b46d41e5156a0a8aaaa4d18979fdd1588850fa8571018acffd5d93b325a7d6ed",
            "117fc12b015e37ea98bfb2cbba3f77c3782c056cdbd219b87abfc8661d7135db",
            "a67cac948379b67270b9a4d0a01c8ec661598accf2f2b1964340b7c83cb175cd",
        ],
    ),
}
