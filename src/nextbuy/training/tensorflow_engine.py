"""The TensorFlow engine: the same network, built from Keras 3 layers and trained by Keras' AdamW.

It only trains. Weights go in and out under the names that the torch network uses, so evaluation,
bundles and prediction are shared. (Keras kernels are [in, out], torch's are [out, in].)
"""

import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nextbuy.errors import ConfigError, MissingExtraError
from nextbuy.nn.network import Weights
from nextbuy.nn.recurrent import LstmRnnShape, weight_shapes
from nextbuy.seeding import generator
from nextbuy.training.batches import Batch
from nextbuy.training.engine import Arrays, ItemSampler, TrainingConfig

_TRITON = "triton"


def import_tensorflow() -> tuple[Any, Any]:
    """TensorFlow and Keras 3 on it, quiet and deterministic.

    Raises:
        MissingExtraError: If TensorFlow is not installed.
        ConfigError: If Keras was already imported with another backend.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise MissingExtraError("tensorflow-cpu", "tensorflow", "The TensorFlow engine")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    if importlib.util.find_spec(_TRITON) is not None:
        # It comes with builds of torch for GPUs, which load it with their first optimizer. Loaded
        # after TensorFlow it ends the process: both bring an LLVM.
        importlib.import_module(_TRITON)
    with _silent_stderr():
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
        tf.constant(0)  # starts the runtime, which is when it talks
        import keras

    if keras.backend.backend() != "tensorflow":
        raise ConfigError(
            f"Keras runs on {keras.backend.backend()!r} here; the TensorFlow engine needs "
            "KERAS_BACKEND=tensorflow."
        )
    return tf, keras


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Keep what TensorFlow writes at its start, before its log level counts, off the terminal."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class KerasLstmRnn:
    """The described network as Keras layers."""

    def __init__(self, shape: LstmRnnShape) -> None:
        self.tf, keras = import_tensorflow()
        self.shape = shape
        layers = keras.layers
        self.embedding = layers.Embedding(shape.num_items + 1, shape.embedding_size)
        self.basket = layers.Embedding(2, shape.embedding_size) if shape.marks_baskets else None
        self.lstm = layers.LSTM(shape.lstm_size, return_sequences=True, use_cudnn=False)
        self.rnn = layers.SimpleRNN(shape.rnn_size, return_sequences=True)
        self.dense = layers.Dense(shape.num_items)
        self.embedding.build((None, None))
        if self.basket is not None:
            self.basket.build((None, None))
        self.lstm.build((None, None, shape.embedding_size))
        self.rnn.build((None, None, shape.lstm_size))
        self.dense.build((None, shape.rnn_size))

    def variables(self) -> dict[str, Any]:
        """Keras variables by the names of `weight_shapes`."""
        lstm, rnn = self.lstm.cell, self.rnn.cell
        found = {
            "embedding.weight": self.embedding.embeddings,
            "lstm.weight_ih_l0": lstm.kernel,
            "lstm.weight_hh_l0": lstm.recurrent_kernel,
            "lstm.bias_ih_l0": lstm.bias,
            "rnn.weight_ih_l0": rnn.kernel,
            "rnn.weight_hh_l0": rnn.recurrent_kernel,
            "rnn.bias_ih_l0": rnn.bias,
            "dense.weight": self.dense.kernel,
            "dense.bias": self.dense.bias,
        }
        if self.basket is not None:
            found["basket.weight"] = self.basket.embeddings
        return {name: found[name] for name in weight_shapes(self.shape)}

    def hidden(self, inputs_BL: Any, marks_BL: Any, dropout_seed: Any = None) -> Any:
        """States before the Dense layer, [B, L, R]; without a seed there is no dropout."""
        x_BLE = self.embedding(inputs_BL)
        if self.basket is not None:
            x_BLE = x_BLE + self.basket(marks_BL)
        h_BLH = self.lstm(self._drop(x_BLE, dropout_seed, 0))
        h_BLR = self.rnn(self._drop(h_BLH, dropout_seed, 1))
        return self._drop(h_BLR, dropout_seed, 2)

    def log_probabilities(
        self, inputs_BL: NDArray[np.int64], marks_BL: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Log-probabilities of items 1..V at every position, [B, L, V]."""
        logits = self.dense(self.hidden(self.tf.constant(inputs_BL), self.tf.constant(marks_BL)))
        return np.asarray(self.tf.nn.log_softmax(logits, axis=-1), dtype=np.float32)

    def _drop(self, x: Any, seed: Any, place: int) -> Any:
        if seed is None or self.shape.dropout == 0.0:
            return x
        return self.tf.nn.experimental.stateless_dropout(
            x, rate=self.shape.dropout, seed=seed + place
        )

    def weights(self) -> Weights:
        """A copy of the weights in torch's layout."""
        return {
            name: np.array(_turned(name, np.asarray(v)), np.float32)
            for name, v in self.variables().items()
        }

    def load_weights(self, weights: Mapping[str, NDArray[Any]]) -> None:
        """Take over weights in torch's layout."""
        for name, variable in self.variables().items():
            variable.assign(_turned(name, weights[name]))


