"""A fitted scikit-learn pipeline to ONNX: all numbers are one input, and one answer a row."""

import json
from typing import Any

import msgspec

from driftloop.errors import TrainingFailed
from driftloop.records import Samples, Task
from driftloop.spec import Family

OUTPUT = "prediction"
"""Name of the one output: float32 [n], the target, the probability of 1 or the class's index."""
NUMBERS = "driftloop.numbers"
"""Name of the input that has the numbers, float32 [n, k]; none has it as a feature's name."""
OPSETS = {"": 21, "ai.onnx.ml": 3}
"""Operator sets that skl2onnx 1.20 converts every estimator of ours for."""


def lower(pipeline: Any, family: Family, *, opsets: dict[str, int] = OPSETS) -> bytes:  # noqa: ANN401 - an estimator of scikit-learn
    """Return `pipeline`, fitted on the family's inputs, as the bytes of an ONNX file.

    The input `driftloop.numbers` is float32 [n, k] with NaN for null, a column for each numeric
    feature in the family's order; each category is an input of its feature's name, string [n, 1]
    with "" for null. The output is `prediction`, float32 [n]; of a multiclass family the index of
    the likeliest class in `Family.classes`, the lower one of two that are as likely. Metadata:
    `driftloop.family`, `driftloop.task`, `driftloop.features`, a JSON object of feature to kind,
    `driftloop.numbers`, a JSON list of that input's columns, and of a multiclass family
    `driftloop.classes`, a JSON list. The same pipeline gives the same bytes, in any process. That
    it answers the same is for `parity` to show.

    Raises:
        TrainingFailed: skl2onnx cannot convert it.
    """
    import skl2onnx
    from onnx import TensorProto, helper
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    kinds = {"numeric": FloatTensorType, "categorical": StringTensorType}
    inputs = [(name, kinds[f.kind]([None, 1])) for name, f in family.inputs.items()]
    classified = family.task is not Task.REGRESSION
    try:
        model = skl2onnx.convert_sklearn(
            pipeline,
            name=family.name,
            initial_types=inputs,
            options={id(pipeline): {"zipmap": False}} if classified else None,
            target_opset=opsets,
        )
    except Exception as error:  # skl2onnx and the converters behind it raise all sorts
        raise TrainingFailed(
            f"cannot be lowered to ONNX: {type(error).__name__}: {_first_line(error)}",
            where=f"{family.name}: {family.retrain.recipe}",
            hint="begin with a ColumnTransformer, as the pipelines of driftloop.retrain.recipes do",
        ) from error

    graph = model.graph
    answer = graph.output[-1].name  # probabilities behind the labels, or [n, 1]
    if family.task is Task.MULTICLASS:
        indexes = [float(each) for each in pipeline.classes_]
        graph.initializer.append(
            helper.make_tensor("driftloop_classes", TensorProto.FLOAT, [len(indexes)], indexes)
        )
        likeliest = "driftloop_likeliest"
        graph.node.append(helper.make_node("ArgMax", [answer], [likeliest], axis=1, keepdims=0))
        graph.node.append(helper.make_node("Gather", ["driftloop_classes", likeliest], [OUTPUT]))
    else:
        column = int(family.task is Task.BINARY)
        graph.initializer.append(
            helper.make_tensor("driftloop_column", TensorProto.INT64, [], [column])
        )
        taken = [answer, "driftloop_column"]
        graph.node.append(helper.make_node("Gather", taken, [OUTPUT], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [None]))
    _join_numbers(graph, family.numeric)
    _drop_unused(graph)
    # skl2onnx lists them in the order of a set: another one in each process.
    versions = sorted(model.opset_import, key=lambda each: each.domain)
    del model.opset_import[:]
    model.opset_import.extend(versions)
    helper.set_model_props(
        model,
        {
            "driftloop.family": family.name,
            "driftloop.task": str(family.task),
            "driftloop.features": json.dumps({n: f.kind for n, f in family.inputs.items()}),
            "driftloop.numbers": json.dumps(family.numeric),
            **({"driftloop.classes": json.dumps(family.classes)} if family.classes else {}),
        },
    )
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def with_samples(content: bytes, samples: Samples) -> bytes:
    """Return the ONNX file `content` with what it answers to some rows, as metadata.

    So the file's digest covers them: whoever loads it can see that it still answers so.
    """
    import onnx

    model = onnx.load_from_string(content)
    entry = model.metadata_props.add()
    entry.key, entry.value = "driftloop.samples", msgspec.json.encode(samples).decode()
    written: bytes = model.SerializeToString(deterministic=True)
    return written


def _join_numbers(graph: Any, numbers: tuple[str, ...]) -> None:  # noqa: ANN401 - an onnx GraphProto
    """Make one input of the inputs `numbers`: onnxruntime takes longer to be handed 20 than to run.

    A pipeline that begins by joining them, as ours do, has them joined already; for any other
    they are split again.
    """
    from onnx import TensorProto, helper

    if not numbers:
        return
    texts = [each for each in graph.input if each.name not in numbers]
    del graph.input[:]
    joined = helper.make_tensor_value_info(NUMBERS, TensorProto.FLOAT, [None, len(numbers)])
    graph.input.extend([joined, *texts])
    same = {
        node.output[0]
        for node in graph.node
        if node.op_type == "Concat"
        and tuple(node.input) == numbers
        and [each.i for each in node.attribute if each.name == "axis"] == [1]
    }
    for node in graph.node:
        node.input[:] = [NUMBERS if name in same else name for name in node.input]
    split = helper.make_node("Split", [NUMBERS], numbers, axis=1, num_outputs=len(numbers))
    graph.node.insert(0, split)


def _drop_unused(graph: Any) -> None:  # noqa: ANN401 - an onnx GraphProto
    """Remove the nodes that only led to outputs that are gone, such as a classifier's label."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    initializers = [each for each in graph.initializer if each.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(initializers)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
