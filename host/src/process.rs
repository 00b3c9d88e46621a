//! What the operating system allows this process: descriptors and address space.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

/// Descriptors besides those of connections: the data directory, the event loop, libraries, and files
/// that are open for a moment.
pub const OWN_DESCRIPTORS: u64 = 256;

/// How many descriptors there may be, before and after [`raise_descriptors`]; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// As the process was started.
    pub before: Option<u64>,
    /// From here on.
    pub after: Option<u64>,
}

/// Raises the soft limit on descriptors to the hard one: it is low only for programs that use
/// `select`, and each connection takes one.
pub fn raise_descriptors() -> Descriptors {
    let Rlimit { current: before, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    Descriptors { before, after: if raised.is_ok() { maximum } else { before } }
}

impl Descriptors {
    /// How many connections there are descriptors for, if fewer than `wanted`.
    pub fn too_few_for(&self, wanted: u32) -> Option<u64> {
        let connections = self.after?.saturating_sub(OWN_DESCRIPTORS);
        (connections < u64::from(wanted)).then_some(connections)
    }
}

/// Has a write past the limit on file sizes fail like one on a full disk, instead of ending the
/// process. To be called within a runtime.
///
/// # Errors
/// When the system takes no handler.
pub fn survive_file_size_limit() -> std::io::Result<()> {
    // The handler stays when what listens to it is dropped; there is nothing to be done on a signal.
    signal(SignalKind::from_raw(libc::SIGXFSZ)).map(|_| ())
}

/// The most bytes of address space this process may have, if there is a limit.
pub fn address_space() -> Option<u64> {
    getrlimit(Resource::As).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_rises_to_the_hard_one() {
        let raised = raise_descriptors();
        assert_eq!(raised.after, getrlimit(Resource::Nofile).maximum);
        assert_eq!(raise_descriptors().before, raised.after);
    }

    #[test]
    fn connections_that_find_no_descriptor_are_told() {
        let limited = Descriptors { before: Some(1024), after: Some(4096) };
        assert_eq!(limited.too_few_for(3840), None);
        assert_eq!(limited.too_few_for(3841), Some(3840));
        assert_eq!(Descriptors { before: None, after: None }.too_few_for(u32::MAX), None);
    }
}
