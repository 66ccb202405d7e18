"""The networks: the image branch of each architecture. To add an architecture, add an entry to ARCHITECTURES.

    python train.py --train=yes --model=A

An architecture is a function that maps a batch of faces to one vector per face. It builds the network from the layers
in its argument `layers` (ferkit.learning.layers). The branch for landmarks and HOG and the last layer are the same for
all architectures: see ferkit.learning.graph. OWN_SETTINGS in parameters.py contains an architecture's own settings,
under the same name.
"""

from typing import TYPE_CHECKING, NamedTuple

from ferkit.learning.architecture import Architecture

if TYPE_CHECKING:  # TensorFlow is slow to import
    from ferkit.learning.layers import Layers, Tensor


class Convolution(NamedTuple):
    """Convolution, ReLU, batch normalization and, if `pooled`, max pooling of 3×3 pixels with stride 2."""

    filters: int
    side: int  # of the kernel, in pixels
    pooled: bool = False


def model_a(layers: "Layers", faces: "Tensor") -> "Tensor":
    """Published Model A: large kernels, one fully connected layer."""
    return with_dense_layers(
        layers, faces, (Convolution(64, 5, True), Convolution(64, 5, True), Convolution(128, 4)), 1024
    )


def model_b(layers: "Layers", faces: "Tensor") -> "Tensor":
    """Published Model B: small kernels, two fully connected layers."""
    return with_dense_layers(layers, faces, [Convolution(filters, 3, True) for filters in (64, 128, 256)], 4096, 1024)


def model_c(layers: "Layers", faces: "Tensor") -> "Tensor":
    """Model C of this project: nine convolutions of 3×3, then global average pooling."""
    faces = layers.convolution(faces, 32, 3, pooled=True)
    for filters, pooled in ((64, True), (128, True), (256, True), (512, False)):
        faces = layers.convolution(faces, filters, 3)
        faces = layers.convolution(faces, filters, 3, pooled=pooled)
    vector = layers.dropout(layers.global_average_pooling(faces))
    return layers.flatten(vector)  # no effect, but initial weights depend on the number of operations


def model_d(layers: "Layers", faces: "Tensor") -> "Tensor":
    """Model D of this project: ten convolutions of 3×3, the first two at full size, then global average pooling."""
    for filters, count, pooled in ((64, 2, True), (128, 2, True), (256, 3, True), (512, 3, False)):
        for place in range(count):
            faces = layers.convolution(faces, filters, 3, pooled=pooled and place == count - 1)
    return layers.dropout(layers.global_average_pooling(faces))


def with_dense_layers(
    layers: "Layers", faces: "Tensor", convolutions: "list[Convolution] | tuple[Convolution, ...]", *units: int
) -> "Tensor":
    """Convolutions, then a fully connected layer for each number of `units`, with dropout before it."""
    for convolution in convolutions:
        faces = layers.convolution(faces, *convolution)
    vector = layers.flatten(faces)
    for count in units:
        vector = layers.dense(vector, count)
    return vector


# joint: number of units that the image and the features are each reduced to before concatenation. published: the
# architecture was part of the published experiments, so it can also be trained with their settings.
ARCHITECTURES = {
    "A": Architecture(model_a, joint=40, published=True),
    "B": Architecture(model_b, joint=128, published=True),
    "C": Architecture(model_c, joint=128),
    "D": Architecture(model_d, joint=128),
}
