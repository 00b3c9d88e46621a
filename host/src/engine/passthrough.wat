;; The pass-through model: describes itself as the graph `model.onnx` and hands every call on to it.
;;
;; Only names and handles cross its memory; tensor bytes stay in the host. The layout of everything
;; below is the component model's canonical ABI for the world `model`, and the build fails if the two
;; disagree.
;;
;; Memory: page 0 holds the constants and the return areas; from 4096 on a bump allocator serves
;; `cabi_realloc` and is reset when an answer has been read (`cabi_post_infer`). Nothing a call
;; allocates outlives it.
(module
  (type $realloc (func (param i32 i32 i32 i32) (result i32)))

  (import "wasi:nn/graph@0.2.0-rc-2024-10-28" "load-by-name"
    (func $load_by_name (param i32 i32 i32)))
  (import "wasi:nn/graph@0.2.0-rc-2024-10-28" "[method]graph.init-execution-context"
    (func $init_context (param i32 i32)))
  (import "wasi:nn/graph@0.2.0-rc-2024-10-28" "[resource-drop]graph"
    (func $drop_graph (param i32)))
  (import "wasi:nn/inference@0.2.0-rc-2024-10-28" "[method]graph-execution-context.compute"
    (func $compute (param i32 i32 i32 i32)))
  (import "wasi:nn/errors@0.2.0-rc-2024-10-28" "[method]error.code"
    (func $error_code (param i32) (result i32)))
  (import "wasi:nn/errors@0.2.0-rc-2024-10-28" "[method]error.data"
    (func $error_data (param i32 i32)))
  (import "wasi:nn/errors@0.2.0-rc-2024-10-28" "[resource-drop]error"
    (func $drop_error (param i32)))

  (memory (export "memory") 1)

  ;; The asset's name: 10 bytes at 16.
  (data (i32.const 16) "model.onnx")

  ;; Return areas. 64: description. 96: result of infer (28 bytes). 128: results of imports.
  (global $bump (mut i32) (i32.const 4096))
  ;; The execution context's handle; -1 until the first call made it.
  (global $context (mut i32) (i32.const -1))

  (func (export "describe") (result i32)
    (i32.store8 (i32.const 64) (i32.const 1))       ;; same-as-graph
    (i32.store offset=4 (i32.const 64) (i32.const 16))
    (i32.store offset=8 (i32.const 64) (i32.const 10))
    (i32.const 64))

  ;; Makes the execution context. Returns 0, or 1 with the failure in the result of infer.
  (func $bind (result i32)
    (local $graph i32)
    (call $load_by_name (i32.const 16) (i32.const 10) (i32.const 128))
    (if (i32.load8_u (i32.const 128))
      (then
        (call $fail (i32.load offset=4 (i32.const 128)))
        (return (i32.const 1))))
    (local.set $graph (i32.load offset=4 (i32.const 128)))
    (call $init_context (local.get $graph) (i32.const 128))
    (call $drop_graph (local.get $graph))
    (if (i32.load8_u (i32.const 128))
      (then
        (call $fail (i32.load offset=4 (i32.const 128)))
        (return (i32.const 1))))
    (global.set $context (i32.load offset=4 (i32.const 128)))
    (i32.const 0))

  ;; Writes err(failure) into the result of infer, in the words of the error, which it drops.
  (func $fail (param $error i32)
    (local $code i32)
    (local.set $code (call $error_code (local.get $error)))
    (i32.store8 (i32.const 96) (i32.const 1))
    ;; invalid-argument is the caller's (invalid-input, 0); timeout may pass (unavailable, 1); what
    ;; remains failed (2).
    (i32.store8 offset=4 (i32.const 96)
      (select (i32.const 0)
        (select (i32.const 1) (i32.const 2) (i32.eq (local.get $code) (i32.const 2)))
        (i32.eqz (local.get $code))))
    (call $error_data (local.get $error) (i32.const 128))
    (i32.store offset=8 (i32.const 96) (i32.load (i32.const 128)))
    (i32.store offset=12 (i32.const 96) (i32.load offset=4 (i32.const 128)))
    (i32.store8 offset=16 (i32.const 96) (i32.const 0))          ;; the message names the tensor
    (call $drop_error (local.get $error)))

  (func (export "infer") (param $inputs i32) (param $count i32) (result i32)
    (if (i32.lt_s (global.get $context) (i32.const 0))
      (then
        (if (call $bind) (then (return (i32.const 96))))))
    (call $compute (global.get $context) (local.get $inputs) (local.get $count) (i32.const 128))
    (if (i32.load8_u (i32.const 128))
      (then
        (call $fail (i32.load offset=4 (i32.const 128)))
        (return (i32.const 96))))
    (i32.store8 (i32.const 96) (i32.const 0))
    (i32.store offset=4 (i32.const 96) (i32.load offset=4 (i32.const 128)))
    (i32.store offset=8 (i32.const 96) (i32.load offset=8 (i32.const 128)))
    (i32.const 96))

  (func (export "cabi_post_infer") (param i32)
    (global.set $bump (i32.const 4096)))

  ;; Gives `size` bytes at `align`; grows memory when they do not fit. Never moves or frees: the
  ;; canonical ABI asks for growth only while it transcodes strings, which UTF-8 to UTF-8 does not.
  (func (export "cabi_realloc") (type $realloc)
    (local $start i32) (local $end i32) (local $have i32)
    (local.set $start
      (i32.and
        (i32.add (global.get $bump) (i32.sub (local.get 2) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get 2))))
    (local.set $end (i32.add (local.get $start) (local.get 3)))
    (if (i32.lt_u (local.get $end) (local.get $start)) (then unreachable))
    (local.set $have (i32.shl (memory.size) (i32.const 16)))
    (if (i32.gt_u (local.get $end) (local.get $have))
      (then
        (if (i32.lt_s
              (memory.grow
                (i32.shr_u
                  (i32.add (i32.sub (local.get $end) (local.get $have)) (i32.const 65535))
                  (i32.const 16)))
              (i32.const 0))
          (then unreachable))))
    (global.set $bump (local.get $end))
    (local.get $start))
)
