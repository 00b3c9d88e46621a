//! The standard gRPC services: health and reflection, in the implementation that comes with tonic.

use std::convert::Infallible;

use futures_util::FutureExt as _;
use http::{Request, Response};
use tonic_health::ServingStatus;
use tonic_health::pb::health_server::HealthServer;
use tonic_health::server::{HealthReporter, HealthService};
use tonic_reflection::server::Builder;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;

use super::method::SERVICE;
use crate::http::body::Body;
use crate::http::request_body::RequestBody;

/// The description of the protocol's messages and service.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

type Service = BoxCloneSyncService<Request<RequestBody>, Response<tonic::body::Body>, Infallible>;

/// Health and reflection.
pub struct Services {
    reporter: HealthReporter,
    health: Service,
    reflection: Service,
    /// The version that older clients ask for.
    reflection_alpha: Service,
}

impl Default for Services {
    fn default() -> Self {
        Self::new()
    }
}

impl Services {
    /// The server serves.
    ///
    /// # Panics
    /// If the descriptions that were compiled in cannot be read.
    pub fn new() -> Self {
        let reporter = HealthReporter::new();
        // Nobody else has it yet, so that it does not wait.
        let _ = reporter.set_service_status(SERVICE, ServingStatus::Serving).now_or_never();
        let health = HealthServer::new(HealthService::from_health_reporter(reporter.clone()));
        let describe = || {
            Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection = describe().build_v1().expect("the build wrote the description");
        let reflection_alpha = describe().build_v1alpha().expect("the build wrote the description");
        Self {
            reporter,
            health: Service::new(health),
            reflection: Service::new(reflection),
            reflection_alpha: Service::new(reflection_alpha),
        }
    }

    /// Says that the server no longer serves, and ends the streams of those who watch.
    pub async fn end(&self) {
        let mut reporter = self.reporter.clone();
        for service in ["", SERVICE] {
            reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
        reporter.clear_service_status(SERVICE).await;
        reporter.clear_service_status("").await;
    }

    /// Answers a call of the health service.
    pub async fn health(&self, request: Request<RequestBody>) -> Response<Body> {
        answered(self.health.clone().oneshot(request).await)
    }

    /// Answers a call of the reflection service.
    pub async fn reflection(&self, request: Request<RequestBody>) -> Response<Body> {
        let is_alpha = request.uri().path().starts_with("/grpc.reflection.v1alpha");
        match is_alpha {
            false => answered(self.reflection.clone().oneshot(request).await),
            true => answered(self.reflection_alpha.clone().oneshot(request).await),
        }
    }
}

fn answered(answer: Result<Response<tonic::body::Body>, Infallible>) -> Response<Body> {
    match answer {
        Ok(answer) => answer.map(|body| Body::stream(axum::body::Body::new(body))),
        Err(never) => match never {},
    }
}
