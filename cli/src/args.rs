//! The command line: everything a person may type, with the help that teaches it.

mod author;
mod value;
mod worker;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use modelet_host::digest::Digest;
use modelet_host::names::{AliasName, ModelName, VersionName};
use modelet_host::version::BackendChoice;

pub(crate) use self::author::{BuildArgs, CompletionsArgs, DevArgs, InspectArgs, ManArgs, NewArgs};
pub(crate) use self::value::{AssetFile, ModelTarget, Pair, VersionRef, WeightedVersion};
pub(crate) use self::worker::{CompileWorkerArgs, GraphWorkerArgs};
use crate::failure::Failure;
use crate::{exit, paths};

/// The port of examples and defaults, on loopback only: publishing is code execution, and other
/// machines are let in by an operator's decision.
pub(crate) const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
/// Where a server started without options is found.
const DEFAULT_SERVER: &str = "http://127.0.0.1:8080";

/// Serve machine-learning models packaged as WebAssembly components
#[derive(Debug, Parser)]
#[command(name = "modelet", version, arg_required_else_help = true)]
#[command(after_help = format!(
    "Examples:\n  modelet serve                                  # a server on 127.0.0.1:8080\n  \
     modelet publish mnist 1.0.0 --onnx mnist.onnx  # an ONNX graph becomes a model\n  \
     modelet infer mnist --input-file image=digit.f32\n  modelet efficiency\n\n{}",
    exit::help()
))]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The server's address, such as http://127.0.0.1:8080
    #[arg(long, global = true, env = "MODELET_SERVER", default_value = DEFAULT_SERVER)]
    #[arg(value_name = "URL", help_heading = "Everywhere")]
    pub(crate) server: String,
    /// Print one JSON document instead of text for people
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
}

/// What to do; one variant a command, in the order of `--help`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(ServeArgs),
    Setup(SetupArgs),
    New(NewArgs),
    Build(BuildArgs),
    Dev(DevArgs),
    Publish(Box<PublishArgs>),
    Models(ModelsArgs),
    Versions(VersionsArgs),
    Show(ShowArgs),
    Update(UpdateArgs),
    Infer(InferArgs),
    Chat(ChatArgs),
    #[command(subcommand)]
    Alias(AliasCommand),
    Delete(DeleteArgs),
    Release(ReleaseArgs),
    History(HistoryArgs),
    Instances(InstancesArgs),
    Efficiency(EfficiencyArgs),
    Health(HealthArgs),
    Config(ConfigArgs),
    Inspect(InspectArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
    #[command(hide = true)]
    CompileWorker(CompileWorkerArgs),
    #[command(hide = true)]
    GraphWorker(GraphWorkerArgs),
}

/// Run a server
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  modelet serve\n  \
    modelet serve --listen 127.0.0.1:0 --data-dir ./data   # port 0: any free one, printed\n  \
    modelet serve --config modelet.toml --check            # check everything, serve nothing\n\n\
    The first line on stdout is the address: modelet listening on http://ADDR:PORT.\n\
    SIGTERM and SIGINT drain the server: running calls end, then it exits.")]
pub(crate) struct ServeArgs {
    /// The address and port to listen on; port 0 takes any free one
    #[arg(long, value_name = "ADDR:PORT", default_value_t = DEFAULT_LISTEN)]
    pub(crate) listen: SocketAddr,
    /// Where models are kept [default: $XDG_DATA_HOME/modelet/data or ~/.local/share/modelet/data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A TOML file of settings; 'modelet config' shows the effective ones
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Check the settings and the data directory, report every mistake, and exit
    #[arg(long)]
    pub(crate) check: bool,
    /// Listen beyond loopback although anybody who reaches the port may publish and call
    #[arg(long)]
    pub(crate) insecure_no_auth: bool,
    /// The form of log lines on stderr
    #[arg(long, value_name = "FORM", value_enum, default_value_t = LogForm::Text)]
    pub(crate) log: LogForm,
    /// Stop when standard input, a pipe, ends: with the process that holds its other end
    #[arg(long, hide = true)]
    pub(crate) until_stdin_ends: bool,
}

