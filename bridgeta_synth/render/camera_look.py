"""Turn light into an image as a camera does: exposure, white balance, lens, noise and tone.

`develop` takes linear radiance to 8 bits in the order in which a camera does: the lens (drops, glare, vignetting), the
exposure, the tone curve, sharpening, noise. Noise comes from a fixed table, so that it is equal on all devices.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from bridgeta_synth.render.lens import add_drops, add_streaks, shrink, spread_glare
from bridgeta_synth.render.looks.noise import luminance
from bridgeta_synth.world.camera_look import CameraLook
from bridgeta_synth.world.light import Light

_NOISE_SIZE = 1 << 20
_CHUNK = 1 << 18
# The exposed value of a middle grey, how far the automatic exposure follows the brightness of a frame (part of the way,
# so that night stays night), and the usual mean luminance.
_KEY, _FOLLOWS, _USUAL = 0.15, 0.66, 0.30
# Sensors saturate where film would still distinguish whites.
_WHITE = 1.07


def develop(radiance: Tensor, look: CameraLook, light: Light, noise_seed: int) -> Tensor:
    """Develop linear radiance `[h, w, 3]` into an image `[h, w, 3]` uint8.

    Equal noise seeds (0 or more) give equal noise.
    """
    height, width = radiance.shape[:2]
    image = radiance.permute(2, 0, 1).contiguous()
    if image.data_ptr() == radiance.data_ptr():
        image = image.clone()
    small = shrink(image)
    rng = np.random.default_rng(noise_seed)
    offsets = rng.integers(0, _NOISE_SIZE - _CHUNK, 3 * (height * width // _CHUNK + 1))
    if light.rain > 0:
        shift = (int(rng.integers(1 << 16)), int(rng.integers(1 << 16)))
        add_streaks(image, 0.25 * light.rain, small.reshape(3, -1).mean(dim=1) * 1.2, shift)
        add_drops(image, small, look.drops)
    if light.lamps:
        image += look.glare * (spread_glare(small, height, width) - image)
    gain = _expose(small) * look.exposure
    shade = _make_vignette(height, width, look.vignetting, image.device).view(-1) * gain
    planes = image.view(3, -1)
    for plane, factor in zip(planes, look.white_balance, strict=True):
        plane.mul_(shade).mul_(factor)
    if look.saturation != 1:
        grey = luminance(planes)
        for plane in planes:
            plane.lerp_(grey, 1 - look.saturation)
    for plane in planes:
        _tone_(plane)
    _sharpen_(image, look.sharpness)
    # In display values, which follow the square root of light, the noise of single photons is about constant. Cameras
    # that expose longer or amplify have more of it.
    noise = look.noise * gain.clamp(min=0.25, max=9.0).sqrt()
    table = _make_noise(image.device)
    flat = image.view(-1)
    for start, offset in zip(range(0, len(flat), _CHUNK), offsets, strict=False):
        part = flat[start : start + _CHUNK]
        part.addcmul_(table[offset : offset + len(part)], noise)
    flat.mul_(255 * (1 - look.black)).add_(255 * look.black + 0.5).clamp_(0, 255.5)
    return image.to(torch.uint8).permute(1, 2, 0).contiguous()


def _expose(small: Tensor) -> Tensor:
    """Compute the exposure factor of a frame from the mean logarithm of luminance of its reduced image."""
    # Limit highlights to the luminance of white walls: lamps must not darken the night.
    mean = (luminance(small.reshape(3, -1)).clamp(0.0, 4.0) + 1e-4).log().mean().exp()
    return (_KEY / _USUAL) * (_USUAL / mean) ** _FOLLOWS


def _tone_(plane: Tensor) -> None:
    """Map exposed light to display values in [0, 1], in place: a soft shoulder and toe, then sRGB's gamma.

    The curve is Narkowicz's fit of the ACES film curve (2016); the gamma is 1.138 sqrt(x) - 0.138 x, which is within
    0.01 of x^(1/2.2).
    """
    plane.mul_(0.8)
    top = (2.51 * plane).add_(0.03).mul_(plane)
    plane.copy_(top.div_((2.43 * plane).add_(0.59).mul_(plane).add_(0.14))).mul_(_WHITE).clamp_(0, 1)
    root = plane.sqrt()
    plane.mul_(-0.138).add_(root, alpha=1.138)


def _sharpen_(image: Tensor, amount: float) -> None:
    """Sharpen (amount > 0) or blur an image `[3, h, w]`, in place, by how pixels differ from their neighbours."""
    if amount == 0:
        return
    for plane in image:
        inner = plane[1:-1, 1:-1]
        around = plane[:-2, 1:-1] + plane[2:, 1:-1]
        around.add_(plane[1:-1, :-2]).add_(plane[1:-1, 2:])
        inner.mul_(1 + 4 * amount).sub_(around, alpha=amount)


@lru_cache(maxsize=32)
def _make_vignette(height: int, width: int, missing: float, device: torch.device) -> Tensor:
    """Compute the share of the light that arrives, `[h, w]`, which falls with the squared distance from the centre."""
    v = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None] / (width / 2)
    u = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / (width / 2)
    corner = 1 + (height / width) ** 2
    return torch.from_numpy(1 - missing / corner * (u * u + v * v)).to(device)


@lru_cache(maxsize=4)
def _make_noise(device: torch.device) -> Tensor:
    """Draw normal deviates `[2^20]`."""
    return torch.from_numpy(np.random.default_rng(1).standard_normal(_NOISE_SIZE, dtype=np.float32)).to(device)
