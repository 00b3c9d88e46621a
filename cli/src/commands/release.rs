//! `modelet release`: ends the quarantine of a version.

use crate::args::ReleaseArgs;
use crate::client::Client;
use crate::failure::Failure;
use crate::out::Out;

pub(super) fn run(args: &ReleaseArgs, client: &Client, out: &Out) -> Result<(), Failure> {
    let (model, version) = (&args.version.model, &args.version.version);
    let answer = client.release(model, version, args.dry_run.on)?;
    let done = if args.dry_run.on { "would release" } else { "released" };
    out.answer(&answer.document, || format!("{done} {model}@{version} from quarantine"))
}
