//! Publishing: parts of an upload into blobs, blobs through the gates, and one record into the
//! registry. A version is visible whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Multipart;
use axum::extract::multipart::Field;
use bytes::Bytes;
use serde::Deserialize;

use crate::checks::Check;
use crate::config::{KeyValues, Limits};
use crate::digest::Digest;
use crate::engine::call::DescribeError;
use crate::engine::deployment::{Candidate, LoadError};
use crate::engine::gate::{self, ComponentFacts, GateError, World};
use crate::engine::instance::StartError;
use crate::engine::{PASSTHROUGH, PASSTHROUGH_GRAPH};
use crate::error::{Error, Kind};
use crate::host::Host;
use crate::limit::Limit;
use crate::names::{AliasName, AssetName, ModelName, VersionName};
use crate::registry::{
    BlobError, BlobLease, BlobStore, Change, CommitError, CommitErrorKind, Committed, Op, Preview,
    Publish, Registry as _, Version,
};
use crate::verdicts::{VerdictKey, VerdictKind};
use crate::version::{Annotations, BackendChoice, BlobRef, PoolWishes};

/// Bytes of a manifest: a description, some labels and settings.
const MANIFEST_BYTES: usize = 1 << 20;

/// Chunks of an upload that wait for the disk.
pub(crate) const CHUNKS_WAITING: usize = 8;

/// The part of an upload that says what is not in its files.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// Which engine the graphs run on.
    pub backend: BackendChoice,
    /// Key/values for the guest.
    pub config: KeyValues,
    /// How instances are pooled.
    pub pool: PoolWishes,
    /// What is said of the version.
    pub annotations: Annotations,
    /// The standard task it serves.
    pub task: Option<String>,
    /// An alias to point at it at once.
    pub alias: Option<AliasName>,
    /// A component that is stored already, in place of a part.
    pub component: Option<Digest>,
    /// Assets that are stored already, in place of parts.
    pub assets: BTreeMap<AssetName, Digest>,
}

/// What an upload holds, once it has come whole.
struct Upload {
    manifest: Manifest,
    component: BlobRef,
    assets: BTreeMap<AssetName, BlobRef>,
    /// Keep the blobs from being collected until the version names them.
    leases: Vec<BlobLease>,
}

/// What publishing came to.
pub struct Published {
    /// The version.
    pub version: Arc<Version>,
    /// Whether it is there now, or only would be.
    pub outcome: Outcome,
    /// What its publisher should know and what did not stop it.
    pub warnings: Vec<String>,
}

/// What became of a version that passed every check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is there, and was not before.
    Created,
    /// It was there before.
    Known,
    /// It would be there.
    Dry,
}

/// Why a publication did not come about.
struct Refusal {
    /// The check that the package did not pass; none where the host is at fault.
    check: Option<Check>,
    error: Error,
}

impl Refusal {
    /// A refusal by `check`, unless the error is the host's own.
    fn by(check: Check) -> impl Fn(Error) -> Self {
        move |error| {
            let check = error.kind().status().is_client_error().then_some(check);
            Self { check, error }
        }
    }
}

impl From<LoadError> for Refusal {
    fn from(error: LoadError) -> Self {
        let check = error.check();
        let error = match check {
            Some(_) => {
                Error::new(Kind::BadRequest, error.to_string()).for_limit(start_limit(&error))
            }
            None => {
                let words = error.to_string();
                Error::from(error).with_internal(words)
            }
        };
        Self { check, error }
    }
}

