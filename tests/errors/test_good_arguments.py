"""The arguments that the mistakes start from are not mistakes themselves."""

from pathlib import Path

import numpy as np

from tests.errors.mistakes import FUNCTIONS, IMAGES, LABELLED, METHODS


def test_the_good_arguments_of_the_tables_are_good(figure, request):
    folder = Path(__file__).parent
    collected = [item for item in request.session.items if item.path.parent == folder]
    figure("mistakes, each with its error and its text", len(collected) - 1)  # all but this test
    for call in (*FUNCTIONS.values(), *METHODS.values(), *LABELLED.values()):
        call()
    for call in METHODS.values():
        call(x=np.uint8(IMAGES))
