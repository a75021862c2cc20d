"""The one error of the lab: a sentence for the operator, with the way out."""


class LabError(Exception):
    """Something the operator can put right; the text says what and how."""
