//! The cache folder: everything downloaded or built lies here, outside the checkout.
//!
//! Whatever is made is made under `partial/` and renamed into place when it is whole, so that an
//! interrupted run leaves nothing that a later run could mistake for a finished artefact. Two runs
//! at once may both make the same thing; the first rename wins.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// Hex digits of a key in a folder's name: enough to tell revisions of a script apart.
const KEY_DIGITS: usize = 16;

/// The cache folder.
pub(crate) struct Cache {
    root: PathBuf,
}

/// A place under `partial/`, removed on drop unless it was renamed away.
pub(crate) struct Partial {
    path: PathBuf,
}

/// A hash over named inputs that says which revision of an artefact this is.
pub(crate) struct Key(Sha256);

impl Cache {
    /// Opens `${XDG_CACHE_HOME:-~/.cache}/modelet`, made if it is missing.
    pub(crate) fn open() -> Result<Self> {
        let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
            Some(base) => PathBuf::from(base),
            None => {
                let home = std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME")?;
                Path::new(&home).join(".cache")
            }
        };
        Self::at(base.join("modelet"))
    }

    /// Opens the cache in `root`, and clears away what dead runs left half made.
    pub(crate) fn at(root: PathBuf) -> Result<Self> {
        let cache = Self { root };
        let partial = cache.path("partial");
        fs::create_dir_all(&partial)
            .with_context(|| format!("cannot make {}", partial.display()))?;
        for entry in fs::read_dir(&partial)? {
            let path = entry?.path();
            if !belongs_to_a_live_process(&path) {
                remove(&path);
            }
        }
        Ok(cache)
    }

    /// The path of `name` in the cache.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A fresh name to make something under; the folder around it exists.
    pub(crate) fn partial(&self, name: &str) -> Partial {
        let path = self.path("partial").join(format!("{name}.{}", std::process::id()));
        remove(&path);
        Partial { path }
    }

    /// The folder `NAME-KEY`, filled by `make` unless it is there; `NAME` becomes a link to it.
    pub(crate) fn folder(
        &self,
        name: &str,
        key: Key,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let keyed = format!("{name}-{}", key.finish());
        let finished = self.path(&keyed);
        if !finished.is_dir() {
            let partial = self.partial(&keyed);
            fs::create_dir(&partial.path)?;
            make(&partial.path)?;
            partial.finish(&finished)?;
        }
        self.link(name, &keyed)?;
        Ok(finished)
    }

    /// Points the link `name` at `target`, both directly in the cache.
    fn link(&self, name: &str, target: &str) -> Result<()> {
        let link = self.path(name);
        if fs::read_link(&link).is_ok_and(|current| current == Path::new(target)) {
            return Ok(());
        }
        let partial = self.partial(name);
        std::os::unix::fs::symlink(target, &partial.path)?;
        fs::rename(&partial.path, &link)
            .with_context(|| format!("cannot replace {}", link.display()))
    }
}

impl Partial {
    /// Where to make it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the finished file or folder at `place`; another run's finished one is as good.
    pub(crate) fn finish(self, place: &Path) -> Result<()> {
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        match fs::rename(&self.path, place) {
            Err(error) if !place.is_dir() => {
                Err(error).with_context(|| format!("cannot make {}", place.display()))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

impl Key {
    /// A key over nothing yet.
    pub(crate) fn new() -> Self {
        Self(Sha256::new())
    }

    /// Adds a named input; the lengths keep "ab", "c" apart from "a", "bc".
    pub(crate) fn add(mut self, name: &str, bytes: &[u8]) -> Self {
        self.0.update(format!("{} {name} {}\n", name.len(), bytes.len()));
        self.0.update(bytes);
        self
    }

    fn finish(self) -> String {
        hex(&self.0.finalize()).chars().take(KEY_DIGITS).collect()
    }
}

/// The bytes as hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn belongs_to_a_live_process(partial: &Path) -> bool {
    partial.extension().is_some_and(|id| Path::new("/proc").join(id).exists())
}

/// Removes a file, link or folder, if it is there; what stays is cleared by the next run.
fn remove(path: &Path) {
    let _ = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cache of its own for one test, removed afterwards.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(test: &str) -> Self {
            let name = format!("modelet-xtask-{test}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn cache(&self) -> Cache {
            Cache::at(self.0.clone()).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            remove(&self.0);
        }
    }

    fn key(text: &str) -> Key {
        Key::new().add("text", text.as_bytes())
    }

    #[test]
    fn a_folder_is_made_once_per_key() {
        let scratch = Scratch::new("once");
        let cache = scratch.cache();
        let make = |path: &Path| Ok(fs::write(path.join("file"), "1")?);
        let first = cache.folder("models", key("1"), make).unwrap();
        let again = cache.folder("models", key("1"), |_| panic!("made twice")).unwrap();
        assert_eq!(first, again);
        let other = cache.folder("models", key("2"), make).unwrap();
        assert_ne!(first, other);
        assert_eq!(fs::canonicalize(cache.path("models")).unwrap(), other.canonicalize().unwrap());
    }

    #[test]
    fn a_failed_making_leaves_nothing() {
        let scratch = Scratch::new("failed");
        let cache = scratch.cache();
        let fail = |path: &Path| {
            fs::write(path.join("half"), "1")?;
            anyhow::bail!("no more")
        };
        assert!(cache.folder("models", key("1"), fail).is_err());
        assert_eq!(fs::read_dir(cache.path("partial")).unwrap().count(), 0);
        assert!(!cache.path("models").exists());
    }

    #[test]
    fn what_a_dead_run_left_is_cleared_and_what_a_live_one_makes_is_kept() {
        let scratch = Scratch::new("dead");
        let cache = scratch.cache();
        let live = cache.partial("live");
        fs::write(live.path(), "1").unwrap();
        // Process ids end at 2^22 on Linux.
        let dead = cache.path("partial").join("dead.99999999");
        fs::create_dir(&dead).unwrap();
        scratch.cache();
        assert!(live.path().exists());
        assert!(!dead.exists());
    }

    #[test]
    fn keys_tell_where_one_input_ends() {
        let joined = Key::new().add("a", b"bc").finish();
        let split = Key::new().add("a", b"b").add("c", b"").finish();
        assert_ne!(joined, split);
        assert_eq!(joined.len(), KEY_DIGITS);
    }
}