impl ServeArgs {
    /// The data directory: the one given, or this user's own.
    ///
    /// # Errors
    /// When none is given and the user has no home.
    pub(crate) fn data_dir(&self) -> Result<PathBuf, Failure> {
        self.data_dir.clone().map_or_else(|| Ok(paths::data_home()?.join("data")), Ok)
    }
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogForm {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

impl LogForm {
    /// As it is typed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// Install ONNX Runtime, the faster engine
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  modelet setup\n  \
    modelet setup --from onnxruntime-1.32.0-cp311-cp311-manylinux_2_27_x86_64.whl\n\n\
    Without --from, python3's pip downloads the pinned wheel; it is checked against its SHA-256\n\
    and only the library is taken from it: nothing of the package is run. Without the library a\n\
    server uses rten, which is built in.")]
pub(crate) struct SetupArgs {
    /// Take this library (libonnxruntime.so) or wheel instead of downloading one
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// With --from: accept a library other than the pinned ones
    #[arg(long, requires = "from")]
    pub(crate) unpinned: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// The option of every command that changes something.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DryRun {
    /// Check everything, change nothing
    #[arg(long = "dry-run")]
    pub(crate) on: bool,
}

/// Publish a version of a model
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("code").args(["onnx", "component", "package"]))]
#[command(
    after_help = "Examples:\n  modelet publish                                # what ./modelet.toml says\n  \
    modelet publish mnist 1.0.0 --onnx mnist.onnx\n  \
    modelet publish mnist 1.1.0 --onnx mnist.onnx --with weights.bin --alias canary \\\n      \
    --accuracy 0.9974 --accuracy-method top-1 --label team=vision\n  \
    modelet publish sentiment 2.0.0 --component sentiment.wasm \\\n      \
    --asset model.onnx=sentiment.onnx --asset vocab.txt=vocab.txt\n\n\
    A version never changes: publishing the same again is fine, something else under the same\n\
    version is a conflict (exit code 4). The first version of a model becomes 'live'; later ones\n\
    only with --alias live. Files that the server has already are not sent again, and the upload\n\
    of a large file goes on where an earlier try ended."
)]
pub(crate) struct PublishArgs {
    /// The model's name
    #[arg(requires_all = ["version", "code"], conflicts_with = "package")]
    pub(crate) name: Option<ModelName>,
    /// The version's name, such as 1.0.0
    pub(crate) version: Option<VersionName>,
    /// A modelet.toml, or the folder it is in, which says all the rest [default: .]
    #[arg(long, value_name = "PATH")]
    pub(crate) package: Option<PathBuf>,
    /// An ONNX graph, served by the built-in pass-through component
    #[arg(long, value_name = "FILE")]
    pub(crate) onnx: Option<PathBuf>,
    /// A WebAssembly component of the world modelet:model/model
    #[arg(long, value_name = "FILE")]
    pub(crate) component: Option<PathBuf>,
    /// A file the component or the graph finds under NAME; repeatable
    #[arg(long = "asset", value_name = "NAME=FILE")]
    pub(crate) assets: Vec<AssetFile>,
    /// A file that goes along under its own name; repeatable. What a graph names and stands beside it goes along by itself
    #[arg(long = "with", value_name = "FILE")]
    pub(crate) companions: Vec<PathBuf>,
    /// The engine for its graphs
    #[arg(long, value_enum)]
    pub(crate) backend: Option<Backend>,
    #[command(flatten)]
    pub(crate) annotations: AnnotationArgs,
    /// A setting that the component may read; repeatable
    #[arg(long = "config", value_name = "KEY=VALUE")]
    pub(crate) config: Vec<Pair>,
    /// Point this alias at the new version
    #[arg(long, value_name = "ALIAS")]
    pub(crate) alias: Option<AliasName>,
    /// Instances kept even when idle
    #[arg(long, value_name = "N")]
    pub(crate) min_instances: Option<u32>,
    /// Instances at most; calls beyond them queue
    #[arg(long, value_name = "N")]
    pub(crate) max_instances: Option<u32>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// The engines a version can ask for, as the management API spells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Backend {
    /// ONNX Runtime where it is installed, rten otherwise
    Auto,
    /// ONNX Runtime, and a refusal where it is not installed
    Onnxruntime,
    /// rten, which is always there
    Rten,
}

impl From<Backend> for BackendChoice {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::Auto => Self::Auto,
            Backend::Onnxruntime => Self::Onnxruntime,
            Backend::Rten => Self::Rten,
        }
    }
}

