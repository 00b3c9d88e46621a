"""Graphs that tests need besides the example models: made here, and published like anybody's."""

import urllib.request

from onnx import helper

from .models import ADDRESS

_BOUNDARY = "modelet-clients-boundary-5b1e"


def identity(element_type):
    """A graph that gives back the rows of two elements that it gets."""
    x, y = (helper.make_tensor_value_info(name, element_type, ["n", 2]) for name in "xy")
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "identity", [x], [y])
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def publish(model, graph):
    """Publishes version 1 of a model that serves a graph as it is."""
    part = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="asset:model.onnx"; filename="g"'
    body = part.encode() + b"\r\n\r\n" + graph + f"\r\n--{_BOUNDARY}--\r\n".encode()
    request = urllib.request.Request(
        f"http://{ADDRESS}/api/v1/models/{model}/versions/1",
        data=body,
        headers={"content-type": f"multipart/form-data; boundary={_BOUNDARY}"},
        method="PUT",
    )
    with urllib.request.urlopen(request) as answer:
        answer.read()
