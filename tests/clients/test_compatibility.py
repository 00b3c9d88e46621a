"""The page of compatibility is what the suite says, and the suite leaves no method out."""

import importlib.util
import inspect
import pathlib
import unittest

import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

_PATH = pathlib.Path(__file__).parent.parent / "compatibility.py"
_SPEC = importlib.util.spec_from_file_location("compatibility", _PATH)
compatibility = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(compatibility)

# What a client has besides calls of the server.
_NO_CALLS = {"close", "plugin", "register_plugin", "unregister_plugin"}
# What only reads and writes messages, and is part of what `infer` does.
_STATIC = {"generate_request_body", "parse_response_body"}


class Page(unittest.TestCase):
    """`docs/compatibility.md`."""

    def test_the_page_is_what_the_suite_says(self):
        written = compatibility.PAGE.read_text(encoding="utf-8")
        self.assertEqual(written, compatibility.page(), "`cargo xtask compatibility` writes it")

    def test_every_method_of_every_client_is_called(self):
        clients = compatibility.rows()
        for name, client in (
            ("tritonclient: grpc", tritonclient.grpc),
            ("tritonclient: grpc.aio", tritonclient.grpc.aio),
            ("tritonclient: http", tritonclient.http),
            ("tritonclient: http.aio", tritonclient.http.aio),
        ):
            with self.subTest(client=name):
                members = inspect.getmembers(client.InferenceServerClient, inspect.isfunction)
                methods = {method for method, _ in members if not method.startswith("_")}
                self.assertEqual(methods - _NO_CALLS - _STATIC, set(clients[name]))


if __name__ == "__main__":
    unittest.main()
