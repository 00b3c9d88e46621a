//! A seed for callers that set none: from the host, whose other answers are a matter of the inputs.

#[cfg(target_arch = "wasm32")]
mod bindings {
    #![allow(unsafe_code, clippy::all, clippy::restriction, reason = "generated")]

    wit_bindgen::generate!({
        inline: "
            package modelet:chat;

            world entropy {
                import wasi:random/random@0.2.0;
            }

            package wasi:random@0.2.0 {
                interface random {
                    get-random-u64: func() -> u64;
                }
            }
        ",
        generate_all,
    });
}

/// A seed that nobody can know before.
#[cfg(target_arch = "wasm32")]
pub(crate) fn seed() -> u64 {
    bindings::wasi::random::random::get_random_u64()
}

/// On the author's machine, where tests have to come out the same.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn seed() -> u64 {
    0
}
