"""What can go wrong with the private servers."""


class StackError(Exception):
    """The servers cannot be started, used or stopped. The text is one line that says what to do about it."""
