"""UserError: invalid input or configuration. BadImage: undecodable image bytes. OutputLost: a full standard output."""


class UserError(Exception):
    """A mistake the user can fix; the command line prints it as one line and exits with 2.

    Args:
        key: Which setting or input is at fault, for programs and tests: `data.crop_scale`, `encoder.name`.
        problem: What is wrong, naming the file or the setting.
        fix: What to do or type next.

    Example:
        >>> import mae_kit as mk
        >>> try:
        ...     mk.ViT("vit_unknown")
        ... except mk.UserError as error:
        ...     print(error.key)
        encoder.name.unknown
    """

    def __init__(self, key: str, problem: str, fix: str):
        super().__init__(key, problem, fix)  # all three, so that it can be rebuilt on its way out of a worker process
        self.key, self.problem, self.fix = key, problem, fix

    def __str__(self) -> str:
        return f"{self.problem}: {self.fix}"


class BadImage(ValueError):
    """Bytes that do not decode to an image; the message is the reason that the quarantine list shows."""


class OutputLost(OSError):
    """Standard output did not take what a command printed; the command line says so in one line and exits with 1."""
