"""A server of a test's own, for what the server that all share must not be put through."""

import os
import pathlib
import subprocess
import tempfile

PROGRAM = os.environ["MODELET"]
GRAPH = pathlib.Path(__file__).parents[2] / "cli" / "template" / "model.onnx"


class Server:
    """A server with these settings and two small models: `parrot`, a chat; `linear`, a graph."""

    def __init__(self, settings=""):
        self.settings = settings

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        config = pathlib.Path(self.folder.name) / "settings.toml"
        config.write_text(self.settings, encoding="utf-8")
        data = pathlib.Path(self.folder.name) / "data"
        command = [PROGRAM, "serve", "--listen", "127.0.0.1:0", "--data-dir", data]
        self.process = subprocess.Popen(
            [*command, "--config", config], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.url = self.process.stdout.readline().decode().split()[-1]
        component = pathlib.Path(os.environ["MODELET_GUESTS"]) / "modelet" / "parrot.wasm"
        self.publish("parrot", "--component", component)
        self.publish("linear", "--onnx", GRAPH)
        return self.url

    def publish(self, name, kind, file):
        """Publishes version 1.0.0 of a model."""
        command = [PROGRAM, "publish", name, "1.0.0", kind, file, "--server", self.url]
        subprocess.run(command, check=True, capture_output=True)

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()
