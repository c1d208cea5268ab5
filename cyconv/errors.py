"""What cyconv raises about files; a mistake in an argument is a plain ValueError or TypeError."""


class DataFormatError(ValueError):
    """A data file is damaged, or is not in the format that was expected."""


class CheckpointError(ValueError):
    """A checkpoint is damaged, or does not belong to the network that is to take it."""


class DownloadError(OSError):
    """A data set could not be fetched from any mirror, or not be stored."""
