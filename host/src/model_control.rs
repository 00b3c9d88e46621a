//! Model control: the repository as the protocol's clients see it, and which models they have unloaded.
//!
//! Every published version is there to be called, loaded at its first call. A client may have one loaded
//! before, and may unload a model: what it holds of memory is let go, and it is not served until it is
//! loaded again, or gets another version. Nothing of that is recorded; after a restart all models are
//! served.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::error::{Error, Kind};
use crate::grpc::proto::RepositoryIndexResponse;
use crate::grpc::proto::repository_index_response::ModelIndex;
use crate::host::Host;
use crate::names::{ModelName, Target};
use crate::publish::blocking;
use crate::registry::Snapshot;

/// The models that are not served because a client unloaded them.
#[derive(Debug, Default)]
pub struct Unloaded(ArcSwap<BTreeSet<ModelName>>);

impl Unloaded {
    /// Whether a model may be called.
    ///
    /// # Errors
    /// [`Kind::ModelUnavailable`].
    pub fn check(&self, model: &ModelName) -> Result<(), Error> {
        if !self.0.load().contains(model) {
            return Ok(());
        }
        Err(Error::new(Kind::ModelUnavailable, format!("the model {model} is unloaded"))
            .remedy(format!("load it: POST /v2/repository/models/{model}/load")))
    }

    /// Has a model served again.
    pub fn lift(&self, model: &ModelName) {
        if self.0.load().contains(model) {
            self.change(|models| _ = models.remove(model));
        }
    }

    /// Keeps only the models that still exist.
    pub fn retain(&self, exists: impl Fn(&ModelName) -> bool) {
        if self.0.load().iter().any(|model| !exists(model)) {
            self.change(|models| models.retain(&exists));
        }
    }

    fn change(&self, change: impl Fn(&mut BTreeSet<ModelName>)) {
        self.0.rcu(|models| {
            let mut models = BTreeSet::clone(models);
            change(&mut models);
            models
        });
    }
}

/// Every version with its state; only those that can be called where `ready`.
pub fn index(host: &Host, snapshot: &Snapshot, ready: bool) -> RepositoryIndexResponse {
    let versions = snapshot.iter().flat_map(|model| model.versions.values());
    let entries = versions.map(|version| {
        let reason = host.check_served(version).err();
        ModelIndex {
            name: version.model.to_string(),
            version: version.name.to_string(),
            state: if reason.is_some() { "UNAVAILABLE" } else { "READY" }.to_owned(),
            reason: reason.map(|reason| reason.text()).unwrap_or_default(),
        }
    });
    let listed = entries.filter(|entry| !ready || entry.reason.is_empty());
    RepositoryIndexResponse { models: listed.collect() }
}

/// Has the version that is called without a version's name ready, and the model served.
///
/// # Errors
/// When there is no such model, its version cannot be loaded, or clients may not control models.
pub async fn load(host: &Arc<Host>, model: &str) -> Result<(), Error> {
    host.check_client_control()?;
    let failed = |error: &Error| {
        // Clients look for these words at the beginning.
        let text = format!("failed to load '{}': {}", excerpt(model), error.text());
        Error::new(error.kind(), text).for_limit(error.limit())
    };
    let snapshot = host.snapshot();
    let known = snapshot.get(model).ok_or_else(|| {
        let text = "failed to poll from model repository: there is no such model";
        failed(&Error::new(Kind::NotFound, text))
    })?;
    let version = known
        .resolve(&Target::Live, 0)
        .map_err(|error| failed(&Error::new(Kind::NotFound, error.to_string())))?;
    let limit = Duration::from_millis(host.admission().limits().request_timeout_ms);
    let loaded = host.deployments().get(version, Instant::now() + limit).await;
    loaded.map_err(|error| failed(&Error::from(error)))?;
    host.unloaded().lift(&known.name);
    Ok(())
}

/// Has a model no longer served, and lets go of the memory of all its versions. Calls under way end as
/// they would have.
///
/// # Errors
/// When there is no such model, or clients may not control models.
pub async fn unload(host: &Arc<Host>, model: &str) -> Result<(), Error> {
    host.check_client_control()?;
    let snapshot = host.snapshot();
    let known = snapshot.get(model).ok_or_else(|| {
        let text = format!("failed to unload '{}': there is no such model", excerpt(model));
        Error::new(Kind::NotFound, text)
    })?;
    let name = known.name.clone();
    host.unloaded().change(|models| {
        models.insert(name.clone());
    });
    let host = Arc::clone(host);
    blocking(move || {
        host.deployments().unload(&name);
        Ok(())
    })
    .await
}

/// Refuses parameters of a load: what a model is was said when it was published.
///
/// # Errors
/// [`Kind::Unsupported`], naming the first.
pub fn check_load_parameters<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    match names.next() {
        None => Ok(()),
        Some(name) => Err(Error::new(
            Kind::Unsupported,
            format!("failed to load: the parameter {:?} is not supported", excerpt(name)),
        )
        .remedy("a version never changes: publish another one and move the alias to it")),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(80).collect()
}
