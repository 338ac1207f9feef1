"""The server's page in a headless Chromium: what is typed is heard, without a gap, and fits a wide and a narrow window.

    python tests/clients/page.py target/release/voxgrain models/voice [FOLDER FOR SCREENSHOTS]
"""

import base64
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import websocket

PROGRAM, BUNDLE, *rest = sys.argv[1:]
SHOTS = Path(rest[0]) if rest else None


class Page:
    """One page of a browser, by its debugging protocol."""

    def __init__(self, address: str) -> None:
        self.socket = websocket.create_connection(address, suppress_origin=True, timeout=60)
        self.number = 0
        self.complaints: list[str] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            told = json.loads(self.socket.recv())
            if told.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.complaints.append(json.dumps(told["params"]))
            if told.get("id") == self.number:
                assert "error" not in told, told
                return told["result"]

    def run(self, script: str) -> Any:
        done = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait(self, script: str, seconds: float = 40) -> Any:
        end = time.monotonic() + seconds
        while not (got := self.run(script)):
            assert time.monotonic() < end, f"{script}: {self.run('document.body.innerText')} {self.complaints}"
            time.sleep(0.05)
        return got

    def window(self, name: str, width: int, height: int) -> None:
        mobile = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        wide = self.run("document.documentElement.scrollWidth")
        expect(f"page: nothing sticks out of a window of {width}", wide <= width)
        if SHOTS:
            shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
            (SHOTS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))


def expect(what: str, right: bool) -> None:
    assert right, what
    print("ok:", what, flush=True)


def check(page: Page) -> None:
    for domain in ("Page", "Runtime", "Log", "Network"):
        page.call(f"{domain}.enable")
    page.wait("document.querySelectorAll('#voice option').length")
    voices = page.run("[...document.querySelectorAll('#voice option')].map(o => o.value)")
    arms = page.run("[...document.querySelectorAll('#arm option')].map(o => o.value)")
    expect(f"page: voices {voices} and arms {arms}", len(voices) > 0 and "ar" in arms)
    # What is played is kept, to look at it.
    page.run(
        "window.heard = 0; window.most = 0;"
        "const push = Player.prototype.push;"
        "Player.prototype.push = function (s) {"
        "  heard += s.length; push.call(this, s); most = Math.max(most, this.inHand()); }"
    )
    page.run("document.getElementById('go').click()")
    page.wait("heard > 0")
    expect("page: it speaks while sound comes", page.run("!!speaking && !document.getElementById('stop').disabled"))
    page.wait("document.getElementById('said').textContent.startsWith('Done')")
    told = page.run("Object.fromEntries(['first','sound','rtf','accepted','said'].map(i => [i, at(i).textContent]))")
    rate = page.run("fetch('v1/audio/voices').then(a => a.json()).then(v => v.sample_rate)")
    expect(f"page: {told}", told["sound"] == f"{page.run('heard') / rate:.1f} s" and page.run("most") > 0)
    if float(told["rtf"]) < 0.5:
        expect("page: without a gap", told["said"] == "Done, without a gap")
    else:
        print("SKIP page: without a gap (this machine is too slow or too busy now)")
    expect("page: the plot has points of both kinds", page.run("points.length > 20 && points.some(p => p.accepted > 0)"))
    drawn = "plot.getContext('2d').getImageData(0, 0, plot.width, plot.height).data.some(x => x)"
    expect("page: and is drawn", page.run(f"const plot = at('plot'); {drawn}"))
    page.window("wide", 1280, 800)
    page.window("phone", 390, 844)
    # Stopped, it goes silent at once; what is wrong is told.
    page.run("at('text').value = at('text').value.repeat(8); at('go').click()")
    page.wait("at('said').textContent === 'Speaking'")
    page.run("at('stop').click()")
    expect("page: stopped", page.run("speaking === null && at('said').textContent === 'Stopped'"))
    page.run("at('text').value = ' '; at('go').click()")
    expect("page: a refusal is told", "no text to speak" in page.wait("at('said').classList.contains('bad') && at('said').textContent"))
    ours = [c for c in page.complaints if "400" not in c]
    expect("page: nothing else to complain of", not ours or print(ours) is not None)


def main() -> None:
    server = subprocess.Popen(
        [PROGRAM, "serve", "--bundle", BUNDLE, "--listen", "127.0.0.1:0"], stderr=subprocess.PIPE, text=True
    )
    browser = None
    try:
        assert server.stderr
        found = re.search(r"http://\S+", server.stderr.readline())
        assert found
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            browser = subprocess.Popen(
                ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--mute-audio"]
                + ["--autoplay-policy=no-user-gesture-required", "--remote-debugging-port=0"]
                + [f"--user-data-dir={home}", found[0]],
                stderr=subprocess.PIPE,
                text=True,
            )
            assert browser.stderr
            port = ""
            for line in browser.stderr:
                if told := re.search(r"DevTools listening on ws://[^:]+:(\d+)", line):
                    port = told[1]
                    break
            for _ in range(200):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as pages:
                    open_ = [p for p in json.load(pages) if p["type"] == "page" and p["url"].startswith(found[0])]
                if open_:
                    break
                time.sleep(0.05)
            check(Page(open_[0]["webSocketDebuggerUrl"]))
            browser.terminate()
            browser.wait(20)
    finally:
        if browser:
            browser.kill()
        server.kill()


main()
