"""What an operator can put right, told in one sentence, and who does not answer."""


class MeshError(Exception):
    """Something is not as it must be; the text says what, and what to do."""


class UsageError(MeshError):
    """What was asked for cannot be meant."""


class NoAnswer(Exception):
    """Nobody answers there now, or not in a way we understand; the text is one sentence."""
