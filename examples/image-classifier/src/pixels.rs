//! From the bytes of a picture to what the network sees: the middle of it, 224 by 224.

use std::io::Cursor;

use image::{ImageFormat, ImageReader, Limits, RgbImage, imageops};
use jpeg_decoder::{Decoder, PixelFormat};
use modelet_guest::{Error, Result};

use crate::resample::bicubic;

/// Pixels of each side of what the network sees.
pub const SIDE: usize = 224;
/// The share of a picture's shorter side that the network sees.
const CROP_SHARE: f64 = 0.875;
/// Pixels of a side of a picture at most; a photograph of 100 megapixels is below.
const MOST_SIDE: u32 = 12_000;
/// Bytes that decoding may take: a picture of 40 megapixels, which fits the guest's memory.
const MOST_BYTES: usize = 128 << 20;
/// How the files begin.
const JPEG: &[u8] = b"\xff\xd8\xff";
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Decodes, crops and resizes a JPEG or PNG: FP32 [3, 224, 224], red first, (x - 127) / 128.
///
/// # Errors
/// When the bytes are no such picture, or one that is too large.
pub fn prepare(file: &[u8]) -> Result<Vec<f32>> {
    let picture = if file.starts_with(JPEG) {
        jpeg(file)?
    } else if file.starts_with(PNG) {
        png(file)?
    } else {
        return Err(Error::failed("these bytes are neither a JPEG nor a PNG"));
    };
    let centre = resized(&picture)?;
    let planes = (0..3).flat_map(|channel| {
        centre.iter().skip(channel).step_by(3).map(|value| (f32::from(*value) - 127.0) / 128.0)
    });
    Ok(planes.collect())
}

/// Transparency is left out, as the reference does it.
fn png(file: &[u8]) -> Result<RgbImage> {
    let mut reader = ImageReader::with_format(Cursor::new(file), ImageFormat::Png);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MOST_SIDE), Some(MOST_SIDE));
    limits.max_alloc = Some(MOST_BYTES as u64);
    reader.limits(limits);
    Ok(reader.decode()?.into_rgb8())
}

fn jpeg(file: &[u8]) -> Result<RgbImage> {
    let mut decoder = Decoder::new(file);
    decoder.set_max_decoding_buffer_size(MOST_BYTES);
    let pixels = decoder.decode()?;
    let info = decoder.info().ok_or_else(|| Error::failed("a JPEG without a frame"))?;
    let pixels = match info.pixel_format {
        PixelFormat::RGB24 => pixels,
        PixelFormat::L8 => pixels.into_iter().flat_map(|grey| [grey; 3]).collect(),
        other => return Err(Error::failed(format!("a JPEG of {other:?}; take RGB or grey"))),
    };
    let picture = RgbImage::from_raw(info.width.into(), info.height.into(), pixels);
    picture.ok_or_else(|| Error::failed("a JPEG that ends too early"))
}

/// The middle of a picture at the network's size: bytes [224, 224, 3].
fn resized(picture: &RgbImage) -> Result<Vec<u8>> {
    let (width, height) = picture.dimensions();
    let side = (f64::from(width.min(height)) * CROP_SHARE) as u32;
    if side == 0 {
        return Err(Error::failed(format!("a picture of {width} by {height} has no middle")));
    }
    let (left, top) = ((width - side) / 2, (height - side) / 2);
    // Cut out before it is resized, so that nothing outside flows in.
    let middle = imageops::crop_imm(picture, left, top, side, side).to_image();
    Ok(bicubic(middle.as_raw(), side as usize, SIDE))
}
