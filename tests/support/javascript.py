"""Runs JavaScript against a server: under Node, or in a page of a real browser."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import wse_tornado

from .timing import seconds

SCRIPT = Path(wse_tornado.__file__).parent / "static" / "wse.js"

# What the functions under test are given: the module's names, and `make(options)`, a client.
GIVEN = """
  const given = (module, url, WebSocket, args) => ({
    ...module, url, args,
    make: (options = {}) => new module.WseClient({ url, WebSocket, ...options }),
    caught: async (promise) => {
      try { await promise } catch ({ name, code, details, message, rpc }) {
        return { name, code, details, message, rpc }
      }
      return "nothing was thrown"
    },
    next: (signal, wanted = () => true) => new Promise((resolve) => {
      const off = signal((...values) => {
        if (wanted(...values)) { queueMicrotask(() => off()); resolve(values) }
      })
    }),
  })
"""

NODE = """
import * as module from "./wse.mjs"
import { createRequire } from "node:module"
%(given)s
let WebSocket = globalThis.WebSocket
if (!WebSocket) WebSocket = createRequire(import.meta.url)("ws")
const test = %(function)s
let answer
try {
  answer = { result: await test(given(module, %(url)s, WebSocket, %(args)s)) }
} catch (error) {
  answer = { error: String(error.stack ?? error) }
}
process.stdout.write(JSON.stringify(answer), () => process.exit())
"""

PAGE = """
const done = arguments[arguments.length - 1]
const [source, url, args] = arguments
;(async () => {
  %(given)s
  const blob = URL.createObjectURL(new Blob([source], { type: "text/javascript" }))
  const module = await import(blob)
  const test = %(function)s
  return test(given(module, url, WebSocket, args))
})().then((result) => done({ result }), (error) => done({ error: String(error.stack ?? error) }))
"""

# Runs a JavaScript function `async ({ make, ...names }) => result` and returns its result.
Run = Callable[..., Any]


def node_environment() -> dict[str, str]:
    """Where Node looks for the package ``ws``, which versions before 22 need."""
    path = os.environ.get("WSE_TEST_NODE_PATH")
    return {**os.environ, **({"NODE_PATH": path} if path else {})}


def missing_for_node() -> str:
    """What Node lacks to run the client; empty where nothing."""
    if not shutil.which("node"):
        return "node"
    look = "process.exit(globalThis.WebSocket || require.resolve('ws') ? 0 : 1)"
    found = subprocess.run(["node", "-e", look], capture_output=True, env=node_environment())
    return "" if found.returncode == 0 else "a WebSocket for Node (version 22, or the package ws)"


def node_runner(folder: Path) -> Run:
    """Run functions under Node, in a folder of the test's own."""
    shutil.copy(SCRIPT, folder / "wse.mjs")

    def run(url: str, function: str, args: Any = None) -> Any:
        program = NODE % {
            "given": GIVEN,
            "function": function,
            "url": json.dumps(url),
            "args": json.dumps(args),
        }
        (folder / "test.mjs").write_text(program, "utf-8")
        done = subprocess.run(
            ["node", "test.mjs"],
            cwd=folder,
            env=node_environment(),
            capture_output=True,
            text=True,
            timeout=seconds(30),
        )
        assert done.stdout, done.stderr
        return _result(json.loads(done.stdout))

    return run


def page_runner(driver: Any) -> Run:
    """Run functions in the page that a browser has open."""

    def run(url: str, function: str, args: Any = None) -> Any:
        driver.set_script_timeout(seconds(30))
        program = PAGE % {"given": GIVEN, "function": function}
        return _result(driver.execute_async_script(program, SCRIPT.read_text("utf-8"), url, args))

    return run


def _result(answer: dict[str, Any]) -> Any:
    assert "error" not in answer, answer["error"]
    return answer.get("result")
