//! The command `modelet serve`.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use modelet_host::config::{Config, DataDir};
use modelet_host::host::{Host, Options};
use modelet_host::registry::{Registry as _, Status};
use modelet_host::server;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{LogForm, ServeArgs};
use crate::commands::state_text;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::quiet;
use crate::table;

/// What is logged unless `RUST_LOG` says otherwise: the server's life and every failure, not every
/// request.
const DEFAULT_LOG: &str = "info,wasmtime=warn,cranelift=warn,sled=warn,ort=warn";

pub(crate) fn run(args: ServeArgs, out: &Out) -> Result<Exit, Failure> {
    quiet::silence_engine()?;
    let config = Config::load(args.config.as_deref())
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    refuse_open_doors(&args)?;
    start_log(args.log);
    let data_dir = args.data_dir()?;
    let options = Options {
        config,
        data_dir: DataDir::new(&data_dir),
        worker: crate::paths::this_program()?,
    };
    let host = Host::start(options)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()).at("--data-dir"))?;
    if args.check {
        return checked(&host, &data_dir, out);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("no runtime: {error}")))?;
    runtime.block_on(serve(host, &args))
}

/// Says what `--check` found: everything could be opened, or this would not be reached.
fn checked(host: &Host, data_dir: &Path, out: &Out) -> Result<Exit, Failure> {
    let registry = match host.registry().status() {
        Status::Writable => json!({ "state": "writable" }),
        Status::ReadOnly { reason } => json!({ "state": "read_only", "reason": reason }),
    };
    let models = host.snapshot().len();
    let data_dir = data_dir.display().to_string();
    let document =
        json!({ "status": "ok", "data_dir": data_dir, "models": models, "registry": registry });
    out.answer(&document, || {
        table::fields([
            ("settings", "ok".to_owned()),
            ("data directory", data_dir),
            ("models", models.to_string()),
            ("registry", state_text(&registry)),
        ])
    })?;
    Ok(Exit::Ok)
}

async fn serve(host: Arc<Host>, args: &ServeArgs) -> Result<Exit, Failure> {
    let failed = |what: &'static str| {
        move |error: std::io::Error| Failure::new(Exit::Failed, format!("{what}: {error}"))
    };
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot listen on {}: {error}", args.listen))
            .at("--listen")
            .remedy("choose another port, or port 0 for any that is free")
    })?;
    let address = listener.local_addr().map_err(failed("the listener has no address"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed("no signal handler"))?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed("no signal handler"))?;
    announce(address);
    host.spawn_background();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let drained =
        server::serve(host, listener, stop).await.map_err(failed("the server stopped"))?;
    tracing::info!(finished = drained.finished, cut = drained.cut, "drained");
    Ok(if drained.cut == 0 { Exit::Ok } else { Exit::Failed })
}

/// The first line on stdout, which scripts wait for.
fn announce(address: std::net::SocketAddr) {
    let mut stdout = std::io::stdout();
    // A script that closed its end of the pipe still wants the server.
    let _ = writeln!(stdout, "modelet listening on http://{address}").and_then(|()| stdout.flush());
}

fn refuse_open_doors(args: &ServeArgs) -> Result<(), Failure> {
    if args.listen.ip().is_loopback() || args.insecure_no_auth {
        return Ok(());
    }
    let message = format!(
        "{} can be reached from other machines, and nobody would have to say who they are",
        args.listen
    );
    Err(Failure::usage(message).at("--listen").remedy(
        "listen on 127.0.0.1, or say --insecure-no-auth if a proxy in front checks callers",
    ))
}

fn start_log(form: LogForm) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Another subscriber is there only when this runs inside a test, which then has its log.
    let _ = match form {
        LogForm::Text => {
            log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogForm::Json => log.json().try_init(),
    };
}
