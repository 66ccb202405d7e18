"""Video: reading frames, following faces from frame to frame, showing and recording them."""

import cv2  # noqa: F401 before PyAV: both carry X11 libraries of the same names, and with PyAV's a window hangs
