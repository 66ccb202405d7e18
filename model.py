"""The networks: the image branch of each architecture. A new one is one new entry of ARCHITECTURES.

    python train.py --train=yes --model=A

An architecture is a function from a batch of faces to one vector for each of them, built from the layers that it is
handed (ferkit.learning.layers). What the landmarks and HOG add, and the last layer, are the same for all architectures:
see ferkit.learning.graph. Settings of its own stand in OWN_SETTINGS in parameters.py, under the same name.
"""

from typing import TYPE_CHECKING, NamedTuple

from ferkit.learning.architecture import Architecture

if TYPE_CHECKING:  # TensorFlow is slow to import
    from ferkit.learning.layers import Layers, Tensor


class Convolution(NamedTuple):
    """Convolution, ReLU, batch normalization and, where `pooled`, the maximum of 3×3 at every second pixel."""

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
    """Our Model C: nine convolutions of 3×3, then global average pooling."""
    faces = layers.convolution(faces, 32, 3, pooled=True)
    for filters, pooled in ((64, True), (128, True), (256, True), (512, False)):
        faces = layers.convolution(faces, filters, 3)
        faces = layers.convolution(faces, filters, 3, pooled=pooled)
    vector = layers.dropout(layers.global_average_pooling(faces))
    return layers.flatten(vector)  # changes nothing; TensorFlow's random start depends on the number of operations


def with_dense_layers(
    layers: "Layers", faces: "Tensor", convolutions: "list[Convolution] | tuple[Convolution, ...]", *units: int
) -> "Tensor":
    """Convolutions, then fully connected layers of so many `units`, each with dropout before it."""
    for convolution in convolutions:
        faces = layers.convolution(faces, *convolution)
    vector = layers.flatten(faces)
    for count in units:
        vector = layers.dense(vector, count)
    return vector


# joint: units that the image and the features are reduced to before they are joined. published: the architecture was
# part of the published experiments, so that it can be trained with the settings of these too.
ARCHITECTURES = {
    "A": Architecture(model_a, joint=40, published=True),
    "B": Architecture(model_b, joint=128, published=True),
    "C": Architecture(model_c, joint=128),
}
