//! The gate for components: what passes exports and imports what the host knows, and no limit is passed.

use modelet_host::engine::gate::{GateError, examine};

use crate::Outcome;

/// The limit of the ordinary run: far over any input of a fuzzer.
const LIMIT_BYTES: u64 = 8 << 20;

/// A component as it is uploaded.
///
/// # Panics
/// When a property of the gate does not hold.
pub fn component(data: &[u8]) -> Outcome {
    let bytes = data.len() as u64;
    let examined = examine(data, LIMIT_BYTES);
    if let Some(under) = bytes.checked_sub(1) {
        let limited = examine(data, under);
        assert!(matches!(limited, Err(GateError::TooLarge { .. })), "{bytes} bytes: {limited:?}");
    }
    let facts = match examined {
        Ok(facts) => facts,
        Err(error) => {
            let said = error.to_string();
            assert!(!said.is_empty() && said.len() < 64 << 10, "{} bytes of error", said.len());
            return Outcome::Refused;
        }
    };
    assert_eq!(facts.bytes, bytes);
    for wanted in ["describe", "infer"] {
        assert!(facts.exports.iter().any(|export| export == wanted), "{:?}", facts.exports);
    }
    for import in &facts.imports {
        let known = ["wasi:", "modelet:"].iter().any(|from| import.starts_with(from));
        assert!(known && !import.starts_with("wasi:keyvalue"), "import {import:?} passed");
    }
    assert_eq!(examine(data, bytes), Ok(facts), "the same bytes at the limit are judged otherwise");
    Outcome::Accepted
}
