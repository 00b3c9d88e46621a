//! Lists the files of the guest SDK and of the contract, which `modelet new` gives to a project.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Folders of the repository that a project's copy of the SDK has.
const FOLDERS: [&str; 2] = ["guest-sdk", "wit"];
/// What a project has no use for.
const NOT_COPIED: [&str; 2] = ["tests", "target"];

fn main() -> io::Result<()> {
    // Where cargo runs build scripts: the package's own folder.
    let root = Path::new("..");
    let mut files = Vec::new();
    for folder in FOLDERS {
        println!("cargo::rerun-if-changed=../{folder}");
        list(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut text = "&[\n".to_owned();
    for file in files {
        let name = file.strip_prefix(root).map_err(io::Error::other)?.display();
        // The folder is left to the compiler to say: outputs of builds are kept outside the checkout,
        // and another checkout would be given this one's paths.
        let path = format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/../{name}\")");
        text.push_str(&format!("    (\"{name}\", include_str!({path})),\n"));
    }
    text.push_str("]\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    fs::write(out.join("sdk.rs"), text)
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        } else if !NOT_COPIED.iter().any(|name| path.ends_with(name)) {
            list(&path, files)?;
        }
    }
    Ok(())
}