def _turned(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """From torch's layout to Keras' or back: kernels are transposed, tables and biases are not."""
    is_kernel = array.ndim == 2 and name not in ("embedding.weight", "basket.weight")
    return array.T if is_kernel else array


class TensorFlowEngine:
    """Trains the Keras layers with Keras' AdamW in one compiled graph for all batch shapes."""

    def __init__(
        self,
        shape: LstmRnnShape,
        config: TrainingConfig,
        *,
        weights: Weights,
        sampler: ItemSampler | None,
        seed: int,
    ) -> None:
        tf, keras = import_tensorflow()
        self._tf, self._network, self._sampler, self._seed = tf, KerasLstmRnn(shape), sampler, seed
        self._network.load_weights(weights)
        self._variables = list(self._network.variables().values())
        self._optimizer = keras.optimizers.AdamW(
            learning_rate=config.peak_rate,
            beta_1=0.9,
            beta_2=config.beta2,
            epsilon=1e-8,
            weight_decay=config.weight_decay,
            global_clipnorm=config.clip_norm,
        )
        self._optimizer.build(self._variables)
        grid, row = tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([None], tf.int64)
        self._step = tf.function(
            self._traced_step,
            input_signature=[grid, grid, (row, row, row), row, tf.TensorSpec([2], tf.int64)],
        )

    def prepare(self, batch: Batch, step: int) -> Batch:  # noqa: ARG002
        """Nothing; see `Engine.prepare`."""
        return batch

    def step(self, batch: Batch, *, learning_rate: float, step: int) -> float:
        """Take one optimizer step; see `Engine.step`."""
        tf = self._tf
        self._optimizer.learning_rate.assign(learning_rate)
        samples = np.zeros(0, np.int64) if self._sampler is None else self._sampler.draw(step)
        seed = generator(self._seed, "dropout", step).integers(0, 2**31, 2, dtype=np.int64)
        asked = batch.questions()
        arrays = (
            batch.inputs, batch.marks, (asked.states, asked.owners, asked.targets), samples, seed,
        )  # fmt: skip
        try:
            return float(self._step(*tf.nest.map_structure(tf.constant, arrays)))
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(str(error)) from error

    def _traced_step(
        self, inputs_BL: Any, marks_BL: Any, asked: tuple[Any, Any, Any], samples_S: Any, seed: Any
    ) -> Any:
        tf = self._tf
        with tf.GradientTape() as tape:
            hidden_BLR = self._network.hidden(inputs_BL, marks_BL, seed)
            states_M, owners_N, targets_N = asked
            hidden_MR = tf.gather(tf.reshape(hidden_BLR, [-1, hidden_BLR.shape[-1]]), states_M)
            loss = self._loss(hidden_MR, owners_N, targets_N, samples_S)
        gradients = tape.gradient(loss, [v.value for v in self._variables])
        finite = tf.math.is_finite(loss)

        def take() -> Any:
            self._optimizer.apply(gradients, self._variables)
            return tf.constant(True)

        tf.cond(finite, take, lambda: tf.constant(False))
        return loss

    def _loss(self, hidden_MR: Any, owners_N: Any, targets_N: Any, samples_S: Any) -> Any:
        """The losses of `nextbuy.nn.losses`, in TensorFlow."""
        tf, dense = self._tf, self._network.dense
        if self._sampler is None:
            scores_MV = tf.nn.log_softmax(dense(hidden_MR))
            return -tf.reduce_mean(tf.gather_nd(scores_MV, tf.stack([owners_N, targets_N], 1)))
        hidden_NR = tf.gather(hidden_MR, owners_N)
        kernel_VR, bias_V = tf.transpose(dense.kernel.value), dense.bias.value
        target_logits_N = tf.reduce_sum(
            hidden_NR * tf.gather(kernel_VR, targets_N), -1
        ) + tf.gather(bias_V, targets_N)
        sample_logits_NS = (
            tf.matmul(hidden_NR, tf.gather(kernel_VR, samples_S), transpose_b=True)
            + tf.gather(bias_V, samples_S)
            - tf.gather(tf.constant(self._sampler.log_expected), samples_S)
        )
        hits_NS = targets_N[:, None] == samples_S[None, :]
        sample_logits_NS = tf.where(hits_NS, -np.inf, sample_logits_NS)
        everything = tf.concat([target_logits_N[:, None], sample_logits_NS], 1)
        return tf.reduce_mean(tf.reduce_logsumexp(everything, 1) - target_logits_N)

    def weights(self) -> Weights:
        """A copy of the weights; see `Engine.weights`."""
        return self._network.weights()

    def optimizer_state(self) -> Arrays:
        """Every variable of the optimizer, by its place."""
        return {
            f"{place:03d}": v.value.numpy().copy()
            for place, v in enumerate(self._optimizer.variables)
        }

    def restore(
        self, weights: Mapping[str, NDArray[Any]], optimizer_state: Mapping[str, NDArray[Any]]
    ) -> None:
        """Go back to where weights and state were taken; see `Engine.restore`."""
        self._network.load_weights(weights)
        for place, variable in enumerate(self._optimizer.variables):
            variable.assign(optimizer_state[f"{place:03d}"])
