"""What differs between two images of an unchanged place: season, sun, atmosphere, sensor, registration."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.ndimage as ndi

from bitemporal.synthetic.ground import Grid, Mask, Plane, power_noise
from bitemporal.synthetic.surfaces import SEASONS, Season


@dataclass(frozen=True)
class Conditions:
    """How one image was taken.

    Attributes:
        season: Season of the vegetation.
        azimuth: Azimuth of the sun, radians clockwise from north.
        elevation: Elevation of the sun above the horizon, radians.
        gain: Brightness factor of the whole image.
        gamma: Exponent of the tone curve; 1 changes nothing.
        cast: Colour cast, factors of red, green and blue.
        saturation: 0 is grey, 1 changes nothing.
        shade: Share of the light that reaches shadows.
        tilt: Tilt of the camera from straight down, radians; high objects lean by it.
        heading: Direction in which they lean, radians clockwise from north.
        haze: Mean opacity of the haze.
        veil: Unevenness of the haze.
        blur: Standard deviation of the point spread function in pixels.
        noise: Standard deviation of the sensor noise, on the scale of 0 to 255.
        shift: Misregistration in pixels, along columns and rows.
        rotation: Misregistration in radians about the centre.
    """

    season: Season
    azimuth: float
    elevation: float
    gain: float
    gamma: float
    cast: tuple[float, float, float]
    saturation: float
    shade: float
    tilt: float
    heading: float
    haze: float
    veil: float
    blur: float
    noise: float
    shift: tuple[float, float] = (0.0, 0.0)
    rotation: float = 0.0


def draw_conditions(rng: np.random.Generator, registered: bool) -> Conditions:
    """Draw random conditions for one image.

    Args:
        rng: Source of randomness.
        registered: Whether the image defines the grid; the other date is shifted against it by up to about 1.5 pixels.
    """
    warm, green = rng.normal(0, 0.045), rng.normal(0, 0.02)
    hazy = rng.random() < 0.35
    shift, rotation = (0.0, 0.0), 0.0
    if not registered:
        distance, direction = rng.uniform(0, 1.5), rng.uniform(0, 2 * np.pi)
        shift = float(distance * np.cos(direction)), float(distance * np.sin(direction))
        rotation = float(rng.normal(0, 0.0012))
    return Conditions(
        season=SEASONS[int(rng.choice(4, p=[0.22, 0.33, 0.25, 0.2]))],
        azimuth=float(np.radians(rng.uniform(110, 185))),
        elevation=float(np.radians(rng.uniform(30, 68))),
        gain=float(np.exp(rng.normal(-0.06, 0.14))),
        gamma=float(np.exp(rng.normal(0.0, 0.11))),
        cast=(float(1 + warm), float(1 + green), float(1 - warm)),
        saturation=float(np.clip(rng.normal(0.92, 0.16), 0.5, 1.15)),
        shade=float(rng.uniform(0.32, 0.5)),
        tilt=float(np.radians(rng.uniform(0, 7))),
        heading=float(rng.uniform(0, 2 * np.pi)),
        haze=float(rng.uniform(0.12, 0.42) if hazy else rng.uniform(0.0, 0.10)),
        veil=float(rng.uniform(0.2, 0.8)),
        blur=float(rng.uniform(0.40, 0.75)),
        noise=float(rng.uniform(1.0, 3.5)),
        shift=shift,
        rotation=rotation,
    )


def lit(colour: Plane, height: Plane, grid: Grid, conditions: Conditions) -> Plane:
    """Apply sunlight and shadows to coloured relief.

    Args:
        colour: Colours of the canvas in full sun on flat ground, H x W x 3. Changed in place.
        height: Metres above ground, H x W.
        grid: The canvas.
        conditions: Conditions of the date.

    Returns:
        The lit colours, H x W x 3.
    """
    east, south = np.sin(conditions.azimuth), -np.cos(conditions.azimuth)
    # the height raster has stepped edges; slight smoothing avoids glitter along them
    slopes = np.gradient(ndi.gaussian_filter(height, 0.7, truncate=3), grid.gsd)
    slope_y, slope_x = (np.clip(slope, -1.3, 1.3) for slope in slopes)
    tilt = (slope_x * np.float32(east) + slope_y * np.float32(south)) / np.float32(np.tan(conditions.elevation))
    direct = np.clip((1 - tilt) / np.sqrt(1 + slope_x**2 + slope_y**2), 0.0, 1.55)
    sun = ndi.gaussian_filter(_sunlit(height, grid, float(east), float(south), conditions.elevation), 0.5, truncate=3)
    direct *= sun
    ambient = np.float32(conditions.shade)
    for channel, sky in enumerate((0.92, 1.0, 1.14)):
        colour[..., channel] *= ambient * np.float32(sky) + (1 - ambient) * direct
    return colour


def _sunlit(height: Plane, grid: Grid, east: float, south: float, elevation: float) -> Plane:
    """1 in the sun, 0 in a cast shadow: every pixel searches towards the sun for something high enough."""
    highest = float(height.max())
    rise = np.tan(elevation) * grid.gsd
    steps = min(int(highest / rise) + 1, 160)
    rows, cols = height.shape
    horizon = height.copy()
    for step in range(1, steps + 1):
        dx, dy = round(step * east), round(step * south)
        target = horizon[max(0, -dy) : rows - max(0, dy), max(0, -dx) : cols - max(0, dx)]
        source = height[max(0, dy) : rows - max(0, -dy), max(0, dx) : cols - max(0, -dx)]
        np.maximum(target, source - np.float32(step * rise), out=target)
    return (horizon <= height + 0.15).astype(np.float32)


def leaned(colour: Plane, height: Plane, solid: Mask, grid: Grid, conditions: Conditions) -> Plane:
    """The view of a camera that does not look straight down: high objects lean, and walls become visible.

    Args:
        colour: Lit ground, H x W x 3 of the canvas.
        height: Metres above ground, H x W.
        solid: Whether a pixel belongs to a building, which has walls; H x W.
        grid: The canvas.
        conditions: Conditions of the date.

    Returns:
        The colours as seen, H x W x 3; what leans hides the ground below it.
    """
    slope = float(np.tan(conditions.tilt))
    east, south = float(np.sin(conditions.heading)), float(-np.cos(conditions.heading))
    steps = int(float(height.max()) * slope / grid.gsd)
    if steps < 1:
        return colour
    rows, cols = height.shape
    source = np.arange(rows * cols, dtype=np.int32).reshape(rows, cols)
    wall = np.zeros((rows, cols), bool)
    rise = grid.gsd / slope
    numbers = source.copy()
    for step in range(1, steps + 1):
        dx, dy = -round(step * east), -round(step * south)
        at = slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), cols - max(0, dx))
        seen = slice(max(0, dy), rows - max(0, -dy)), slice(max(0, dx), cols - max(0, -dx))
        # the ray of the pixel passes the place ``seen`` at this height; the farthest hit is the first
        above = height[seen] - np.float32(step * rise)
        hit = above >= 0
        np.copyto(source[at], numbers[seen], where=hit)
        np.copyto(wall[at], (above > rise) & solid[seen], where=hit)
    view = np.take(colour.reshape(-1, 3), source, axis=0)
    facing = max(0.0, -(east * np.sin(conditions.azimuth) - south * np.cos(conditions.azimuth)))
    light = conditions.shade + (1 - conditions.shade) * facing
    view[wall] = np.array([0.62, 0.60, 0.57], np.float32) * np.float32(light)
    return view


def sensed(colour: Plane, grid: Grid, conditions: Conditions, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """The sensor's image of lit ground.

    Args:
        colour: Lit ground, H x W x 3 of the canvas. Changed in place.
        grid: The canvas.
        conditions: Conditions of the date.
        rng: Source of the haze and the noise.

    Returns:
        The product, height x width x 3.
    """
    cast = np.array(conditions.cast, np.float32) * np.float32(conditions.gain)
    if conditions.shift != (0.0, 0.0) or conditions.rotation:
        colour = _moved(colour, grid, conditions)
    else:
        colour = colour[grid.product]
    veil: Plane | np.float32 = np.float32(conditions.haze)
    if conditions.haze > 0.1:
        uneven = power_noise(rng, colour.shape[:2], grid.gsd, 250.0, 30.0, 1.4)
        veil = np.clip(conditions.haze * (1 + conditions.veil * 0.5 * uneven), 0, 0.7)[..., None].astype(np.float32)
    noise = rng.standard_normal(colour.shape, dtype=np.float32)
    colour = colour * cast
    np.clip(colour, 0, None, out=colour)
    grey = colour @ np.array([0.3, 0.59, 0.11], np.float32)
    colour = grey[..., None] + (colour - grey[..., None]) * np.float32(conditions.saturation)
    colour += (np.array([0.70, 0.74, 0.78], np.float32) - colour) * veil
    # a table of 4,096 tones is finer than the noise, and much faster than a power of every pixel
    tones = np.linspace(0, 1, 4096, dtype=np.float32) ** np.float32(conditions.gamma)
    colour = tones[(np.clip(colour, 0, 1) * np.float32(4095)).astype(np.int16)]
    for channel in range(3):
        colour[..., channel] = ndi.gaussian_filter(colour[..., channel], conditions.blur, truncate=3)
    digital = colour * 255 + noise * np.float32(conditions.noise)
    return np.clip(np.round(digital), 0, 255).astype(np.uint8)


def _moved(colour: Plane, grid: Grid, conditions: Conditions) -> Plane:
    """The product's part of a canvas, seen by a slightly shifted and rotated camera."""
    cos, sin = np.cos(conditions.rotation), np.sin(conditions.rotation)
    matrix = np.array([[cos, -sin], [sin, cos]])
    middle = np.array([(grid.height - 1) / 2, (grid.width - 1) / 2])
    offset = middle + grid.pad - np.array(conditions.shift[::-1]) - matrix @ middle
    out = np.empty((grid.height, grid.width, 3), np.float32)
    size = (grid.height, grid.width)
    for channel in range(3):
        out[..., channel] = ndi.affine_transform(colour[..., channel], matrix, offset, size, order=1, mode="nearest")
    return out
