"""What goes wrong with a dataset, as exceptions."""


class DatasetError(ValueError):
    """A dataset's file or arrays are not what they should be; the message names the file and key, what was
    expected and what was found."""


class DatasetNotFoundError(DatasetError, FileNotFoundError):
    """No dataset of that name was found; the message says where it was looked for and what to do."""
