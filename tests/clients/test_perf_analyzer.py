"""`perf_analyzer`, Triton's load tester: that it measures this server, and gets its statistics."""

import os
import platform
import re
import subprocess
import unittest

import numpy as np
from onnx import TensorProto

from .covers import covers
from .graphs import identity, publish
from .models import ADDRESS

# Short windows, as many as it takes for any result: what is measured is not the matter here. Where somebody
# asked for it (`cargo xtask soak`) windows are long, and it must find three that agree.
SHORT = ["-p", "500", "--max-trials", "3", "--stability-percentage", "999"]
LONG = ["-p", "10000", "--max-trials", "20", "--stability-percentage", "25"]
WINDOWS = LONG if os.environ.get("MODELET_SOAK") else SHORT


@unittest.skipUnless(platform.machine() == "x86_64", "it is published for x86-64 alone")
class PerfAnalyzer(unittest.TestCase):
    """The program."""

    CLIENT = "perf_analyzer: command line"

    @classmethod
    def setUpClass(cls):
        # It compares versions as numbers, so that the server's figures are found for such alone.
        publish("perf", identity(TensorProto.FLOAT))

    def run_it(self, *options):
        """What it came to."""
        command = [os.environ["MODELET_PERF_ANALYZER"], "-u", ADDRESS, "-m", "perf", *WINDOWS]
        run = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        return run.returncode, run.stdout + run.stderr

    def measure(self, *options):
        """Runs it, and looks for the client's figures and the server's."""
        code, said = self.run_it(*options)
        self.assertEqual(code, 0, said)
        throughput = re.search(r"Concurrency: 2, throughput: ([\d.]+) infer/sec", said)
        self.assertIsNotNone(throughput, said)
        self.assertGreater(float(throughput[1]), 0)
        # A request has four rows, and a run of the model takes them all.
        inferences, executions = (
            int(re.search(rf"{what} count: (\d+)", said)[1]) for what in ("Inference", "Execution")
        )
        self.assertGreater(executions, 0)
        np.testing.assert_allclose(inferences, 4 * executions, rtol=0.01)

    @covers("-i http")
    def test_over_http(self):
        self.measure("-i", "http", "-b", "4", "--concurrency-range", "2")

    @covers("-i grpc")
    def test_over_grpc(self):
        self.measure("-i", "grpc", "-b", "4", "--concurrency-range", "2")

    @covers("-i grpc --streaming")
    def test_over_a_stream(self):
        self.measure("-i", "grpc", "--streaming", "-b", "4", "--concurrency-range", "2")

    @covers("--input-tensor-format json")
    def test_with_json(self):
        self.measure(
            *["-i", "http", "--input-tensor-format", "json", "--output-tensor-format", "json"],
            *["-b", "4", "--concurrency-range", "2"],
        )

    @covers("--shared-memory system", but="refused at its beginning: shared memory is off")
    def test_shared_memory_is_not_taken(self):
        for protocol in ("http", "grpc"):
            code, said = self.run_it("-i", protocol, "--shared-memory", "system")
            self.assertNotEqual(code, 0)
            self.assertIn("shared memory is not enabled", said)


if __name__ == "__main__":
    unittest.main()
