"""Pictures of many forms, and what EfficientNet takes for each: the reference for preprocessing.

The reference is `inputs.read_photograph`, exactly: Pillow decodes the file and converts it to RGB
(alpha is dropped, not blended; grey is repeated; colour profiles and EXIF orientation are ignored);
the centre square of int(0.875 · shorter side) pixels is cut out, its offset rounded down; Pillow's
bicubic filter scales it to 224 by 224 (a = -0.5; stretched when it shrinks, which smooths; first
across, then down, rounded and clipped to 8 bits after each); then (x - 127) / 128, channels first.
"""

import dataclasses
import io

from PIL import Image


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture file `name`, copied from or made of one in a package of pins.json."""

    name: str
    source: str
    member: str
    # Makes the file's bytes of the package's; None copies them.
    make: object = None

    def read(self, sources):
        """The bytes of the picture file."""
        data = sources.open(self.source).read(self.member)
        return self.make(data) if self.make else data


def grey_jpeg(data):
    """The picture as a JPEG file of one channel."""
    return _encoded(Image.open(io.BytesIO(data)).convert("L"), "JPEG", quality=90)


def tall_jpeg(data):
    """The middle third of the picture, as a progressive JPEG file with 4:2:0 subsampling."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    third = image.width // 3
    strip = image.crop((third, 0, 2 * third, image.height))
    return _encoded(strip, "JPEG", quality=85, progressive=True, subsampling="4:2:0")


def palette_png(data):
    """The picture as a PNG file of 64 colours, by number."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return _encoded(image.quantize(64, Image.Quantize.MEDIANCUT), "PNG")


def _encoded(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


SKIMAGE, SKLEARN = "scikit-image-photographs", "scikit-learn-photographs"

PICTURES = (
    Picture("flower.jpg", SKLEARN, "sklearn/datasets/images/flower.jpg"),
    Picture("hubble.jpg", SKIMAGE, "skimage/data/hubble_deep_field.jpg"),
    Picture("camera-grey.jpg", SKIMAGE, "skimage/data/camera.png", grey_jpeg),
    Picture("astronaut-tall.jpg", SKIMAGE, "skimage/data/astronaut.png", tall_jpeg),
    Picture("chelsea.png", SKIMAGE, "skimage/data/chelsea.png"),
    Picture("horse-alpha.png", SKIMAGE, "skimage/data/horse.png"),
    Picture("coins-grey.png", SKIMAGE, "skimage/data/coins.png"),
    Picture("coffee-palette.png", SKIMAGE, "skimage/data/coffee.png", palette_png),
    Picture("text-wide.png", SKIMAGE, "skimage/data/text.png"),
    Picture("eye-small.png", SKIMAGE, "skimage/data/microaneurysms.png"),
)
