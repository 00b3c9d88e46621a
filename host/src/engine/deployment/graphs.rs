//! The graphs of a version that is made ready: through their gate, then into an engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::{Candidate, Deployments, LoadError};
use crate::digest::Digest;
use crate::names::AssetName;
use crate::nn::gate::{GraphFiles, Trial};
use crate::nn::graph::{AssetSource, Graph, GraphError, is_graph};
use crate::registry::BlobStore;
use crate::version::BlobRef;

impl Deployments {
    /// Lets every graph of a candidate pass the gate, one after another; gives what they did there.
    pub(super) async fn check_graphs(
        &self,
        candidate: &Candidate,
    ) -> Result<BTreeMap<AssetName, Trial>, LoadError> {
        let mut trials = BTreeMap::new();
        for name in candidate.assets.keys().filter(|name| is_graph(name)) {
            let failed = |error| LoadError::Graph(Arc::new(error));
            let (files, digests) = self.locate_graph(candidate, name).await?;
            let backend = self.graphs.backends().select(candidate.backend);
            let backend = backend
                .map_err(|error| failed(GraphError::Load { asset: name.to_string(), error }))?;
            let trial = self
                .gate
                .check(&files, &digests, backend)
                .await
                .map_err(|error| failed(GraphError::Gate { asset: name.to_string(), error }))?;
            trials.insert(name.clone(), trial);
        }
        Ok(trials)
    }

    async fn locate_graph(
        &self,
        candidate: &Candidate,
        name: &AssetName,
    ) -> Result<(GraphFiles, (Digest, Vec<Digest>)), LoadError> {
        let (store, blobs) = (Arc::clone(&self.graphs), Arc::clone(&self.blobs));
        let assets = Assets { assets: candidate.assets.clone(), blobs: Arc::clone(&blobs) };
        let name = name.clone();
        tokio::task::spawn_blocking(move || {
            let located = store.locate(&name, &assets)?;
            Ok((located.files(|blob| blobs.path(&blob.digest)), located.digests()))
        })
        .await
        .map_err(|_| LoadError::Interrupted)?
        .map_err(|error| LoadError::Graph(Arc::new(error)))
    }

    pub(super) async fn load_graphs(
        &self,
        candidate: &Candidate,
        trials: BTreeMap<AssetName, Trial>,
    ) -> Result<BTreeMap<AssetName, Arc<Graph>>, LoadError> {
        let _loading = self.make_room_for_graphs(candidate)?;
        let store = Arc::clone(&self.graphs);
        let assets = Assets { assets: candidate.assets.clone(), blobs: Arc::clone(&self.blobs) };
        let choice = candidate.backend;
        // Loading reads files and takes a core for as long as the graph is large.
        tokio::task::spawn_blocking(move || {
            trials
                .into_iter()
                .map(|(name, trial)| {
                    let graph = store.load(&name, choice, &assets, trial.rows)?;
                    Ok((name, graph))
                })
                .collect::<Result<_, GraphError>>()
        })
        .await
        .map_err(|_| LoadError::Interrupted)?
        .map_err(|error| LoadError::Graph(Arc::new(error)))
    }
}

/// What graphs did in their trials that their publisher should know.
pub(super) fn warnings(trials: &BTreeMap<AssetName, Trial>) -> Vec<String> {
    let warning = |(name, trial): (&AssetName, &Trial)| {
        let words = trial.warning.as_ref()?;
        let name = name.as_str();
        Some(format!("the graph {name:?} failed its first run, on made-up inputs: {words}"))
    };
    trials.iter().filter_map(warning).collect()
}

/// A version's assets, read from the blob store.
struct Assets {
    assets: BTreeMap<AssetName, BlobRef>,
    blobs: Arc<dyn BlobStore>,
}

impl AssetSource for Assets {
    fn find(&self, name: &str) -> Option<BlobRef> {
        self.assets.get(name).copied()
    }

    fn read(&self, blob: &BlobRef) -> std::io::Result<Bytes> {
        self.blobs.read(&blob.digest).map(Bytes::from).map_err(std::io::Error::other)
    }
}
