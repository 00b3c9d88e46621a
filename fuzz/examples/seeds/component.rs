//! Components, and what is taken for one.

use modelet_host::engine::PASSTHROUGH;

use super::Seed;

/// A component that exports what is wanted, in the fewest bytes.
const LEAST: &str = r#"(component
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (export "describe" (func $f))
  (export "infer" (func $f)))"#;

/// One without `infer`.
const HALF: &str = r#"(component
  (core module $m (func (export "f")))
  (core instance $i (instantiate $m))
  (func $f (canon lift (core func $i "f")))
  (export "describe" (func $f)))"#;

/// One that asks for more than it gets.
const FOREIGN: &str = r#"(component
  (import "wasi:keyvalue/store@0.2.0-draft" (instance (export "open" (func)))))"#;

/// Components inside components.
const NESTED: &str = "(component (component (component (core module) (component))))";

pub(super) fn seeds() -> Vec<Seed> {
    let seed = |name: &str, bytes: Vec<u8>| ("component", name.to_owned(), bytes);
    let made = |text| wat::parse_str(text).expect("the text above is WebAssembly");
    vec![
        seed("ok-passthrough", PASSTHROUGH.to_vec()),
        seed("any-least", made(LEAST)),
        seed("no-half", made(HALF)),
        seed("no-foreign-import", made(FOREIGN)),
        seed("no-nested", made(NESTED)),
        seed("no-core-module", made("(module (memory 1) (func (export \"infer\")))")),
        seed("no-text", b"(component)".to_vec()),
        seed("no-elf", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0".to_vec()),
        seed("no-bytes", Vec::new()),
    ]
}
