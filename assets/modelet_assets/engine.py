"""The bare engine: ONNX Runtime on one thread, whose answers Modelet's are compared with."""

import numpy as np
import onnxruntime


def session(model):
    """A session of the ONNX bytes `model`, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def logits(model, images):
    """The float32 output `logits` of the ONNX bytes `model`, for each image run alone.

    One image a run, because that is what a request brings: an engine may round a batch otherwise.
    """
    classifier = session(model)
    rows = [classifier.run(["logits"], {"image": image[None]})[0] for image in images]
    return np.concatenate(rows).astype("<f4")


def softmax(row):
    """Probabilities of one row of logits, in float64."""
    powers = np.exp(row.astype(np.float64) - row.max())
    return powers / powers.sum()
