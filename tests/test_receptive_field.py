"""The receptive field through each stock layer of Keras, against impulses; the models are in test_models.py."""

import keras
import pytest
from keras import layers
from model_helpers import measured_field

from data_gen import InputError
from sourcesep.models.layers import CropLike
from sourcesep.models.reach import pointwise
from sourcesep.models.receptive_field import gflop_per_s, receptive_field


def model_of(*between):
    """A model with these layers, one after the other, between two convolutions; its output is as long as its input.

    A layer may also be a function of a symbolic tensor.
    """
    mixture = keras.Input((None, 1))
    x = layers.ZeroPadding1D((0, 12))(mixture)  # what layers that shorten their input may take off
    x = layers.Conv1D(4, 3, padding="same")(x)
    for layer in between:
        x = layer(x)
    x = CropLike()([layers.Conv1D(2, 1)(x), mixture])
    return keras.Model(mixture, x)


def both_ways(merge):
    """Merges two convolutions of different widths."""
    return lambda x: merge([layers.Conv1D(4, 3, padding="same")(x), layers.Conv1D(4, 6, padding="same")(x)])


UP = layers.UpSampling1D  # restores the rate after a stride
POINTWISE = {
    "Activation": lambda: [layers.Activation("tanh")],
    "ReLU": lambda: [layers.ReLU()],
    "LeakyReLU": lambda: [layers.LeakyReLU()],
    "ELU": lambda: [layers.ELU()],
    "PReLU": lambda: [layers.PReLU(shared_axes=[1])],
    "Softmax": lambda: [layers.Softmax()],
    "Dense": lambda: [layers.Dense(3, activation="relu")],
    "Dropout": lambda: [layers.Dropout(0.5), layers.SpatialDropout1D(0.5)],
    "noise": lambda: [layers.GaussianDropout(0.5), layers.GaussianNoise(0.5)],
    "Identity": lambda: [layers.Identity(), layers.Rescaling(0.5)],
    "BatchNormalization": lambda: [layers.BatchNormalization()],
    "LayerNormalization": lambda: [layers.LayerNormalization()],
}
OTHERS = {
    **{
        merge.__name__: lambda merge=merge: [both_ways(merge())]
        for merge in (
            *(layers.Add, layers.Subtract, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum),
            layers.Concatenate,
        )
    },
    "Conv1D same dilated": lambda: [layers.Conv1D(3, 4, padding="same", dilation_rate=3)],
    "Conv1D causal dilated": lambda: [layers.Conv1D(3, 4, padding="causal", dilation_rate=2)],
    "Conv1D valid dilated": lambda: [layers.Conv1D(3, 4, dilation_rate=3)],
    "Conv1D grouped": lambda: [layers.Conv1D(4, 3, padding="same", groups=2)],
    "Conv1D strided same": lambda: [layers.Conv1D(3, 4, strides=2, padding="same"), UP(2)],
    "Conv1D strided same 1": lambda: [layers.Conv1D(3, 1, strides=3, padding="same"), UP(3)],
    "Conv1D strided causal": lambda: [layers.Conv1D(3, 4, strides=3, padding="causal"), UP(3)],
    "Conv1D strided valid": lambda: [layers.Conv1D(3, 5, strides=3), UP(3)],
    "SeparableConv1D": lambda: [layers.SeparableConv1D(3, 5, padding="same", dilation_rate=2)],
    "SeparableConv1D strided": lambda: [layers.SeparableConv1D(3, 5, strides=2), UP(2)],
    "DepthwiseConv1D": lambda: [layers.DepthwiseConv1D(4, padding="same")],
    "DepthwiseConv1D strided": lambda: [layers.DepthwiseConv1D(4, strides=2), UP(2)],
    "MaxPooling1D": lambda: [layers.MaxPooling1D(3, strides=1, padding="same")],
    "MaxPooling1D strided": lambda: [layers.MaxPooling1D(3), UP(3)],
    "MaxPooling1D with gaps": lambda: [layers.MaxPooling1D(2, strides=3, padding="same"), UP(3)],
    "AveragePooling1D": lambda: [layers.AveragePooling1D(4, strides=1, padding="same")],
    "AveragePooling1D strided": lambda: [layers.AveragePooling1D(4, strides=2, padding="same"), UP(2)],
    **{
        f"Conv1DTranspose {kernel_size} {stride} {padding}": lambda k=kernel_size, s=stride, p=padding: [
            layers.Conv1D(3, 2, strides=s),
            layers.Conv1DTranspose(3, k, strides=s, padding=p),
        ]
        for kernel_size, stride in ((2, 2), (3, 2), (5, 2), (4, 3), (7, 3), (3, 1))
        for padding in ("same", "valid")
    },
    "two transposed": lambda: [
        layers.Conv1D(3, 4, strides=4),
        layers.Conv1DTranspose(3, 3, strides=2, padding="same"),
        layers.Conv1DTranspose(3, 5, strides=2, padding="same"),
    ],
    "padding and cropping": lambda: [layers.ZeroPadding1D((3, 1)), layers.Cropping1D((1, 2))],
    "cropping more than is padded": lambda: [layers.ZeroPadding1D((1, 3)), layers.Cropping1D((4, 0))],
    "nested models": lambda: [
        keras.Sequential([keras.Input((None, 4)), layers.Conv1D(3, 3, padding="same"), layers.ReLU()]),
        keras.Sequential([keras.Input((None, 3)), layers.Conv1D(3, 4, padding="same")]),
    ],
}


