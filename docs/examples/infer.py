"""A photograph of a cup of coffee, sent as binary tensors by a standard client."""

import os

import numpy as np
import tritonclient.http as triton

address = os.environ["MODELET_SERVER"].removeprefix("http://")
pixels = np.fromfile("coffee.f32", np.float32).reshape(1, 3, 224, 224)

image = triton.InferInput("image", pixels.shape, "FP32")
image.set_data_from_numpy(pixels)
with triton.InferenceServerClient(address) as client:
    answer = client.infer("efficientnet-lite0", [image])

best = answer.as_numpy("logits")[0].argmax()
with open("imagenet-labels.txt", encoding="utf-8") as labels:
    print(labels.read().splitlines()[best])
