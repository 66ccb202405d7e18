"""Lists faces whose labels are probably wrong, and unclear faces, with thumbnails on a page.

    python check_labels.py --input=my_faces --output=labels.html
    python check_labels.py --input=fer2013.csv --output=labels.html

Beside the page, `labels.csv` lists all faces. Nothing is changed: look at the faces, and move the files of those that
are labelled wrongly into the right folder.
"""

if __name__ == "__main__":  # Ctrl-C ends the imports below without a traceback
    from ferkit.startup import begin

    begin()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ferkit.constants import SHIPPED_MODELS
from ferkit.errors import UserError
from ferkit.files import check_beginning, check_replaceable, check_writable, is_same
from ferkit.flags import Parser, add_flags, either, local_path, override, positive
from ferkit.processes import command
from parameters import DATASET

_TABLE = b"face,label,suggested,"  # how labels.write_table begins


@command
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(argv)
    import sklearn  # noqa: F401 here, so that a missing package gives a one-line error at once

    from ferkit import labels
    from ferkit.recognition import Recognizer

    page = Path(arguments.output)
    if page.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--output={page} is no page: name a file like labels.html")
    table = page.with_suffix(".csv")
    dataset = override(DATASET, arguments)
    for path in (page, table):
        check_replaceable(path)
        if is_same(path, dataset.input):
            raise UserError(f"--output={page} would overwrite {path}, which is to be read: name another page")
    check_beginning(table, _TABLE)
    check_writable(page.parent)
    recognizer = Recognizer(arguments.model_path, shape_predictor_path=dataset.shape_predictor_path)
    faces = labels.read_faces(dataset.input)
    review = labels.check_labels(faces, recognizer)
    labels.write_page(review, faces, page, arguments.most)
    labels.write_table(review, faces, table)
    print(f"Faces with probably wrong labels: {len(review.wrong)} of {len(faces.labels)}")
    print(f"Look at {page}; all faces are in {table}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line of this script."""
    parser = Parser(description="List faces whose labels are probably wrong, and unclear faces, with thumbnails.")
    add_flags(parser, DATASET, "input")
    parser.add_argument(
        "--output", type=local_path, default="labels.html", metavar="PATH", help="the page (default: labels.html)"
    )
    parser.add_argument(
        "--most", type=positive, default=200, metavar="N", help="faces of each kind on the page (default: 200)"
    )
    default = next(iter(SHIPPED_MODELS))
    help = (
        f"whose view of the faces is used, a file, or {either(SHIPPED_MODELS)}; not a model that has learned these "
        f"labels, as it may have learned their mistakes (default: {default})"
    )
    parser.add_argument("--model_path", type=local_path, default=default, metavar="PATH", help=help)
    add_flags(parser, DATASET, "shape_predictor_path")
    return parser


if __name__ == "__main__":
    sys.exit(main())
