"""The one error of this room."""

from __future__ import annotations

from hpk.model.errors import HpkError

INVALID_IMAGE_NAME = "InvalidImageName"
ERR_IMAGE_PULL = "ErrImagePull"
ERR_IMAGE_NEVER_PULL = "ErrImageNeverPull"


class ImageError(HpkError):
    """An image that cannot be had.

    :param reason: the waiting reason of upstream's kubelet, one of the constants above.
    :param message: names the image and, where a registry answered, its answer.
    """

    def __init__(self, reason: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.reason = reason
