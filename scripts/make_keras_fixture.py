"""Writes test/fixtures/keras_multi_head_attention.json: what real Keras computes, for the layer's tests.

    python3 -m venv /tmp/keras-venv
    /tmp/keras-venv/bin/pip install keras tf_keras tensorflow-cpu numpy
    /tmp/keras-venv/bin/python scripts/make_keras_fixture.py

Keras 3 computes in float64 here, on inputs and weights that are multiples of 1/64 and so the same in float32: every
difference to the fixture is the error of the layer under test. The numbers depend on SEED alone.
"""
import json
import os
import pathlib

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tf_keras  # noqa: E402

SEED = 20240607
OUTPUT = pathlib.Path(__file__).parent.parent / "test/fixtures/keras_multi_head_attention.json"
keras.config.set_floatx("float64")
rng = np.random.default_rng(SEED)


def exact(*shape, scale=0.5):
    """Normal numbers that float32 holds exactly, in few digits."""
    return np.round(rng.normal(size=shape) * scale * 64) / 64


def packed(array):
    array = np.asarray(array)
    if array.dtype == bool:
        return {"shape": list(array.shape), "values": array.astype(int).ravel().tolist()}
    return {"shape": list(array.shape), "values": [float("%.9g" % x) for x in array.ravel()]}


def set_exact_weights(layer_or_model):
    weights = [exact(*w.shape) for w in layer_or_model.weights]
    layer_or_model.set_weights(weights)


def named_weights(layer):
    return {w.path: packed(w.numpy()) for w in layer.weights}


def portable_config(layer):
    """The config as a float32 layer's would be; float64 is only how this script computes."""
    config = layer.get_config()
    del config["dtype"]
    return config


def layer_case(name, layer, query, value=None, key=None, query_mask=None, kept=None, **call):
    """One call of a layer, with the gradients of sum(output * dy).

    query_mask goes onto the tensor: Keras' MultiHeadAttention overwrites the argument of that name. What Keras gives
    for a query that is masked or sees no key depends on its backend, so dy is 0 where `kept` is false.
    """
    inputs = {"query": query, "value": query if value is None else value}
    if key is not None:
        inputs["key"] = key
    tensors = {k: tf.constant(v) for k, v in inputs.items()}
    layer(*tensors.values())
    set_exact_weights(layer)
    if query_mask is not None:
        tensors["query"]._keras_mask = tf.constant(query_mask)
    kept = query_mask if kept is None else kept
    with tf.GradientTape() as tape:
        for tensor in tensors.values():
            tape.watch(tensor)
        if value is None:
            # Self-attention: one tensor in both places, and one gradient.
            tensors["value"] = tensors["query"]
        output = layer(*tensors.values(), **{k: tf.constant(v) if isinstance(v, np.ndarray) else v
                                             for k, v in call.items()})
        dy = exact(*output.shape)
        if kept is not None:
            dy = dy * kept.reshape(kept.shape + (1,) * (dy.ndim - 2))
        loss = tf.reduce_sum(output * dy)
    sources = {k: v for k, v in tensors.items() if not (k == "value" and value is None)}
    gradients = tape.gradient(loss, [*sources.values(), *[w.value for w in layer.weights]])
    names = [*sources, *[w.path for w in layer.weights]]
    if value is None:
        del inputs["value"]
    masks = {**call, **({} if query_mask is None else {"query_mask": query_mask})}
    return {
        "name": name, "class_name": type(layer).__name__, "config": portable_config(layer),
        "weights": named_weights(layer), "inputs": {k: packed(v) for k, v in inputs.items()},
        "call": {k: packed(v) if isinstance(v, np.ndarray) else v for k, v in masks.items()},
        "dy": packed(dy), "output": packed(output.numpy()),
        "gradients": {k: packed(tf.convert_to_tensor(g).numpy()) for k, g in zip(names, gradients)},
        **({} if kept is None else {"kept": packed(kept)}),
    }