/// What may be said of a version, when it is published and later.
#[derive(Debug, Default, Args)]
pub(crate) struct AnnotationArgs {
    /// What the model is, in a sentence
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,
    /// How well it does, as --accuracy-method defines the figure
    #[arg(long, value_name = "VALUE", requires = "accuracy_method", value_parser = value::finite)]
    #[arg(allow_negative_numbers = true)]
    pub(crate) accuracy: Option<f64>,
    /// How the accuracy was measured, such as top-1
    #[arg(long, value_name = "METHOD", requires = "accuracy")]
    pub(crate) accuracy_method: Option<String>,
    /// The digest of the data it was measured on, as sha256:HEX
    #[arg(long, value_name = "DIGEST", requires = "accuracy")]
    pub(crate) accuracy_dataset: Option<Digest>,
    /// A label to find it by; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<Pair>,
    /// A link, such as paper=URL; repeatable
    #[arg(long = "link", value_name = "NAME=URL")]
    pub(crate) links: Vec<Pair>,
}

/// List the models
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelet models --json   # a list of objects with 'name'")]
pub(crate) struct ModelsArgs {}

/// List the versions of a model
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  modelet versions mnist --json   # a list of objects with 'version'"
)]
pub(crate) struct VersionsArgs {
    /// The model's name
    pub(crate) name: ModelName,
}

/// Show a model, or one of its versions
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  modelet show mnist\n  modelet show mnist@1.0.0\n  \
    modelet show mnist@live")]
pub(crate) struct ShowArgs {
    /// NAME, NAME@VERSION or NAME@ALIAS
    #[arg(value_name = "NAME[@VERSION|@ALIAS]")]
    pub(crate) target: ModelTarget,
}

/// Change what is said of a version
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  modelet update mnist@1.0.0 --description 'digits, 28x28'\n  \
    modelet update mnist@1.0.0 --label team=vision --remove-label draft\n\n\
    What is not named stays as it is. A change by somebody else meanwhile is exit code 4.")]
pub(crate) struct UpdateArgs {
    /// The version to change
    #[arg(value_name = "NAME@VERSION")]
    pub(crate) version: VersionRef,
    #[command(flatten)]
    pub(crate) annotations: AnnotationArgs,
    /// Take this label away; repeatable
    #[arg(long = "remove-label", value_name = "KEY")]
    pub(crate) remove_labels: Vec<String>,
    /// Take this link away; repeatable
    #[arg(long = "remove-link", value_name = "NAME")]
    pub(crate) remove_links: Vec<String>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// Call a model
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  modelet infer adder --input 'a=[1, 2]' --input 'b=[[3], [4]]'\n  \
    modelet infer mnist@canary --input-file image=digit.f32\n  \
    modelet infer resnet@1.0.0 --input-file data=coffee.f32:1x3x224x224 --json\n\n\
    JSON is nested to the input's shape, or flat; '@FILE' reads it from a file. A raw FILE holds\n\
    the elements little-endian, in the input's datatype. The shape is taken from the nesting or\n\
    the model's signature where it leaves no choice; SHAPE says it otherwise. 'modelet show\n\
    NAME@live' lists the inputs. In the JSON document NaN and infinity are null, and BYTES that\n\
    are not UTF-8 are shown with replacement characters."
)]
pub(crate) struct InferArgs {
    /// NAME, NAME@VERSION or NAME@ALIAS
    #[arg(value_name = "NAME[@VERSION|@ALIAS]")]
    pub(crate) target: ModelTarget,
    /// An input as JSON; repeatable
    // Split at the model's own input names, which may hold any character: `infer` does it.
    #[arg(long = "input", value_name = "NAME=JSON")]
    pub(crate) inputs: Vec<String>,
    /// An input as raw bytes; repeatable
    #[arg(long = "input-file", value_name = "NAME=FILE[:SHAPE]")]
    pub(crate) input_files: Vec<String>,
}

/// Talk with a model that serves the task `chat`
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  modelet chat                        # a line is a message; Ctrl-D ends it\n  \
    modelet chat chat@1.0.0 --system 'Answer in one sentence.'\n  \
    echo 'Name three colours.' | modelet chat --temperature 0 --max-tokens 40\n\n\
    The answer is printed as it comes, and what was said before is sent along with every message. On a\n\
    terminal a refused message is dropped and the conversation goes on; from a pipe it ends the command.\n\
    With --json the whole conversation is one document, printed at its end. What is not named is the\n\
    model's to choose; docs/tasks.md says what a model of this task takes."
)]
pub(crate) struct ChatArgs {
    /// NAME, NAME@VERSION or NAME@ALIAS
    #[arg(value_name = "NAME[@VERSION|@ALIAS]", default_value = "chat")]
    pub(crate) target: ModelTarget,
    /// What the model is told before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// From 0, the likeliest word always, to 2, any word
    #[arg(long, value_name = "NUMBER", value_parser = value::finite)]
    pub(crate) temperature: Option<f64>,
    /// The most tokens of one answer
    #[arg(long, value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// The same seed gives the same answers
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) seed: Option<i64>,
}

