//! What the machine itself must have: programs of its distribution, installed where that can be done.

use std::process::Command;

use anyhow::{Result, bail};

use crate::process;

/// A program, or a part of one, that comes with the distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Need {
    /// What it is to people.
    pub(crate) name: &'static str,
    /// Debian's package of it.
    pub(crate) package: &'static str,
    /// Runs only where it is there.
    pub(crate) check: &'static [&'static str],
}

/// Makes the Python environment and fetches from PyPI.
pub(crate) const PYTHON: [Need; 3] = [
    Need { name: "Python 3.11 or later", package: "python3", check: &["python3", "--version"] },
    Need {
        name: "pip for Python",
        package: "python3-pip",
        check: &["python3", "-m", "pip", "--version"],
    },
    Need {
        name: "venv for Python",
        package: "python3-venv",
        check: &["python3", "-c", "import ensurepip, venv"],
    },
];
/// Fetches from npm, whose registry has the digits.
pub(crate) const NPM: Need = Need { name: "npm", package: "npm", check: &["npm", "--version"] };
/// Loaded by Triton's load tester.
pub(crate) const B64: Need = Need {
    name: "libb64",
    package: "libb64-0d",
    check: &["python3", "-c", "import ctypes; ctypes.CDLL('libb64.so.0d')"],
};
/// Runs an example of the README.
pub(crate) const CURL: Need = Need { name: "curl", package: "curl", check: &["curl", "--version"] };

/// Loads servers in the benchmarks. Asked for its version, it ends with a failure, so it is looked for.
pub(crate) const WRK: Need =
    Need { name: "wrk", package: "wrk", check: &["sh", "-c", "command -v wrk"] };

/// What is to be done about what is missing.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Nothing,
    /// Install these packages.
    Install(Vec<&'static str>),
    /// Tell the person.
    Refuse(String),
}

/// Sees to it that everything needed is there: installs it for root on a machine with apt-get, and
/// errors with what to install elsewhere.
pub(crate) fn provide(needs: &[Need]) -> Result<()> {
    let is_there = |need: &Need| match need.check {
        [program, arguments @ ..] => process::is_installed(program, arguments),
        [] => true,
    };
    let missing: Vec<_> = needs.iter().copied().filter(|need| !is_there(need)).collect();
    match plan(&missing, can_install()) {
        Plan::Nothing => Ok(()),
        Plan::Refuse(message) => bail!(message),
        Plan::Install(packages) => {
            println!("    installing with apt-get: {}", packages.join(" "));
            process::run(apt_get().args(["update", "-qq"]))?;
            process::run(
                apt_get().args(["install", "-qq", "--no-install-recommends"]).args(packages),
            )
        }
    }
}

fn plan(missing: &[Need], can_install: bool) -> Plan {
    if missing.is_empty() {
        return Plan::Nothing;
    }
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    if can_install {
        return Plan::Install(packages);
    }
    let names: Vec<_> = missing.iter().map(|need| need.name).collect();
    Plan::Refuse(format!(
        "this machine lacks {}; install what is missing (on Debian: apt-get install {}), or run this as root where there is apt-get",
        names.join(", "),
        packages.join(" ")
    ))
}

fn apt_get() -> Command {
    let mut apt_get = process::command("apt-get");
    apt_get.env("DEBIAN_FRONTEND", "noninteractive");
    apt_get
}

fn can_install() -> bool {
    let is_root = process::output(process::command("id").arg("-u")).is_ok_and(|id| id == b"0\n");
    is_root && process::is_installed("apt-get", &["--version"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_installed_or_named_with_its_package() {
        assert_eq!(plan(&[], false), Plan::Nothing);
        let missing = [NPM, PYTHON[1]];
        assert_eq!(plan(&missing, true), Plan::Install(vec!["npm", "python3-pip"]));
        let Plan::Refuse(message) = plan(&missing, false) else { panic!("it would install") };
        assert!(message.starts_with("this machine lacks npm, pip for Python;"), "{message}");
        assert!(message.contains("apt-get install npm python3-pip"), "{message}");
    }

    #[test]
    fn nothing_is_done_where_everything_is_there() {
        provide(&[Need { name: "a shell", package: "dash", check: &["sh", "-c", ":"] }]).unwrap();
    }
}
