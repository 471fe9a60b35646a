"""A web server of a folder in a process of its own: GDAL holds Python's lock while it asks for some sidecars.

It serves byte ranges with an ETag of the content, writes what it is asked for into the file ``asked`` beside the folder, and
sends other ranges than asked for while a file ``wrong`` lies there. While there is a file ``drops`` it closes connections, and
while there is one ``hangs`` it keeps them open and says nothing.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_HEAD(self) -> None:
        self.do_GET(with_body=False)

    def do_GET(self, with_body: bool = True) -> None:
        path, beside = Path(self.translate_path(self.path)), Path(self.directory).parent
        with (beside / "asked").open("a", encoding="utf-8") as asked:
            asked.write(f"{self.command} {path.name}\n")
        if (beside / "drops").exists() or (beside / "hangs").exists():
            while (beside / "hangs").exists():
                time.sleep(0.1)
            self.close_connection = True
            self.connection.close()
            return
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        first, last = 0, len(content) - 1
        if "Range" in self.headers:
            start, _, end = self.headers["Range"].removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or last), last)
        if first > last:
            self.send_error(416)
            return
        body = content[: last - first + 1] if (beside / "wrong").exists() else content[first : last + 1]
        self.send_response(206 if "Range" in self.headers else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()[:8]}"')
        if "Range" in self.headers:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)


@dataclass(frozen=True)
class Server:
    """A folder and its address."""

    folder: Path
    url: str

    @property
    def requests(self) -> list[str]:
        """What it was asked for, such as ``"GET scene.tif"``."""
        asked = self.folder.parent / "asked"
        return asked.read_text(encoding="utf-8").splitlines() if asked.exists() else []


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """Serve a folder, which is made, until the context ends."""
    folder.mkdir()
    command = [sys.executable, "-I", __file__, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Server(folder, f"http://127.0.0.1:{int(process.stdout.readline())}")
        finally:
            process.kill()


if __name__ == "__main__":
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=sys.argv[1])) as httpd:
        sys.stdout.write(f"{httpd.server_port}\n")
        sys.stdout.flush()
        httpd.serve_forever()
