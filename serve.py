"""Serves a web page that recognizes live, and an HTTP API.

    python serve.py                   # then open http://127.0.0.1:5000
    python serve.py --open=yes        # opens it in the browser
    python serve.py --host=192.168.1.10 --token=…    # for others on the network too: see docs/web.md

Exit status: 0 after Ctrl-C or SIGTERM; 2 when the address or the model cannot be used.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import ipaddress
import os
import re
import sys
from collections.abc import Sequence

from ferkit.errors import UserError
from ferkit.flags import Parser, add_flags, add_yes_no, override
from ferkit.model_flags import add_model_flags, recognizer_of
from ferkit.processes import command, ended_by_signals
from ferkit.settings import check
from parameters import DATASET, TRAINING, VIDEO_PREDICTOR

TOKEN = "FERKIT_TOKEN"  # the environment variable that may hold the token
_SHORTEST_TOKEN = 16


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    import numpy as np

    from ferkit.web.app import LOOPBACK_HOSTS, create_app, warm_up  # here, so that a missing package gives one line
    from ferkit.web.models import Models
    from ferkit.web.server import is_loopback, listening, serve

    settings = override(VIDEO_PREDICTOR, arguments)
    check(settings)
    host, token = arguments.host, arguments.token or os.environ.get(TOKEN) or None
    check_token(token, is_loopback(host))
    models = Models(recognizer_of(arguments, settings, DATASET, TRAINING))
    with listening(host, arguments.port) as listener, ended_by_signals():
        shown, port = f"[{host}]" if ":" in host else host, listener.getsockname()[1]
        trusted = {name.lower() for name in (*LOOPBACK_HOSTS, host, *arguments.trusted_host)}
        app = create_app(models, token, trusted)
        models.recognizer(models.default).find(np.zeros((64, 64, 3), np.uint8))  # a detector that cannot is said here
        warming = warm_up(models)
        if not is_loopback(host):
            print(
                f"note: whoever reaches {shown}, port {port}, and has the token can have pictures recognized here. "
                "The connection is not encrypted: put a proxy with HTTPS in front of it",
                file=sys.stderr,
            )
        address = f"http://{shown}:{port}"
        print(f"Open {address} in a browser. Ctrl-C ends the server.", flush=True)
        if arguments.open:
            import webbrowser

            webbrowser.open(address)
        try:
            serve(app, listener, arguments.trusted_proxy)
        finally:
            warming.join()  # Python must not end while a thread is inside a network
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = Parser(description="Serve a web page that recognizes live, and an HTTP API.")
    parser.add_argument(
        "--host",
        type=host_name,
        default="127.0.0.1",
        metavar="ADDRESS",
        help="the address to listen on; the default is reached from this machine only (default: 127.0.0.1)",
    )
    parser.add_argument("--port", type=int, default=5000, metavar="N", help="the port; 0: any free one (default: 5000)")
    parser.add_argument(
        "--token",
        metavar="TOKEN",
        help=f"what requests to the API must have; needed if other machines can reach the address. The environment "
        f"variable {TOKEN} can hold it too, where other users of this machine do not see it",
    )
    parser.add_argument(
        "--trusted_host",
        nargs="+",
        default=[],
        type=host_name,
        metavar="NAME",
        help="further names under which browsers may address the server, such as that of a proxy",
    )
    parser.add_argument(
        "--trusted_proxy",
        type=ip_address,
        metavar="ADDRESS",
        help="the IP address from which a proxy sends its requests: whom it names in X-Forwarded-For counts as the "
        "client, so that those behind it do not share the limit of one",
    )
    add_yes_no(parser, "--open", default=False, help="open the page in the browser")
    add_model_flags(parser, DATASET, TRAINING)
    found = ("detector", "detector_model", "detection_confidence", "small_faces", "small_faces_in_video")
    add_flags(parser, VIDEO_PREDICTOR, *found, "smallest_face", "most_faces", "margin", "test_time_augmentation")
    add_flags(parser, VIDEO_PREDICTOR, "balance", "smoothing", "lost_face")
    return parser


def host_name(text: str) -> str:
    """Parses the name or address of a machine, also an IPv6 address in brackets, as browsers write it."""
    if re.fullmatch(r"(\[.*\]|[^:]*):\d*", text):
        raise argparse.ArgumentTypeError(f"'{text}' has a port, which belongs to --port")
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


def ip_address(text: str) -> str:
    """Parses an IP address."""
    try:
        return str(ipaddress.ip_address(host_name(text)))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is no IP address, like 127.0.0.1") from None


def check_token(token: str | None, loopback: bool) -> None:
    """Raises UserError when there is no token where one is needed, or one that is easily guessed."""
    if token is None and not loopback:
        raise UserError(
            "other machines can reach this address: give --token a secret, for example from "
            "python -c 'import secrets; print(secrets.token_urlsafe())'"
        )
    if token is not None and (len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise UserError(f"the token must have at least {_SHORTEST_TOKEN} characters, all of them of ASCII")


if __name__ == "__main__":
    sys.exit(main())