def prefix_mask(lengths, size):
    return np.arange(size)[None, :] < np.array(lengths)[:, None]


def layer_cases():
    mha = lambda **config: keras.layers.MultiHeadAttention(**config)  # noqa: E731
    attention_mask = rng.random((2, 4, 6)) < 0.6
    attention_mask[:, :, 0] = True
    head_mask = rng.random((2, 2, 5, 5)) < 0.7
    head_mask[..., 0] = True
    empty_row = np.ones((2, 4, 6), bool)
    empty_row[1, 2] = False
    padded = prefix_mask([6, 3], 6)
    queries = prefix_mask([2, 4], 4)
    return [
        layer_case("self", mha(num_heads=2, key_dim=4, name="self"), exact(2, 5, 8)),
        layer_case("cross with another key, value_dim and output_shape",
                   mha(num_heads=2, key_dim=3, value_dim=5, output_shape=4, name="cross"),
                   exact(2, 4, 6), exact(2, 6, 7), exact(2, 6, 5)),
        layer_case("no bias, causal", mha(num_heads=2, key_dim=4, use_bias=False, name="causal"),
                   exact(2, 6, 6), use_causal_mask=True),
        layer_case("causal, fewer queries than keys", mha(num_heads=1, key_dim=4, name="causal_wide"),
                   exact(1, 3, 4), exact(1, 6, 4), use_causal_mask=True),
        layer_case("causal, more queries than keys", mha(num_heads=1, key_dim=4, name="causal_tall"),
                   exact(1, 6, 4), exact(1, 3, 4), use_causal_mask=True),
        layer_case("attention_mask [B,T,S]", mha(num_heads=2, key_dim=4, name="mask3"),
                   exact(2, 4, 6), exact(2, 6, 6), attention_mask=attention_mask),
        layer_case("attention_mask [B,H,T,S]", mha(num_heads=2, key_dim=4, name="mask4"),
                   exact(2, 5, 6), attention_mask=head_mask),
        layer_case("value_mask and key_mask", mha(num_heads=2, key_dim=4, name="masks"),
                   exact(2, 4, 6), exact(2, 6, 6), exact(2, 6, 3), value_mask=padded,
                   key_mask=prefix_mask([5, 6], 6)),
        layer_case("every mask at once", mha(num_heads=2, key_dim=4, name="all_masks"),
                   exact(2, 4, 6), exact(2, 6, 6), query_mask=queries, value_mask=padded,
                   attention_mask=attention_mask, use_causal_mask=True),
        layer_case("a query that sees no key", mha(num_heads=2, key_dim=4, name="empty_row"),
                   exact(2, 4, 6), exact(2, 6, 6), kept=empty_row.any(-1), attention_mask=empty_row),
        layer_case("dropout out of training, output_shape of two axes",
                   mha(num_heads=2, key_dim=4, dropout=0.5, output_shape=(2, 3), name="dropout"), exact(2, 5, 6)),
        layer_case("grouped queries",
                   keras.layers.GroupQueryAttention(head_dim=4, num_query_heads=4, num_key_value_heads=2, name="gqa"),
                   exact(2, 5, 8), exact(2, 6, 8), value_mask=padded),
        layer_case("one key/value head, no bias, causal",
                   keras.layers.GroupQueryAttention(head_dim=4, num_query_heads=3, num_key_value_heads=1,
                                                    use_bias=False, name="mqa"),
                   exact(2, 5, 6), use_causal_mask=True),
    ]


def model_case(name, model, inputs, kept):
    set_exact_weights(model)
    output = model([tf.constant(x) for x in inputs] if len(inputs) > 1 else tf.constant(inputs[0]))
    return {"name": name, "weights": named_weights(model), "inputs": [packed(x) for x in inputs],
            "output": packed(output.numpy()), "kept": packed(kept)}


