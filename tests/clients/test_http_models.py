"""Models that answer HTTP themselves, by a component that was written with `wstd` for any host: what it
is asked and what it answers streams both ways, and the host's limits and accounts hold."""

import http.client
import http.server
import json
import os
import pathlib
import socket
import subprocess
import threading
import time
import unittest
import urllib.error
import urllib.request

from .models import FOLDER
from .server import PROGRAM
from .server import Server as Settled

COMPONENTS = pathlib.Path(os.environ["MODELET_GUESTS"]) / "modelet"
RELAY = COMPONENTS / "relay.wasm"

# What is asked while several ask at once.
CALLERS = 8
REQUESTS = 50

# Longer than anything takes; what does not come by then never comes.
PATIENCE = 60


class Server(Settled):
    """A server with the model `relay`."""

    def __enter__(self):
        super().__enter__()
        self.publish("relay", "--component", RELAY)
        self.address = self.url.removeprefix("http://")
        return self

    def package(self, name, component, said):
        """Publishes a component with more to be said of it than options say."""
        package = pathlib.Path(self.folder.name) / "modelet.toml"
        named = f'name = "{name}"\nversion = "1.0.0"\ncomponent = "{component}"\n'
        package.write_text(named + said, encoding="utf-8")
        command = [PROGRAM, "publish", "--package", package, "--server", self.url]
        subprocess.run(command, check=True, capture_output=True)

    def ask(self, path, method="GET", body=None, headers=None):
        """The answer to one request."""
        connection = http.client.HTTPConnection(self.address, timeout=PATIENCE)
        connection.request(method, "/fn/relay" + path, body, headers or {})
        answer = connection.getresponse()
        answer.content = answer.read()
        connection.close()
        return answer

    def get(self, path):
        """A document of the server's own."""
        with urllib.request.urlopen(self.url + path) as answer:
            return answer.read().decode()

    def metric(self, name):
        """A figure."""
        found = [line for line in self.get("/metrics").splitlines() if line.startswith(name + " ")]
        return float(found[0].split()[-1]) if found else 0

    def outcomes(self, outcome):
        """How many requests of the model came to this."""
        return self.metric(f'modelet_http_requests_total{{route="fn",outcome="{outcome}"}}')

    def eventually(self, holds):
        """Asks until it holds."""
        due = time.monotonic() + PATIENCE
        while not holds():
            self.case.assertLess(time.monotonic(), due, "it did not come true")


