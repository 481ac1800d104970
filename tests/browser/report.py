#!/usr/bin/env python3
"""Opens a report in headless Chromium and checks what no parser can see.

    tests/browser/report.py REPORT.html SCREENSHOTS

No console message, no request but for the file itself, every chart has its marks, no scrolling
of the page sideways, at 1280 and 400 pixels, light and dark, by system setting and by the page's
own switch. Screenshots are for looking at. Speaks the DevTools protocol over a pipe, so Python
and a `chromium` are all it needs.
"""

import base64, json, os, pathlib, subprocess, sys, tempfile

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-pipe""".split()

PROBE = """(() => {
  const marks = 'path.line, rect.bar, .interval circle, .node rect, .bar > rect';
  const empty = [...document.querySelectorAll('svg[role=img]')]
    .filter(svg => ![...svg.querySelectorAll(marks)].some(mark => mark.getBBox().width + mark.getBBox().height > 0
      || mark.getAttribute('d')?.endsWith('h0')));
  const root = document.documentElement;
  return JSON.stringify({
    charts: document.querySelectorAll('svg[role=img]').length,
    empty: empty.map(svg => svg.id || svg.parentElement.id),
    wider: root.scrollWidth - root.clientWidth,
    height: root.scrollHeight,
    back: getComputedStyle(document.body).backgroundColor,
  });
})()"""


class Browser:
    def __init__(self, folder):
        ours, theirs = os.pipe(), os.pipe()  # it reads from descriptor 3 and writes to 4

        def descriptors():
            read, write = os.dup(ours[0]), os.dup(theirs[1])
            os.dup2(read, 3), os.dup2(write, 4)

        command = ["chromium", *FLAGS, f"--user-data-dir={folder}"]
        self.process = subprocess.Popen(command, preexec_fn=descriptors, close_fds=False, stderr=subprocess.DEVNULL)
        os.close(ours[0]), os.close(theirs[1])
        self.write, self.read = os.fdopen(ours[1], "wb"), os.fdopen(theirs[0], "rb")
        self.buffer, self.number, self.session, self.events = b"", 0, None, []

    def message(self):
        while b"\0" not in self.buffer:
            more = self.read.read1(1 << 20)
            assert more, "the browser has gone"
            self.buffer += more
        text, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(text)

    def ask(self, method, **params):
        self.number += 1
        question = {"id": self.number, "method": method, "params": params}
        if self.session:
            question["sessionId"] = self.session
        self.write.write(json.dumps(question).encode() + b"\0")
        self.write.flush()
        while True:
            answer = self.message()
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def until(self, method):
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.message())


def main(page, shots):
    page, shots = pathlib.Path(page).resolve(), pathlib.Path(shots)
    shots.mkdir(parents=True, exist_ok=True)
    problems, backs = [], set()
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(folder)
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            browser.ask(f"{domain}.enable")
        for width in (1280, 400):
            for scheme in ("light", "dark"):
                browser.events.clear()
                feature = {"name": "prefers-color-scheme", "value": scheme}
                browser.ask("Emulation.setEmulatedMedia", features=[feature])
                size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
                browser.ask("Emulation.setDeviceMetricsOverride", **size)
                browser.ask("Page.navigate", url=page.as_uri())
                browser.until("Page.loadEventFired")
                probe = lambda: json.loads(browser.ask("Runtime.evaluate", expression=PROBE)["result"]["value"])
                seen = probe()
                where = f"{width} {scheme}"
                if seen["empty"]:
                    problems.append(f"{where}: no marks in {seen['empty']}")
                if seen["wider"] > 0:
                    problems.append(f"{where}: the page is {seen['wider']} pixels too wide")
                backs.add((scheme, seen["back"]))
                other = "dark" if scheme == "light" else "light"
                browser.ask("Runtime.evaluate", expression=f"document.getElementById('theme-{other}').click()")
                backs.add((other, probe()["back"]))
                browser.ask("Runtime.evaluate", expression="document.getElementById('theme-auto').click()")
                clip = {"x": 0, "y": 0, "width": width, "height": min(seen["height"], 16000), "scale": 1}
                shot = browser.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
                (shots / f"{page.stem}-{width}-{scheme}.png").write_bytes(base64.b64decode(shot))
                for event in browser.events:
                    method, params = event.get("method"), event.get("params", {})
                    if method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                        problems.append(f"{where}: console: {json.dumps(params)[:300]}")
                    if method == "Network.requestWillBeSent" and params["request"]["url"] != page.as_uri():
                        problems.append(f"{where}: asks for {params['request']['url']}")
                print(f"{where}: {seen['charts']} charts, {seen['height']} pixels high")
        browser.session = None
        browser.ask("Browser.close")
        browser.process.wait()
    if len(backs) != 2:
        problems.append(f"the switch and the system disagree about colours: {sorted(backs)}")
    print("\n".join(problems) or "no problem found")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
