"""Runs JavaScript against a server: under Node, or in a page of a real browser."""

import functools
import json
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


@functools.cache
def node_command() -> list[str]:
    """Node with a WebSocket: its own since version 22, behind a flag since 20.10, or the package
    ``ws``; empty where there is none."""
    look = "process.exit(globalThis.WebSocket || require.resolve('ws') ? 0 : 1)"
    for command in (["node"], ["node", "--experimental-websocket"]):
        try:
            if subprocess.run([*command, "-e", look], capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            pass
    return []


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
            [*node_command(), "test.mjs"],
            cwd=folder,
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
