# Modelet for the harness that measures model servers: named there by PEERS_EXTRA, read by its shell.
# Wants MODELET_BIN, the built program; ONNX Runtime is found as `modelet serve --help` says.
# shellcheck shell=bash

peer modelet json binary

# $1 is the port. The folder's graphs are published while the harness already waits for an answer.
start_modelet() {
  local model data url="http://127.0.0.1:$1"
  data=$(mktemp -d -p "$PEERS_TMP")
  RUST_LOG=warn "$MODELET_BIN" serve --listen "127.0.0.1:$1" --data-dir "$data" &
  until curl --silent --fail --output /dev/null "$url/readyz"; do
    kill -0 $! || return 1
  done
  for model in mnist_cnn efficientnet_lite0; do
    "$MODELET_BIN" --json publish "$model" 1 --onnx "$MODELS_DIR/$model.onnx" --server "$url"
  done
  wait
}