class Upstream(http.server.BaseHTTPRequestHandler):
    """Another server, which a model may ask."""

    def do_GET(self):  # noqa: N802, the library's name for it
        """Answers, or sends on to where the path says."""
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("location", "http://" + self.path.removeprefix("/to/"))
            self.end_headers()
            return
        body = f"you asked for {self.path}".encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Says nothing."""


class HttpModels(unittest.TestCase):
    """One server each, since settings differ."""

    def served(self, settings=""):
        """A server that is there for the rest of the test."""
        server = Server(settings)
        server.case = self
        self.enterContext(server)
        return server

    def rest(self, server):
        """Nothing is left of any request."""
        for name in ("requests", "bytes"):
            server.eventually(lambda name=name: server.metric(f"modelet_inflight_{name}") == 0)
        server.eventually(lambda: server.metric("modelet_instances") == 0)

    def test_a_request_reaches_the_model_at_its_own_root(self):
        server = self.served()
        for path, seen in (
            ("/hello?a=1&b=%2F", "/hello?a=1&b=%2F"),
            ("@1.0.0/hello", "/hello"),
            ("@live/hello", "/hello"),
        ):
            answer = server.ask(path, "PATCH", headers={"x-mine": "yes"})
            self.assertEqual((answer.status, answer.headers["modelet-version"]), (200, "1.0.0"))
            lines = answer.content.decode().splitlines()
            self.assertTrue(lines[0].startswith("PATCH ") and lines[0].endswith(seen), lines)
            prefix = "/fn/relay" + path.split("/")[0]
            for header in ("x-mine: yes", f"x-forwarded-prefix: {prefix}"):
                self.assertIn(header, lines)
            self.assertIn("x-request-id", answer.headers)
        self.assertEqual(server.ask("").status, 404)
        self.assertEqual(server.ask("/no/such/path/of/very/many/segments/a/b/c/d/e").status, 404)
        for path in ("/fn/none/hello", "/fn/relay@9/hello", "/fn/"):
            with self.assertRaises(urllib.error.HTTPError) as raised:
                server.get(path)
            self.assertEqual(raised.exception.code, 404)
        self.assertEqual(server.ask("/hello", "HEAD").status, 200)
        self.rest(server)

    def test_it_is_a_version_like_any_other(self):
        server = self.served()
        version = json.loads(server.get("/api/v1/models/relay/versions/1.0.0"))
        self.assertEqual(version["signature"]["task"], "http")
        # New for every request, unless its publisher says otherwise.
        self.assertEqual(version["pool"]["max_instance_reuse_count"], 1)
        server.ask("/hello")
        self.assertEqual(json.loads(server.get("/api/v1/instances"))["instances"], [])
        bill = json.loads(server.get("/api/v1/bill?window=lifetime"))
        self.assertIn("relay", json.dumps(bill))
        ok = 'modelet_inferences_total{model="relay",version="1.0.0",outcome="ok"}'
        self.assertEqual(server.metric(ok), 1)
        # It takes no tensors, and models of tensors take nothing else.
        for path, model, words in (
            ("/v2/models/relay/infer", b'{"inputs":[]}', "/fn/relay/"),
            ("/fn/linear/hello", b"", "/v2/models/linear/infer"),
        ):
            with self.assertRaises(urllib.error.HTTPError) as raised:
                urllib.request.urlopen(server.url + path, data=model)
            self.assertEqual(raised.exception.code, 400)
            self.assertIn(words, raised.exception.read().decode())

    def test_an_instance_may_answer_many(self):
        server = self.served()
        server.package("reused", RELAY, "[pool]\nmax_instance_reuse_count = 100\n")
        connection = http.client.HTTPConnection(server.address, timeout=PATIENCE)
        for _ in range(20):
            connection.request("GET", "/fn/reused/hello")
            self.assertEqual(connection.getresponse().read()[:4], b"GET ")
        connection.close()
        (instance,) = json.loads(server.get("/api/v1/instances"))["instances"]
        self.assertEqual((instance["uses"], instance["state"]), (20, "idle"))
        self.assertEqual(instance["lifetime_ns"], sum(instance["buckets_ns"].values()))

    def test_it_may_have_graphs_of_its_version(self):
        server = self.served()
        graph = FOLDER / "mnist.onnx"
        assets = f'[assets]\n"model.onnx" = "{graph}"\n'
        server.package("reader", COMPONENTS / "reader.wasm", assets)
        for digit in (3, 7):
            pixels = (FOLDER / f"digit-{digit}.f32").read_bytes()
            with urllib.request.urlopen(server.url + "/fn/reader/", data=pixels) as answer:
                self.assertEqual(answer.read(), b"%d\n" % digit)
        stats = json.loads(server.get("/api/v1/bill?window=lifetime"))
        self.assertIn("reader", json.dumps(stats))
        # What is wrong with its input it says itself, and its instance is gone with it.
        with self.assertRaises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(server.url + "/fn/reader/", data=b"no picture")
        self.assertEqual(raised.exception.code, 500)
        self.rest(server)

    def test_many_at_once_leave_nothing(self):
        server = self.served()
        answers = []

        def ask(caller):
            body = b"%d" % caller * 1000
            for _ in range(REQUESTS):
                answers.append(server.ask("/echo", "POST", body).content == body)

        def all_ask():
            callers = [threading.Thread(target=ask, args=(n,)) for n in range(CALLERS)]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
            self.rest(server)
            return self.resident(server)

        before = all_ask()
        after = [all_ask() for _ in range(3)][-1]
        self.assertEqual(answers, [True] * (4 * CALLERS * REQUESTS))
        # Memory that came with the first is all that came.
        self.assertLess(after, before + (16 << 20))

    def resident(self, server):
        """Bytes of the server in physical memory."""
        status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text(encoding="utf-8")
        (line,) = (line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def test_bodies_stream_both_ways(self):
        server = self.served()
        connection = socket.create_connection(server.address.split(":"), timeout=PATIENCE)
        reader = connection.makefile("rb")
        head = "POST /fn/relay/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"
        connection.sendall(head.encode())
        first = True
        for number in range(20):
            piece = f"piece {number}\n".encode()
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
            if first:
                self.assertIn(b"200", reader.readline())
                while reader.readline().strip():
                    pass
                first = False
            # It is there before the next is sent.
            length = int(reader.readline(), 16)
            self.assertEqual(reader.read(length), piece)
            reader.readline()
        connection.sendall(b"0\r\n\r\n")
        self.assertEqual(reader.readline(), b"0\r\n")
        connection.close()
        # And one that is far larger than anything between, by a client that reads as it writes.
        large = bytes(range(256)) * 40_000
        command = ["curl", "--silent", "--data-binary", "@-", server.url + "/fn/relay/echo"]
        done = subprocess.run(command, input=large, capture_output=True, check=True)
        self.assertEqual(done.stdout, large)
        self.assertEqual(server.outcomes("ok"), 2)
        self.rest(server)

    def test_a_body_over_the_limit_does_not_reach_the_model_whole(self):
        server = self.served("[limits]\nrequest_body_bytes = 100000\n")
        self.assertEqual(server.ask("/echo", "POST", b"x" * 100_001).status, 413)
        chunks = (b"x" * 1000 for _ in range(200))
        with self.assertRaises((http.client.HTTPException, OSError)):
            server.ask("/echo", "POST", chunks)
        self.assertEqual(len(server.ask("/echo", "POST", b"x" * 100_000).content), 100_000)
        self.rest(server)

    def test_a_model_that_stops_fails_alone_and_cuts_what_it_began(self):
        server = self.served()
        stopped = server.ask("/panic")
        self.assertEqual(stopped.status, 500)
        self.assertIn("stopped", json.loads(stopped.content)["error"])
        refused = server.ask("/none")
        self.assertEqual(refused.status, 500)
        # Nothing but the end of the connection tells that an answer is not whole.
        with self.assertRaises(http.client.IncompleteRead) as raised:
            server.ask("/break", headers={"lines": "3"})
        partial = raised.exception.partial
        self.assertTrue(b"line 0\nline 1\nline 2\n".startswith(partial) and partial, partial)
        server.eventually(lambda: server.outcomes("trap") == 2)
        self.assertEqual(server.outcomes("guest_error"), 1)
        self.assertEqual(server.ask("/hello").status, 200)
        self.rest(server)

    def test_a_deadline_ends_it(self):
        server = self.served("[limits]\nrequest_timeout_ms = 1000\n")
        late = server.ask("/spin")
        self.assertEqual(late.status, 504)
        self.assertEqual(json.loads(late.content)["limit"], "limits.request_timeout_ms")
        # One that waits, and has begun to answer.
        with self.assertRaises(http.client.IncompleteRead) as raised:
            server.ask("/count", headers={"lines": "100", "pause-ms": "300"})
        self.assertIn(b"line 1\n", raised.exception.partial)
        server.eventually(lambda: server.outcomes("deadline") == 2)
        self.rest(server)

    def test_a_caller_that_leaves_ends_it(self):
        server = self.served()
        for path, header in (("/spin", ""), ("/count", "lines: 1000\r\npause-ms: 50\r\n")):
            connection = socket.create_connection(server.address.split(":"), timeout=PATIENCE)
            connection.sendall(f"GET /fn/relay{path} HTTP/1.1\r\nhost: a\r\n{header}\r\n".encode())
            server.eventually(lambda: server.metric("modelet_inflight_requests") == 1)
            if header:
                self.assertIn(b"200", connection.recv(100))
            connection.close()
            self.rest(server)
        self.assertEqual(server.outcomes("client_gone"), 2)

    def upstream(self):
        """Another server: its port."""
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return server.server_port

    def fetch(self, server, target):
        """What a model gets that asks another server."""
        answer = server.ask("/fetch", headers={"target": target})
        return answer.status, answer.content.decode()

    def test_a_model_asks_nobody_unless_its_operator_says_so(self):
        port = self.upstream()
        target = f"http://127.0.0.1:{port}/x"
        server = self.served()
        for refused in (target, f"http://localhost:{port}/x", "http://8.8.8.8/"):
            status, said = self.fetch(server, refused)
            self.assertEqual(status, 502)
            self.assertIn("HttpRequestDenied", said)

    def test_a_model_asks_whom_its_operator_names_and_nobody_behind_them(self):
        port = self.upstream()
        # A name that is allowed leads to no private address.
        server = self.served(f'[guest]\noutgoing_http = ["localhost:{port}"]\n')
        status, said = self.fetch(server, f"http://localhost:{port}/x")
        self.assertEqual(status, 502)
        self.assertIn("DestinationIpProhibited", said)
        # Unless its network is named.
        networks = f'"localhost:{port}", "127.0.0.0/8", "::1"'
        server = self.served(f"[guest]\noutgoing_http = [{networks}]\n")
        reached = self.fetch(server, f"http://localhost:{port}/x?y=1")
        self.assertEqual(reached, (200, "you asked for /x?y=1"))
        self.assertEqual(self.fetch(server, f"http://127.0.0.1:{port}/x")[0], 200)
        # It is told of a redirect, and what it makes of that is another request.
        self.assertEqual(self.fetch(server, f"http://localhost:{port}/to/10.0.0.1/")[0], 302)
        for refused in ("http://10.0.0.1/", f"http://localhost:{port + 1}/", "https://localhost/"):
            status, said = self.fetch(server, refused)
            self.assertEqual((status, "HttpRequestDenied" in said), (502, True), said)
        self.rest(server)


if __name__ == "__main__":
    unittest.main()