def model_cases():
    """Masks that Keras passes from layer to layer. The tests build the same models by the same names."""
    layers = keras.layers
    embedding = lambda name: layers.Embedding(9, 6, mask_zero=True, name=name)  # noqa: E731
    ids = np.array([[3, 1, 4, 0, 0], [5, 8, 2, 6, 7]])
    target = np.array([[3, 1, 4, 0], [5, 8, 2, 6]])

    x = keras.Input((5,), dtype="int32")
    e = embedding("tokens")(x)
    self_model = keras.Model(x, layers.MultiHeadAttention(2, 4, name="mha")(e, e))

    x = keras.Input((5,), dtype="int32")
    e = embedding("tokens")(x)
    n = layers.LayerNormalization(name="norm")(e)
    # Not (e, e): Keras 3 takes the mask off the tensors that it attends to, so the residual would have none.
    h = layers.Add()([e, layers.MultiHeadAttention(2, 4, name="first")(n, n, use_causal_mask=True)])
    residual = keras.Model(x, layers.MultiHeadAttention(2, 4, name="second")(h, h))

    x, y = keras.Input((4,), dtype="int32"), keras.Input((5,), dtype="int32")
    q, v = embedding("target")(x), layers.LayerNormalization(name="norm")(embedding("source")(y))
    cross = keras.Model([x, y], layers.MultiHeadAttention(2, 4, name="mha")(q, v))

    x = keras.Input((5, 6))
    m = layers.Masking(name="masking")(x)
    masking = keras.Model(x, layers.MultiHeadAttention(2, 4, name="mha")(m, m))
    frames = exact(2, 5, 6) * (ids > 0)[..., None]

    return [
        model_case("Embedding", self_model, [ids], ids > 0),
        model_case("Embedding and a residual", residual, [ids], ids > 0),
        model_case("cross-attention to a normalised Embedding", cross, [target, ids], target > 0),
        model_case("Masking", masking, [frames], ids > 0),
    ]


def keras_2_case():
    """A Keras 2 functional model as tensorflowjs_converter finds it: topology, weights by name, and what it gives."""
    def build():
        layers = tf_keras.layers
        ids, y = (tf_keras.Input((n,), dtype="int32", name=name) for n, name in [(4, "target"), (5, "source")])
        allowed = tf_keras.Input((4, 5), name="allowed")
        tokens = layers.Embedding(9, 6, mask_zero=True, name="tokens")
        x, v = tokens(ids), tokens(y)
        o = layers.MultiHeadAttention(2, 3, name="cross_attention")(x, v, attention_mask=allowed)
        o = layers.Add(name="residual")([x, o])
        o = layers.MultiHeadAttention(2, 3, name="self_attention")(query=o, value=o, use_causal_mask=True)
        return tf_keras.Model([ids, y, allowed], o, name="decoder")

    topology = json.loads(build().to_json())
    tf_keras.backend.set_floatx("float64")
    model = build()
    weights = [exact(*w.shape) for w in model.get_weights()]
    model.set_weights(weights)
    allowed = rng.random((2, 4, 5)) < 0.7
    allowed[:, :, 0] = True
    target = np.array([[3, 1, 4, 6], [5, 8, 0, 0]])
    inputs = [target, np.array([[3, 1, 4, 0, 0], [5, 8, 2, 6, 7]]), allowed.astype(float)]
    output = model([tf.constant(x) for x in inputs])
    return {"topology": topology, "weights": {w.name: packed(v) for w, v in zip(model.weights, weights)},
            "inputs": [packed(x) for x in inputs], "output": packed(output.numpy()), "kept": packed(target > 0)}


fixture = {
    "made_by": "scripts/make_keras_fixture.py", "seed": SEED,
    "versions": {"keras": keras.__version__, "tensorflow": tf.__version__, "tf_keras": tf_keras.__version__,
                 "numpy": np.__version__},
    "layers": layer_cases(), "models": model_cases(), "keras_2": keras_2_case(),
}
OUTPUT.parent.mkdir(parents=True, exist_ok=True)
OUTPUT.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
print(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes, {len(fixture['layers'])} layers, {len(fixture['models'])} models")
