"""Conversations of every kind: with an image, with two, with none; one turn, and two."""

from coincide_pl.data.record import Record, Turn

CONVERSATIONS = [
    Record("a", ("0.png",), (Turn("user", "<image>\nwhat is it?"), Turn("assistant", "red"))),
    Record("b", ("0.png",), (Turn("user", "<image>\na big blue square?"), Turn("assistant", "no"))),
    Record("c", (), (Turn("user", "how are you?"), Turn("assistant", "fine, thanks"))),
    Record(
        "d",
        ("1.png", "0.png"),
        (
            Turn("system", "Be brief."),
            Turn("user", "one <image> or <image> two"),
            Turn("assistant", "one"),
            Turn("user", "sure?"),
            Turn("assistant", "yes"),
        ),
    ),
]
