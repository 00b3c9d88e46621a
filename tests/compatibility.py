"""Makes `docs/compatibility.md` of what the suite covers: `python3 tests/compatibility.py --write`.

The tests are read and not run, so that no client needs to be installed. A class says which client it
is about, `CLIENT = "package: part"`, and a test which of its methods it calls, `@covers(...)`."""

import ast
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).parent.parent
PAGE = ROOT / "docs" / "compatibility.md"

HEAD = """# Compatibility

Which clients were tried, each as its maintainers publish it, and what works. This page is made from
the tests that call them (`cargo xtask compatibility`), and the tests compare it with themselves:
what stands here is run against a real server before every merge.

What clients of Triton may find different:

- The request parameter `timeout` is a deadline for the whole answer, never later than the host's own
  (`limits.request_timeout_ms`), whatever the model.
- The request parameter `priority` is taken and not acted on, as by a model of Triton's without levels of
  priority.
- A model of the task `chat` or `completion` is decoupled: `ModelStreamInfer` sends what it emits, each
  part with `triton_final_response` false, and at last its answer, with the parameter true. The last is
  never empty, whether a client asked for that or not. `ModelInfer` and REST give its answer alone,
  where Triton refuses. Any other model answers a message once.
- `unload` lasts until `load`, until another version is published, or until the server starts again.
- `load` takes no `config` and no files: a version never changes.
- Shared memory is off.
"""

COLUMNS = "| method | works | test |\n| --- | --- | --- |\n"

WORKS = "yes"


def versions():
    """The version of every package that tests install."""

    def pinned(file):
        lines = (ROOT / "assets" / file).read_text(encoding="utf-8").splitlines()
        found = (re.match(r"([\w.-]+)==([\w.]+)", line) for line in lines)
        return {match[1]: match[2] for match in found if match}

    # The load tester comes in the wheel of an older client.
    tester = {"perf_analyzer": pinned("requirements-perf.txt")["tritonclient"]}
    return pinned("requirements-peers.txt") | pinned("requirements.txt") | tester


def constant(node):
    """A literal, or none."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def client_of(body):
    """What a class says it is about."""
    for node in body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "CLIENT":
            return constant(node.value)
    return None


def covered(function):
    """The methods that a test calls, and what does not work."""
    for decorator in function.decorator_list:
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "covers":
            but = [constant(word.value) for word in decorator.keywords if word.arg == "but"]
            return [constant(name) for name in decorator.args], (but or [None])[0]
    return [], None


def rows():
    """Every client with its methods: how each does, and the test that shows it."""
    clients = {}
    for file in sorted((ROOT / "tests").glob("*/test_*.py")):
        module = ast.parse(file.read_text(encoding="utf-8"))
        for node in module.body:
            client = client_of(node.body) if isinstance(node, ast.ClassDef) else None
            if client is None:
                continue
            for function in node.body:
                if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    continue
                methods, but = covered(function)
                for method in methods:
                    test = f"{file.parent.name}/{file.stem}: {function.name}"
                    clients.setdefault(client, {}).setdefault(method, (but, test))
    return clients


def page():
    """The page."""
    pins = versions()
    text = HEAD
    for client, methods in sorted(rows().items()):
        package, part = client.split(": ")
        text += f"\n## {package} {pins[package]}, {part}\n\n{COLUMNS}"
        for method, (but, test) in sorted(methods.items()):
            text += f"| `{method}` | {but or WORKS} | {test} |\n"
    return text


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")
