"""The examples of the reference document, each as a program that keeps what the document says.

`events` is read as `madcrow_events`. A block that says in which file it stands is
written to that file of a package of its own and imported; what a fragment leaves
out is filled in. `renders` names the part that a test stands for.
"""

from __future__ import annotations

from collections import defaultdict

EMAIL = "ada@example.com"

HANDLING = "Event Handling Patterns"
EMITTING = "Event Emission Patterns"
ORGANIZATION = "Handler Organization"

RENDERINGS = defaultdict(list)
"""The source of the tests that stand for each part."""


def renders(heading, part=0, *pieces):
    """Note that a test stands for a part of the document.

    Args:
        heading: the heading above the part.
        part: the block's index under this heading, or the row's pattern.
        *pieces: what else belongs to the rendering: classes, functions, texts of modules.
    """

    def note(test):
        RENDERINGS[heading, part] += [test, *pieces]
        return test

    return note
