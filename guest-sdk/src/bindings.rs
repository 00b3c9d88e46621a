//! The world `model` of the contract, as `wit-bindgen` writes it.
#![allow(missing_docs, unsafe_code, clippy::all, clippy::restriction, reason = "generated")]

wit_bindgen::generate!({
    path: "../wit",
    world: "modelet:model/model",
    pub_export_macro: true,
    export_macro_name: "export_model",
    generate_all,
});