/// Takes an upload and publishes it, or with `dry_run` only says whether it could be.
///
/// # Errors
/// What is wrong with the upload, the component, a graph, or the change.
pub async fn publish(
    host: &Arc<Host>,
    model: ModelName,
    version: VersionName,
    dry_run: bool,
    mut parts: Multipart,
) -> Result<Published, Error> {
    // Dropped last, after every lease of this publication.
    let mut leftovers = Leftovers { host, are_any: true };
    let limit = Duration::from_millis(host.config().limits.upload_timeout_ms);
    let work = async {
        let upload = receive(host, &mut parts).await.map_err(Refusal::by(Check::Upload))?;
        check_and_commit(host, model, version, dry_run, upload).await
    };
    let published = tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let ms = limit.as_millis();
        let text = format!("the publication took more than {ms} ms");
        Err(Refusal { check: None, error: Error::over(Kind::Deadline, Limit::UploadTime, text) })
    });
    let is_named = |published: &Published| published.outcome != Outcome::Dry;
    leftovers.are_any = !published.as_ref().is_ok_and(is_named);
    published.map_err(|Refusal { check, error }| {
        if let Some(check) = check {
            host.metrics().gates().refusal(check);
        }
        error
    })
}

/// The blobs of an upload that no version came to name: refused, a dry run, or left by its caller.
/// Dropped, it has them collected.
struct Leftovers<'a> {
    host: &'a Arc<Host>,
    are_any: bool,
}

impl Drop for Leftovers<'_> {
    fn drop(&mut self) {
        if self.are_any {
            self.host.collect_soon();
        }
    }
}

async fn check_and_commit(
    host: &Arc<Host>,
    model: ModelName,
    version: VersionName,
    dry_run: bool,
    upload: Upload,
) -> Result<Published, Refusal> {
    let Upload { manifest, component, assets, leases } = upload;
    let pool = manifest.pool.policy(false);
    pool.check()
        .map_err(|problem| Error::new(Kind::BadRequest, problem).at("part manifest"))
        .map_err(Refusal::by(Check::Upload))?;
    let world = check_component(host, component).await?;
    let pool = manifest.pool.policy(world == World::HttpModel);
    let candidate = Candidate {
        model: model.clone(),
        version: version.clone(),
        component,
        assets,
        backend: manifest.backend,
        config: manifest.config,
        pool,
    };
    let deployment = host.deployments().load(&candidate).await?;
    let mut signature = deployment.describe().await?;
    signature.task = manifest.task.or(signature.task);
    host.deployments().check_minima(&deployment)?;
    let warnings = deployment.warnings().to_vec();
    let blobs: Vec<_> = candidate.assets.values().copied().chain([component]).collect();
    let change = Change {
        actor: crate::http::authenticate::DEFAULT_TENANT.to_owned(),
        op: Op::Publish(Box::new(Publish {
            model: model.clone(),
            version: version.clone(),
            owner: crate::http::authenticate::DEFAULT_TENANT.to_owned(),
            record: candidate.record(signature),
            annotations: manifest.annotations,
            alias: manifest.alias,
        })),
    };
    let by_registry = Refusal::by(Check::Registry);
    if dry_run {
        let Preview { after, .. } = check(host, change).await.map_err(&by_registry)?;
        let version = published_version(after, &version).map_err(by_registry)?;
        return Ok(Published { version, outcome: Outcome::Dry, warnings });
    }
    // Before the commit: what is visible must not be refused any more.
    deployment.fill().await?;
    let Committed { changed, after, .. } = commit(host, change).await.map_err(&by_registry)?;
    drop(leases);
    host.uploads().named(blobs.into_iter());
    let published = published_version(after, &version).map_err(by_registry)?;
    if !changed {
        return Ok(Published { version: published, outcome: Outcome::Known, warnings });
    }
    // It is loaded already: the first call finds it ready.
    host.deployments().adopt(&published, deployment);
    // Whoever publishes a version wants the model served, whatever a client did before.
    host.unloaded().lift(&model);
    tracing::info!(%model, %version, digest = %published.digest, "published");
    Ok(Published { version: published, outcome: Outcome::Created, warnings })
}

/// The limit on instances that a component met before it said what it is.
fn start_limit(error: &LoadError) -> Option<Limit> {
    let LoadError::Describe(error) = error else { return None };
    match **error {
        DescribeError::Timeout(_) | DescribeError::Start(StartError::Timeout(_)) => {
            Some(Limit::StartTime)
        }
        DescribeError::Start(StartError::HostFull { limit, .. }) => Some(limit),
        _ => None,
    }
}

