//! Pictures are prepared as the reference, Pillow, prepares them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that is wrong may panic")]

use std::path::PathBuf;

use image_classifier::prepare;

/// The folder that `cargo xtask setup` makes.
fn models() -> PathBuf {
    std::env::var_os("MODELET_MODELS").expect("MODELET_MODELS, which xtask sets").into()
}

/// Values of the reference beside a picture: FP32 [3, 224, 224].
fn reference(picture: &std::path::Path) -> Vec<f32> {
    let bytes = std::fs::read(picture.with_extension("f32")).unwrap();
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

#[test]
fn ten_pictures_are_prepared_like_the_reference() {
    let mut pictures: Vec<_> = std::fs::read_dir(models().join("pictures"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension != "f32"))
        .collect();
    pictures.sort();
    assert!(pictures.len() >= 10, "{pictures:?}");
    for picture in pictures {
        let prepared = prepare(&std::fs::read(&picture).unwrap()).unwrap();
        let reference = reference(&picture);
        assert_eq!(prepared.len(), reference.len());
        let differences = prepared.iter().zip(&reference).map(|(a, b)| (a - b).abs());
        let (sum, most) = differences.fold((0.0, 0.0f32), |(sum, most), d| (sum + d, most.max(d)));
        let mean = sum / prepared.len() as f32;
        // PNG is exact. Decoders of JPEG may round differently (ITU-T T.83 allows it): by three of the
        // 256 levels at most, and hardly anywhere.
        let jpeg = picture.extension().is_some_and(|extension| extension == "jpg");
        let (allowed_mean, allowed) = if jpeg { (1e-3, 3.0 / 128.0) } else { (1e-6, 1e-6) };
        let name = picture.display();
        assert!(mean <= allowed_mean && most <= allowed, "{name}: mean {mean}, most {most}");
    }
}

#[test]
fn bytes_that_are_no_picture_or_too_large_a_one_are_told_so() {
    for (bytes, words) in [
        (&b""[..], "neither a JPEG nor a PNG"),
        (b"GIF89a", "neither a JPEG nor a PNG"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "unexpected end"),
    ] {
        let error = prepare(bytes).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