/// Move and list a model's aliases
#[derive(Debug, Subcommand)]
pub(crate) enum AliasCommand {
    Set(AliasSetArgs),
    List(AliasListArgs),
    Rollback(AliasRollbackArgs),
    Remove(AliasRemoveArgs),
}

/// Point an alias at one version, or at several by weight
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  modelet alias set mnist live 1.1.0\n  \
    modelet alias set mnist live 1.0.0=90 1.1.0=10\n  \
    modelet alias set mnist live 1.1.0 --if-match 12   # only if nobody moved it since")]
pub(crate) struct AliasSetArgs {
    /// The model's name
    pub(crate) name: ModelName,
    /// The alias to create or move
    pub(crate) alias: AliasName,
    /// A version, with its share of the calls where there are several
    #[arg(required = true, value_name = "VERSION[=WEIGHT]")]
    pub(crate) targets: Vec<WeightedVersion>,
    /// Move it only if it still has this ETag, which 'alias list' shows
    #[arg(long, value_name = "ETAG", value_parser = value::etag)]
    pub(crate) if_match: Option<String>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// List a model's aliases and where they point
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelet alias list mnist")]
pub(crate) struct AliasListArgs {
    /// The model's name
    pub(crate) name: ModelName,
}

/// Point an alias back at what it was before its last move
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelet alias rollback mnist live")]
pub(crate) struct AliasRollbackArgs {
    /// The model's name
    pub(crate) name: ModelName,
    /// The alias
    pub(crate) alias: AliasName,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// Remove an alias; 'live' stays while its model has versions
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelet alias remove mnist canary")]
pub(crate) struct AliasRemoveArgs {
    /// The model's name
    pub(crate) name: ModelName,
    /// The alias
    pub(crate) alias: AliasName,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// Delete a version, or a model with all of its versions
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  modelet delete mnist@1.0.0\n  modelet delete mnist --yes\n\n\
    A version that an alias points at is not deleted (exit code 4): move the alias first.")]
pub(crate) struct DeleteArgs {
    /// NAME or NAME@VERSION
    #[arg(value_name = "NAME[@VERSION]")]
    pub(crate) target: ModelTarget,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// End the quarantine of a version, which a run that could not be stopped has brought it into
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelet release mnist@1.0.0\n\n\
    'modelet show NAME@VERSION' says whether a version is quarantined, and why.")]
pub(crate) struct ReleaseArgs {
    /// NAME@VERSION
    #[arg(value_name = "NAME@VERSION")]
    pub(crate) version: VersionRef,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// List what was done to a model, newest first
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelet history mnist --limit 5")]
pub(crate) struct HistoryArgs {
    /// The model's name
    pub(crate) name: ModelName,
    /// The most records to list
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u32>,
}

/// List the instances and what they spent their lives on
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelet instances")]
pub(crate) struct InstancesArgs {}

/// Show how well the host's time and memory are used
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  modelet efficiency\n  modelet efficiency --window 5m --json\n\n\
    eta (compute) = busy / lifetime of instances; rho (data) = byte-seconds in use / resident;\n\
    xi (sharing) = models called / callable. '-' is where nothing was there to measure."
)]
pub(crate) struct EfficiencyArgs {
    /// The time looked at
    #[arg(long, value_enum, default_value_t = Window::Lifetime)]
    pub(crate) window: Window,
}

/// The windows that the server keeps figures for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Window {
    /// The last minute
    #[value(name = "1m")]
    Minute,
    /// The last five minutes
    #[value(name = "5m")]
    FiveMinutes,
    /// The last hour
    #[value(name = "1h")]
    Hour,
    /// Since the server started
    Lifetime,
}

/// Ask whether the server is alive and ready
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  modelet health   # exit code 0 ready, 7 not ready, 6 not there"
)]
pub(crate) struct HealthArgs {}

/// Show the server's settings, and where each value comes from
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  modelet config")]
pub(crate) struct ConfigArgs {}

#[cfg(test)]
mod tests;
