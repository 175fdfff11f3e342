"""What can be wrong with a checkpoint, and what is only worth telling."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, that is damaged, or that another run made; the message names the file."""


class CheckpointWarning(UserWarning):
    """A damaged checkpoint was passed over for an older one, or one was made by other versions."""