@pytest.mark.parametrize("make", POINTWISE.values(), ids=POINTWISE)
def test_a_pointwise_layer_does_not_widen_the_receptive_field(make):
    model = model_of(*make())
    field = receptive_field(model)
    assert field == (1, 1, 1)
    assert measured_field(model, field) == (1, 1)


@pytest.mark.parametrize("make", OTHERS.values(), ids=OTHERS)
def test_the_receptive_field_through_stock_layers_is_the_one_that_impulses_show(make):
    model = model_of(*make())
    field = receptive_field(model)
    assert measured_field(model, field, rounding=1e-5) == (field.before, field.after)


class Unknown(layers.Layer):
    """Gives its input; without a method `reach`."""

    def call(self, inputs):
        return inputs


class Known(Unknown):
    """Gives its input, and says so."""

    reach = pointwise


def test_a_layer_with_a_reach_of_its_own_is_followed():
    assert receptive_field(model_of(Known())) == (1, 1, 1)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: [Unknown(name="mine")], r"layer mine \(Unknown\): it is not known how far.*method `reach`"),
        (lambda: [lambda x: x + x], "keras.ops are not followed; use a layer"),
        (lambda: [layers.LSTM(3, return_sequences=True)], r"\(LSTM\): it mixes all of the time axis"),
        (lambda: [layers.Bidirectional(layers.GRU(3, return_sequences=True))], r"\(Bidirectional\): it mixes all"),
        (lambda: [lambda x: layers.MultiHeadAttention(1, 2)(x, x)], r"\(MultiHeadAttention\): it mixes all"),
        (
            lambda: [lambda x: layers.Add()([x, layers.GlobalAveragePooling1D(keepdims=True)(x)])],
            "mixes all of the time",
        ),
        (lambda: [layers.GroupNormalization(2)], r"\(GroupNormalization\): it normalises over all of the time axis"),
        (lambda: [layers.Softmax(axis=1)], r"\(Softmax\): it works along axis 1 .*use axis=-1"),
        (lambda: [layers.Reshape((-1, 2))], r"\(Reshape\): it is not known"),
        (lambda: [layers.Conv1D(3, 3, strides=2, padding="same"), UP(2)], "use ZeroPadding1D and padding='valid'"),
        (lambda: [layers.Conv1DTranspose(3, 4, strides=2)], "it has 2 outputs for every 1 samples of the mixture"),
        (
            lambda: [lambda x: layers.Add()([x, layers.Conv1D(4, 2, strides=2)(x)])],
            "one element per 1 and per 2 samples",
        ),
        (lambda: [layers.Conv1D(3, 2, strides=2)], "one sample for every 2 of the mixture"),
    ],
)
def test_layers_that_cannot_be_followed_are_refused_by_name_with_the_way_out(make, named):
    model = model_of(*make())
    with pytest.raises(InputError, match=named) as refused:
        receptive_field(model)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("axis", [1, [1, 2]], ids=str)
def test_normalisation_over_time_is_refused(axis):
    mixture = keras.Input((100, 1))
    x = layers.Conv1D(4, 3, padding="same")(mixture)
    for normalisation in (layers.LayerNormalization(axis=axis), layers.BatchNormalization(axis=1)):
        with pytest.raises(InputError, match="along axis .* mixes all of the time axis"):
            receptive_field(keras.Model(mixture, normalisation(x)))


def test_a_slope_for_every_position_in_time_is_refused():
    mixture = keras.Input((100, 1))
    with pytest.raises(InputError, match="slope for every position in time; use shared_axes"):
        receptive_field(keras.Model(mixture, layers.PReLU()(mixture)))


def test_channels_first_is_refused():
    mixture = keras.Input((1, 100))
    with pytest.raises(InputError, match="channels first"):
        receptive_field(keras.Model(mixture, layers.ZeroPadding1D(1, data_format="channels_first")(mixture)))


def test_the_arithmetic_counts_each_kernel_at_its_rate():
    model = model_of(
        layers.Dense(6),  # 4 x 6
        layers.Conv1D(5, 4, strides=4),  # 4 x 6 x 5, every 4 samples
        layers.Conv1DTranspose(3, 8, strides=4),  # 8 x 5 x 3, every 4 samples
        layers.SeparableConv1D(7, 2, padding="same"),  # 2 x 3 and 3 x 7
    )
    multiply_adds = 3 * 4 + 4 * 6 + 4 * 6 * 5 / 4 + 8 * 5 * 3 / 4 + 2 * 3 + 3 * 7 + 7 * 2
    assert gflop_per_s(model, 8_000) == pytest.approx(2 * 8_000 * multiply_adds / 1e9)
