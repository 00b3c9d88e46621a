//! The host's side of `wit/`: generated bindings of both worlds, mapped to one set of Rust types.

/// The world `model`, over the standard's `wasi:nn`.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated from wit/, where every line is documented"
)]
pub mod standard {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "modelet:model/model",
        imports: {
            "wasi:nn/inference@0.2.0-rc-2024-10-28.[method]graph-execution-context.compute": async | trappable,
            "modelet:model/reply@0.1.0.emit": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "wasi:nn/tensor@0.2.0-rc-2024-10-28.tensor": crate::tensor::Tensor,
            "wasi:nn/graph@0.2.0-rc-2024-10-28.graph": crate::nn::GuestGraph,
            "wasi:nn/inference@0.2.0-rc-2024-10-28.graph-execution-context": crate::nn::GuestContext,
            "wasi:nn/errors@0.2.0-rc-2024-10-28.error": crate::nn::GuestError,
        },
    });
}

/// The world `model-own`, over `modelet:nn`; everything else is `standard`'s.
#[allow(
    missing_docs,
    unreachable_pub,
    reason = "generated from wit/, where every line is documented"
)]
pub mod own {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "modelet:model/model-own",
        imports: {
            "modelet:nn/inference@0.1.0.[method]graph-execution-context.compute": async | trappable,
            "modelet:model/reply-own@0.1.0.emit": async | trappable,
            default: trappable,
        },
        exports: { default: async },
        with: {
            "modelet:nn/tensor@0.1.0.tensor": crate::tensor::Tensor,
            "modelet:nn/graph@0.1.0.graph": crate::nn::GuestGraph,
            "modelet:nn/inference@0.1.0.graph-execution-context": crate::nn::GuestContext,
            "modelet:nn/errors@0.1.0.error": crate::nn::GuestError,
            "modelet:model/types@0.1.0": super::standard::modelet::model::types,
            "modelet:model/assets@0.1.0": super::standard::modelet::model::assets,
            "modelet:model/config@0.1.0": super::standard::modelet::model::config,
            "modelet:model/log@0.1.0": super::standard::modelet::model::log,
        },
    });
}

pub use standard::modelet::model::types;