fn published_version(
    model: Option<Arc<crate::registry::Model>>,
    version: &VersionName,
) -> Result<Arc<Version>, Error> {
    model.and_then(|model| model.versions.get(version).cloned()).ok_or_else(|| {
        Error::internal("a published version is not in the model it was published to")
    })
}

/// Runs the gate for components over a stored blob, unless the same bytes passed it before; gives the
/// world it is written for.
async fn check_component(host: &Arc<Host>, component: BlobRef) -> Result<World, Refusal> {
    let limit = host.config().limits.component_bytes;
    gate::check_size(component.bytes, limit).map_err(gate_refusal)?;
    let host = Arc::clone(host);
    let examined = tokio::task::spawn_blocking(move || {
        let key = VerdictKey::new(VerdictKind::Component, &component.digest);
        if let Some(facts) = host.verdicts().find::<ComponentFacts>(&key) {
            return Ok(facts.world);
        }
        let bytes = host.registry().blobs().read(&component.digest);
        let bytes = bytes.map_err(|error| Refusal::by(Check::Upload)(blob_error(error)))?;
        let facts = gate::examine(&bytes, limit).map_err(gate_refusal)?;
        host.verdicts().remember(&key, &facts);
        Ok(facts.world)
    });
    examined
        .await
        .unwrap_or_else(|error| Err(Refusal { check: None, error: Error::internal(error) }))
}

fn gate_refusal(error: GateError) -> Refusal {
    let (kind, limit) = match error {
        GateError::TooLarge { .. } => (Kind::TooLarge, Some(Limit::ComponentBytes)),
        _ => (Kind::BadRequest, None),
    };
    let check = Some(error.check());
    let error = Error::new(kind, error.to_string()).for_limit(limit).at("part component");
    Refusal { check, error }
}

/// Makes a change, on a thread that may wait for the disk.
///
/// # Errors
/// Why the change did not happen.
pub async fn commit(host: &Arc<Host>, change: Change) -> Result<Committed, Error> {
    let host = Arc::clone(host);
    blocking(move || host.registry().commit(change).map_err(commit_error)).await
}

/// Checks a change without making it.
///
/// # Errors
/// Why the change would not happen.
pub async fn check(host: &Arc<Host>, change: Change) -> Result<Preview, Error> {
    let host = Arc::clone(host);
    blocking(move || host.registry().check(&change).map_err(commit_error)).await
}

/// Runs `work` where it may block.
///
/// # Errors
/// Its own; or that it panicked.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(Error::internal(error)))
}

fn commit_error(error: CommitError) -> Error {
    let kind = match error.kind() {
        CommitErrorKind::NotFound => Kind::NotFound,
        CommitErrorKind::Conflict => Kind::Conflict,
        CommitErrorKind::PreconditionFailed => Kind::PreconditionFailed,
        CommitErrorKind::Invalid => Kind::BadRequest,
        CommitErrorKind::TooLarge => Kind::TooLarge,
        CommitErrorKind::Overloaded => Kind::Overloaded,
        CommitErrorKind::ReadOnly => Kind::ReadOnly,
    };
    Error::new(kind, error.to_string())
}

/// What a caller is told of a blob that cannot be stored or read.
pub(crate) fn blob_error(error: BlobError) -> Error {
    match error {
        BlobError::TooLarge { .. } => Error::new(Kind::TooLarge, error.to_string()),
        BlobError::NotFound { .. } | BlobError::Damaged { .. } => Error::internal(error),
        BlobError::Disk { .. } => Error::new(Kind::ReadOnly, "the server cannot store the upload")
            .with_internal(error)
            .remedy(
                "the operator finds the reason in the server's log; most often the disk is full",
            ),
    }
}

