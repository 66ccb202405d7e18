"""TFLearn 0.5.0 on current TensorFlow and Pillow: `from ferkit.learning.tflearn_compat import tf, tflearn`.

The last release of TFLearn imports two names that have since been renamed: TensorFlow's `nest.is_sequence` is now
`is_nested`, and Pillow's `Image.ANTIALIAS` is now `LANCZOS`. TFLearn builds TensorFlow 1 graphs. Its import turns off
TensorFlow 2's behaviour for the whole process, so `tf` here is the v1 interface.
"""

import os

from ferkit.processes import quiet

with quiet():
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import PIL.Image
    import tensorflow.compat.v1 as tf
    from tensorflow.python.util import nest

    if not hasattr(nest, "is_sequence"):
        nest.is_sequence = nest.is_nested
    if not hasattr(PIL.Image, "ANTIALIAS"):
        setattr(PIL.Image, "ANTIALIAS", PIL.Image.Resampling.LANCZOS)  # noqa: B010 a type checker knows no such name
    tf.get_logger().setLevel("ERROR")
    import tflearn

__all__ = ["tf", "tflearn"]
