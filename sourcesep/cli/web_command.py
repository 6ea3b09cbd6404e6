"""The command sourcesep_web: serves the page of the packaged model on this machine and opens the browser."""

from __future__ import annotations

import pathlib
import tempfile
import webbrowser

from absl import flags

from data_gen import InputError
from sourcesep.cli.common import no_arguments, run

FLAGS = flags.FLAGS


def web() -> None:
    """Runs sourcesep_web."""
    flags.DEFINE_string(
        "page", "", "Folder of a page written by export.py; empty for that of the model in the package."
    )
    flags.DEFINE_string(
        "litert_dir", "", "Folder in which npm install @litertjs/core ran; empty to let npm fetch it into the cache."
    )
    flags.DEFINE_integer("port", 8000, "Port on localhost; 0 for any that is free.", lower_bound=0, upper_bound=65_535)
    flags.DEFINE_bool("open", True, "Opens the browser.")
    run(_web, "Shows a page that separates recordings in the browser; nothing leaves this machine.")


def _web(arguments: list[str]) -> int:
    no_arguments(arguments)
    if FLAGS.page:
        if not pathlib.Path(FLAGS.page, "model.json").is_file():
            raise InputError(f"--page={FLAGS.page}: holds no page; export.py --formats=web writes one")
        return _serve(FLAGS.page)
    from sourcesep.export.web_page import write_page
    from sourcesep.separate.tflite_model import PACKAGED

    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch, "page")
        write_page(folder, PACKAGED, FLAGS.litert_dir)
        return _serve(str(folder))


def _serve(folder: str) -> int:
    from sourcesep.export.web_server import make_server

    try:
        server = make_server(folder, FLAGS.port)
    except OSError as error:
        raise InputError(f"--port={FLAGS.port}: cannot be used ({error.strerror}); choose another, or 0") from None
    with server:
        address = f"http://localhost:{server.server_port}/"
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if FLAGS.open:
            webbrowser.open(address)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass
    return 0
