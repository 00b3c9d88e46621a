//! Two hundred conversations with the example `chat`, at a server of their own.

use anyhow::Result;

use crate::process::{self, workspace};
use crate::server::Server;
use crate::setup::Ready;
use crate::{demo, examples, guests};

/// Builds what it takes, serves it, and talks; `tests/clients/conversations.py` says what has to hold.
pub(super) fn run(ready: &Ready) -> Result<()> {
    demo::build(ready)?;
    guests::provide_toolchain()?;
    guests::build_one(ready, "chat")?;
    let data_dir = ready.scratch("conversations")?;
    let server = Server::start(ready, "127.0.0.1:0", data_dir.path())?;
    examples::publish_one(ready, &server.url, "chat")?;
    let mut talk = ready.command(&ready.python);
    talk.current_dir(workspace().join("tests")).env("MODELET_SERVER", &server.url);
    process::run(talk.args(["-m", "clients.conversations"]))?;
    server.stop()
}
