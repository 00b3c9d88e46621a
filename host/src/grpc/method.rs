//! Method: what a gRPC request calls, from its path.

use http::request::Parts;

use crate::error::{Error, Kind};
use crate::http::route::excerpt;

macro_rules! methods {
    ($($name:ident)*) => {
        /// The methods of the protocol's service.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the names are the protocol's own, see proto/inference.proto")]
        pub enum Method { $($name,)* }

        impl Method {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Its name.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

methods! {
    ServerLive ServerReady ModelReady
    ServerMetadata ModelMetadata ModelConfig ModelStatistics
    ModelInfer ModelStreamInfer
    RepositoryIndex RepositoryModelLoad RepositoryModelUnload
    SystemSharedMemoryStatus SystemSharedMemoryRegister SystemSharedMemoryUnregister
    CudaSharedMemoryStatus CudaSharedMemoryRegister CudaSharedMemoryUnregister
    TraceSetting LogSettings
}

/// The protocol's service.
pub const SERVICE: &str = "inference.GRPCInferenceService";

/// What a request calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rpc {
    /// A method of the protocol's service.
    Inference(Method),
    /// gRPC's own health service.
    Health,
    /// gRPC's own reflection service, in either of its versions.
    Reflection,
}

impl Rpc {
    /// The call as metrics and logs name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Inference(Method::ModelInfer) => "infer",
            Self::Inference(Method::ModelStreamInfer) => "infer_stream",
            Self::Inference(Method::ServerLive | Method::ServerReady) | Self::Health => "health",
            Self::Inference(_) => "metadata",
            Self::Reflection => "reflection",
        }
    }
}

/// Finds out what a request calls.
///
/// # Errors
/// [`Kind::Unsupported`] where there is no such service or method, which is `UNIMPLEMENTED`.
pub fn rpc(head: &Parts) -> Result<Rpc, Error> {
    let path = head.uri.path();
    let call = path.strip_prefix('/').and_then(|path| path.split_once('/'));
    match call {
        Some((SERVICE, name)) => {
            let method = Method::ALL.iter().find(|method| method.as_str() == name);
            method.copied().map(Rpc::Inference).ok_or_else(|| {
                let name = excerpt(name);
                Error::new(Kind::Unsupported, format!("{SERVICE} has no method {name:?}"))
            })
        }
        Some(("grpc.health.v1.Health", _)) => Ok(Rpc::Health),
        Some((
            "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection",
            _,
        )) => Ok(Rpc::Reflection),
        _ => Err(Error::new(
            Kind::Unsupported,
            format!("there is no gRPC service at {:?}", excerpt(path)),
        )
        .remedy(format!("models are called through {SERVICE}"))),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::grpc::services::DESCRIPTORS;

    fn called(path: &str) -> Result<Rpc, Kind> {
        let head = http::Request::builder().uri(path).body(()).unwrap().into_parts().0;
        rpc(&head).map_err(|error| error.kind())
    }

    #[test]
    fn every_method_of_the_description_is_found_and_no_other() {
        let described = prost_types::FileDescriptorSet::decode(DESCRIPTORS).unwrap();
        let services = described.file.iter().flat_map(|file| &file.service);
        let names: Vec<_> =
            services.flat_map(|service| &service.method).map(|method| method.name()).collect();
        assert_eq!(names.len(), 20);
        assert_eq!(names.len(), Method::ALL.len());
        for name in names {
            let Ok(Rpc::Inference(method)) = called(&format!("/{SERVICE}/{name}")) else {
                panic!("{name} is not found");
            };
            assert_eq!(method.as_str(), name);
        }
    }

    #[test]
    fn what_is_not_there_is_unimplemented() {
        for path in ["/", "/x", "/inference.GRPCInferenceService/", "/inference.Other/ModelInfer"] {
            assert_eq!(called(path), Err(Kind::Unsupported), "{path}");
        }
    }
}
