//! The command `modelet serve`.

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;

use modelet_host::config::{Config, DataDir, Setting};
use modelet_host::engine::memory;
use modelet_host::host::{Host, Options};
use modelet_host::logging::SetLevel;
use modelet_host::registry::{Registry as _, Status};
use modelet_host::{process, server};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::args::{DEFAULT_LISTEN, LogForm, ServeArgs};
use crate::commands::state_text;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::out::Out;
use crate::{paths, quiet, table};

/// What is logged unless `RUST_LOG` says otherwise: the server's life and every failure, not every
/// request.
const DEFAULT_LOG: &str = "info,wasmtime=warn,cranelift=warn,sled=warn,ort=warn,h2=info";

pub(crate) fn run(args: ServeArgs, out: &Out) -> Result<Exit, Failure> {
    memory::keep_free_memory();
    quiet::silence_engine()?;
    let mut config = Config::load(args.config.as_deref())
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    refuse_open_doors(&args)?;
    flags(&args)?.into_iter().for_each(|flag| config.show_flag(flag));
    let set_log_level = start_log(args.log);
    let data_dir = args.data_dir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, format!("no runtime: {error}")))?;
    runtime.block_on(async { prepare_process(config.server.connections) })?;
    let options = Options {
        config,
        data_dir: DataDir::new(&data_dir),
        worker: crate::paths::this_program()?,
        set_log_level,
    };
    let host = Host::start(options)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()).at("--data-dir"))?;
    if args.check {
        return checked(&host, &data_dir, out);
    }
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

/// Takes what the system gives before anything is opened.
fn prepare_process(connections: u32) -> Result<(), Failure> {
    process::survive_file_size_limit().map_err(|error| {
        Failure::new(Exit::Failed, format!("no handler for file size limits: {error}"))
    })?;
    let descriptors = process::raise_descriptors();
    if descriptors.before != descriptors.after {
        let (before, after) = (descriptors.before, descriptors.after);
        tracing::info!(before, after, "raised the limit on descriptors");
    }
    if let Some(room) = descriptors.too_few_for(connections) {
        tracing::warn!(
            room,
            wanted = connections,
            "the hard limit on descriptors (ulimit -Hn) is too low for server.connections"
        );
    }
    Ok(())
}

/// The options that decide how the server runs, as `modelet config` shows them.
fn flags(args: &ServeArgs) -> Result<[Setting; 5], Failure> {
    let flag = |key, value: String, default: String, reason| {
        let origin = if value == default { "default" } else { "flag" };
        Setting { key, value: value.into(), default: default.into(), origin, reason }
    };
    let data_dir = args.data_dir()?.display().to_string();
    let own_data_dir = paths::data_home().map(|home| home.join("data").display().to_string());
    let config = args.config.as_ref().map(|path| path.display().to_string());
    Ok([
        flag(
            "--listen",
            args.listen.to_string(),
            DEFAULT_LISTEN.to_string(),
            "Where it listens; on loopback only, because publishing is code execution.",
        ),
        flag(
            "--data-dir",
            data_dir,
            own_data_dir.unwrap_or_default(),
            "Where models are kept; a folder of the user's own.",
        ),
        flag(
            "--config",
            config.unwrap_or_default(),
            String::new(),
            "The file of settings; without one the defaults hold.",
        ),
        flag(
            "--insecure-no-auth",
            args.insecure_no_auth.to_string(),
            false.to_string(),
            "Whether it may listen beyond loopback though nobody has to say who they are.",
        ),
        flag(
            "--log",
            args.log.name().to_owned(),
            LogForm::Text.name().to_owned(),
            "The form of log lines; text for people.",
        ),
    ])
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
    let mut owner = args.until_stdin_ends.then(stdin).transpose()?;
    announce(address);
    host.spawn_background();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = end_of(&mut owner) => {}
        }
    };
    let drained =
        server::serve(host, listener, stop).await.map_err(failed("the server stopped"))?;
    tracing::info!(finished = drained.finished, cut = drained.cut, "drained");
    Ok(if drained.cut == 0 { Exit::Ok } else { Exit::Failed })
}

/// Standard input as a pipe of the reactor, which can be left unread: a thread that waits for its end
/// would keep a server that was told to stop.
fn stdin() -> Result<Receiver, Failure> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned();
    stdin.and_then(Receiver::from_owned_fd).map_err(|error| {
        Failure::usage(format!("standard input is no pipe: {error}")).at("--until-stdin-ends")
    })
}

/// Ends when nobody can write to the pipe any more; without a pipe never.
async fn end_of(owner: &mut Option<Receiver>) {
    let Some(owner) = owner else { return std::future::pending().await };
    // What it says, if anything, does not matter; an error is an end, too.
    let _ = tokio::io::copy(owner, &mut tokio::io::sink()).await;
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

/// Starts the log; gives what changes its level, unless there was a log already.
fn start_log(form: LogForm) -> Option<SetLevel> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_LOG));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A line that cannot be written, on a full disk most often, must not end what it tells of:
        // the complaint about it would go the same way, and panic there.
        .log_internal_errors(false);
    // Another subscriber is there only when this runs inside a test, which then has its log.
    match form {
        LogForm::Text => {
            let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
            let log = log.with_ansi(colours).with_filter_reloading();
            let filter = log.reload_handle();
            log.try_init().ok()?;
            Some(Box::new(move |level| set_level(|new| filter.reload(new), level)))
        }
        LogForm::Json => {
            let log = log.json().with_filter_reloading();
            let filter = log.reload_handle();
            log.try_init().ok()?;
            Some(Box::new(move |level| set_level(|new| filter.reload(new), level)))
        }
    }
}

/// Has the log act on a level: that of the program, with its libraries as quiet as they were.
fn set_level(
    reload: impl Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error>,
    level: &str,
) {
    let libraries = DEFAULT_LOG.split_once(',').map_or("", |(_, libraries)| libraries);
    let filter = EnvFilter::new(format!("{level},{libraries}"));
    // The log is gone only when the process ends.
    let _ = reload(filter);
}
