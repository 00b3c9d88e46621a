//! Where this program is, and where this user's data is kept, by the XDG base directory specification.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::exit::Exit;
use crate::failure::Failure;

/// The file of the running program, whose hidden commands are the workers.
///
/// # Errors
/// When the system does not say.
pub(crate) fn this_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::new(Exit::Failed, format!("this program cannot find itself: {error}"))
    })
}

/// `$XDG_DATA_HOME/modelet`, or `~/.local/share/modelet` where that is not set.
///
/// # Errors
/// When neither `XDG_DATA_HOME` nor `HOME` is set.
pub(crate) fn data_home() -> Result<PathBuf, Failure> {
    data_home_of(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME")).ok_or_else(|| {
        Failure::usage("there is no place for data: neither XDG_DATA_HOME nor HOME is set")
            .remedy("set HOME, or name the directory on the command line")
    })
}

fn data_home_of(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    // The specification says to ignore a relative path.
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    let home = home.filter(|home| !home.is_empty()).map(PathBuf::from);
    Some(xdg.or_else(|| home.map(|home| home.join(".local/share")))?.join("modelet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_kept_where_xdg_says_or_else_below_home() {
        let of = |xdg: Option<&str>, home: Option<&str>| {
            data_home_of(xdg.map(Into::into), home.map(Into::into))
        };
        assert_eq!(of(Some("/x"), Some("/h")), Some("/x/modelet".into()));
        assert_eq!(of(None, Some("/h")), Some("/h/.local/share/modelet".into()));
        assert_eq!(of(Some("relative"), Some("/h")), Some("/h/.local/share/modelet".into()));
        assert_eq!(of(Some(""), Some("")), None);
    }
}
