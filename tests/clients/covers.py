"""What a test says it covers, for the page of compatibility (`tests/compatibility.py`)."""


def covers(*methods, but=None):
    """Says that a test calls these methods of its class's `CLIENT`; `but` is what does not work, and
    why."""

    def keep(test):
        test.covers = (methods, but)
        return test

    return keep
