"""What can go wrong by somebody else's hand: the user's mistake, and an image that is none."""


class UserError(Exception):
    """A mistake the user can mend; the command line prints it as one line and exits 2.

    Args:
        what: What is wrong, naming the file or the key.
        fix: What to do or type next.
    """

    def __init__(self, what: str, fix: str):
        super().__init__(what, fix)  # both, so that it can be made again on its way out of a worker process

    def __str__(self) -> str:
        return "{}: {}".format(*self.args)


class BadImage(ValueError):
    """Bytes that do not decode to an image; the message is the reason that the quarantine list shows."""