/// The parts of an upload as they come.
#[derive(Default)]
struct Received {
    manifest: Option<Manifest>,
    component: Option<BlobRef>,
    assets: BTreeMap<AssetName, BlobRef>,
    leases: Vec<BlobLease>,
}

async fn receive(host: &Arc<Host>, parts: &mut Multipart) -> Result<Upload, Error> {
    let limits = &host.config().limits;
    let mut received = Received::default();
    while let Some(field) = parts.next_field().await.map_err(multipart_error)? {
        let name = field.name().unwrap_or_default().to_owned();
        if name == "manifest" {
            once(&name, received.manifest.is_some())?;
            received.manifest = Some(read_manifest(field).await?);
        } else if name == "component" {
            once(&name, received.component.is_some())?;
            let (blob, lease) = store(host, field, limits.component_bytes, &name).await?;
            received.component = Some(blob);
            received.leases.push(lease);
        } else if let Some(asset) = name.strip_prefix("asset:") {
            let asset: AssetName =
                asset.parse().map_err(|error| Error::from(error).at(format!("part {name:?}")))?;
            received.check_asset(&asset, limits)?;
            let (blob, lease) = store(host, field, limits.asset_bytes, &name).await?;
            received.assets.insert(asset, blob);
            received.leases.push(lease);
        } else {
            return Err(Error::new(Kind::BadRequest, format!("there is no part {name:?}"))
                .remedy("use manifest, component and asset:NAME"));
        }
    }
    let host_of_blobs = Arc::clone(host);
    let Received { manifest, component, assets, mut leases } =
        blocking(move || received.resolve(&host_of_blobs)).await?;
    let component = match component {
        Some(component) => component,
        None => {
            let (blob, lease) = passthrough(host, &assets).await?;
            leases.push(lease);
            blob
        }
    };
    Ok(Upload { manifest: manifest.unwrap_or_default(), component, assets, leases })
}

impl Received {
    /// Refuses an asset that is there already, or one too many.
    fn check_asset(&self, asset: &AssetName, limits: &Limits) -> Result<(), Error> {
        once(&format!("asset:{asset}"), self.assets.contains_key(asset))?;
        let limit = limits.assets;
        if self.assets.len() >= limit as usize {
            let text = format!("a version has at most {limit} assets");
            return Err(Error::over(Kind::TooLarge, Limit::Assets, text));
        }
        Ok(())
    }

    /// Adds the blobs that the manifest names in place of parts. Blocks on the disk.
    fn resolve(mut self, host: &Host) -> Result<Self, Error> {
        let limits = &host.config().limits;
        let Some(manifest) = &mut self.manifest else { return Ok(self) };
        let (component, assets) = (manifest.component, std::mem::take(&mut manifest.assets));
        if let Some(digest) = component {
            once("component", self.component.is_some())?;
            let (blob, lease) = stored(host, "the component", digest)?;
            self.component = Some(blob);
            self.leases.push(lease);
        }
        for (name, digest) in assets {
            self.check_asset(&name, limits)?;
            let what = format!("the asset {:?}", name.as_str());
            let (blob, lease) = stored(host, &what, digest)?;
            if blob.bytes > limits.asset_bytes {
                let text = format!("{what} is over the limit of {} bytes", limits.asset_bytes);
                return Err(Error::over(Kind::TooLarge, Limit::AssetBytes, text));
            }
            self.assets.insert(name, blob);
            self.leases.push(lease);
        }
        Ok(self)
    }
}

/// Holds a blob that the manifest names.
fn stored(host: &Host, what: &str, digest: Digest) -> Result<(BlobRef, BlobLease), Error> {
    let blobs = host.registry().blobs();
    let lease = blobs.lease(&digest).map_err(blob_error)?;
    let bytes = blobs.size(&digest).map_err(blob_error)?;
    let held = lease.zip(bytes).map(|(lease, bytes)| (BlobRef { digest, bytes }, lease));
    held.ok_or_else(|| {
        Error::new(Kind::Conflict, format!("{what} is to be blob {digest}, which is not stored"))
            .at("part manifest")
            .remedy(format!(
                "send it first with PATCH /api/v1/blobs/{digest}, or as a part of the publication"
            ))
    })
}

