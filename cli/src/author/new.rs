//! `modelet new`: a project that builds, passes its tests and can be published as it is.

use std::path::{Path, PathBuf};
use std::{fs, io};

use modelet_host::names::ModelName;
use serde_json::json;

use crate::args::NewArgs;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;

/// The guest SDK and the contract, file by file.
const SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk.rs"));
/// Where a project keeps its copy of them.
const VENDOR: &str = "vendor/modelet";
/// The graph of the template, which multiplies by four weights.
const GRAPH: &[u8] = include_bytes!("../../template/model.onnx");
const TEXTS: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("../../template/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("../../template/lib.rs.txt")),
    ("modelet.toml", include_str!("../../template/modelet.toml.txt")),
    ("README.md", include_str!("../../template/README.md.txt")),
];

pub(crate) fn run(args: &NewArgs, out: &Out) -> Result<(), Failure> {
    let folder = args.folder.clone().unwrap_or_else(|| PathBuf::from(args.name.as_str()));
    if folder.exists() {
        let text = format!("{} is there already", folder.display());
        return Err(Failure::new(Exit::Conflict, text).remedy("give another NAME, or --folder"));
    }
    let sdk = match &args.sdk {
        None => format!("{VENDOR}/guest-sdk"),
        Some(path) => fs::canonicalize(path)
            .map_err(|error| crate::body::unreadable(path, &error))?
            .display()
            .to_string(),
    };
    let files = files(&args.name, &sdk, args.sdk.is_none());
    write(&folder, &files).map_err(|error| {
        Failure::new(Exit::Failed, format!("{} cannot be written: {error}", folder.display()))
    })?;
    let document = json!({ "name": args.name, "folder": folder, "files": files.len() });
    out.answer(&document, || {
        let folder = folder.display();
        format!(
            "made {folder}; next:\n  cd {folder}\n  cargo test\n  modelet build\n  modelet publish"
        )
    })
}

/// The files of a project.
fn files(name: &ModelName, sdk: &str, vendored: bool) -> Vec<(String, Vec<u8>)> {
    let fill = |text: &str| text.replace("{{name}}", name.as_str()).replace("{{sdk}}", sdk);
    let texts = TEXTS.iter().map(|(path, text)| ((*path).to_owned(), fill(text).into_bytes()));
    let mut files: Vec<_> = texts.collect();
    files.push(("model.onnx".to_owned(), GRAPH.to_vec()));
    files.push((".gitignore".to_owned(), b"/target\n".to_vec()));
    if vendored {
        let copies =
            SDK.iter().map(|(path, text)| (format!("{VENDOR}/{path}"), text.as_bytes().to_vec()));
        files.extend(copies);
    }
    files
}

fn write(folder: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    for (path, bytes) in files {
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_project_has_the_sdk_and_no_place_of_this_machine() {
        let name: ModelName = "a-model".parse().unwrap();
        let files = files(&name, "vendor/modelet/guest-sdk", true);
        let paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
        for path in [
            "Cargo.toml",
            "vendor/modelet/guest-sdk/Cargo.toml",
            "vendor/modelet/guest-sdk/macro/src/lib.rs",
            "vendor/modelet/wit/worlds.wit",
            "vendor/modelet/wit/deps/wasi-nn/nn.wit",
        ] {
            assert!(paths.contains(&path), "{path} is not in {paths:?}");
        }
        for (path, bytes) in files.iter().filter(|(path, _)| path != "model.onnx") {
            let text = std::str::from_utf8(bytes).unwrap();
            assert!(!text.contains("{{"), "{path}");
            assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "{path}");
        }
    }
}
