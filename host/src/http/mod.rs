//! HTTP: from accepted connection to encoded answer, one module a stage, and one module a family of
//! routes. `server.rs` strings them together.

pub mod accept;
pub mod account;
pub mod admit;
pub mod authenticate;
pub mod blobs;
pub mod body;
pub mod compress;
pub mod connection;
pub mod control;
pub mod decode;
pub mod documents;
pub mod encode;
pub mod fields;
pub mod generate;
pub mod handler;
pub mod inflate;
pub mod management;
pub mod oip;
pub mod openai;
pub mod protocol;
pub mod request_body;
pub mod route;
pub mod shed;
pub mod socket;
pub mod stream;
pub mod task;
pub mod trace_context;
pub mod under_way;