fn once(name: &str, seen: bool) -> Result<(), Error> {
    if !seen {
        return Ok(());
    }
    Err(Error::new(Kind::BadRequest, format!("the part {name:?} is there twice")))
}

async fn read_manifest(mut field: Field<'_>) -> Result<Manifest, Error> {
    let mut text = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(multipart_error)? {
        if text.len() + chunk.len() > MANIFEST_BYTES {
            let message = format!("the manifest is over the limit of {MANIFEST_BYTES} bytes");
            return Err(Error::new(Kind::TooLarge, message).at("part manifest"));
        }
        text.extend_from_slice(&chunk);
    }
    serde_json::from_slice(&text).map_err(|error| {
        Error::new(Kind::BadRequest, format!("the manifest is not valid: {error}"))
            .at("part manifest")
    })
}

/// Streams a part into a blob, up to a limit by its key; memory holds some chunks of it at a time.
async fn store(
    host: &Arc<Host>,
    mut field: Field<'_>,
    limit: u64,
    name: &str,
) -> Result<(BlobRef, BlobLease), Error> {
    let (chunks, mut arriving) = tokio::sync::mpsc::channel::<Bytes>(CHUNKS_WAITING);
    let (whole, is_whole) = tokio::sync::oneshot::channel::<()>();
    let host = Arc::clone(host);
    let writing = tokio::task::spawn_blocking(move || {
        let mut writer = host.registry().blobs().begin(limit)?;
        while let Some(chunk) = arriving.blocking_recv() {
            writer.write(&chunk)?;
        }
        // A caller that left half way through must leave nothing behind.
        is_whole.blocking_recv().is_ok().then(|| writer.finish()).transpose()
    });
    let place = format!("part {name:?}");
    while let Some(chunk) =
        field.chunk().await.map_err(|error| multipart_error(error).at(place.clone()))?
    {
        if chunks.send(chunk).await.is_err() {
            // The writer gave up; it says below why.
            break;
        }
    }
    let _ = whole.send(());
    drop(chunks);
    let written = writing.await.map_err(Error::internal)?;
    let stored = written.map_err(|error: BlobError| match error {
        BlobError::TooLarge { limit_bytes } => {
            let limit = if name == "component" { Limit::ComponentBytes } else { Limit::AssetBytes };
            let text = format!("it is over the limit of {limit_bytes} bytes");
            Error::over(Kind::TooLarge, limit, text).at(place)
        }
        error => blob_error(error).at(place),
    })?;
    stored.ok_or_else(|| Error::internal("an upload ended without being whole"))
}

/// Stores the built-in component like any other, for an upload that brings only a graph.
async fn passthrough(
    host: &Arc<Host>,
    assets: &BTreeMap<AssetName, BlobRef>,
) -> Result<(BlobRef, BlobLease), Error> {
    if !assets.contains_key(PASSTHROUGH_GRAPH) {
        return Err(Error::new(
            Kind::BadRequest,
            format!("the upload has neither a component nor the graph {PASSTHROUGH_GRAPH:?}"),
        )
        .remedy(
            "send a part component, or a part asset:model.onnx to have the graph served as it is",
        ));
    }
    let host = Arc::clone(host);
    blocking(move || {
        let mut writer =
            host.registry().blobs().begin(PASSTHROUGH.len() as u64).map_err(blob_error)?;
        writer.write(PASSTHROUGH).map_err(blob_error)?;
        writer.finish().map_err(blob_error)
    })
    .await
}

fn multipart_error(error: axum::extract::multipart::MultipartError) -> Error {
    let kind = match error.status() {
        http::StatusCode::PAYLOAD_TOO_LARGE => Kind::TooLarge,
        _ => Kind::BadRequest,
    };
    Error::new(kind, format!("the upload is not a valid multipart/form-data body: {error}"))
}
