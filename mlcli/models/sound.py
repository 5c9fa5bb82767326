"""Looks a loaded model over before it is used: numbers in it are indices that compiled code follows without a check.

A tree whose child is node 2**40 is of no forbidden type, yet kills the process that predicts with it. So whatever was loaded
without anybody's word for it is held against what the fitting code would have made. A sound model costs some milliseconds.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Tuple

from mlcli.errors import ModelError


class Unsound(Exception):
    """A part of the model holds numbers that fitting would not have put there."""


def check(model: Any, where: str) -> None:
    """Raise ModelError if a part of ``model`` would lead compiled code astray."""
    try:
        for part in _parts(model):
            checks = _CHECKS.get(type(part).__name__)
            if checks is not None:
                checks(part)
            if hasattr(part, "__dict__"):
                _check_by_attributes(part.__dict__)
    except Unsound as error:
        raise ModelError(f"{where} is damaged or hostile: {error}", hint="nothing was predicted with it") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise ModelError(f"{where} is damaged or hostile: its parts do not fit together ({error})") from None


def _parts(model: Any) -> List[Any]:
    """Every object of the model, each once."""
    seen: Dict[int, Any] = {}
    waiting = [model]
    while waiting:
        part = waiting.pop()
        if part is None or isinstance(part, (str, bytes, int, float, complex, type)) or id(part) in seen:
            continue
        seen[id(part)] = part
        if isinstance(part, dict):
            waiting += part.values()
            waiting += [key for key in part if not isinstance(key, (str, int, float))]
        elif isinstance(part, (list, tuple, set, frozenset)):
            waiting += part
        elif hasattr(part, "dtype") and hasattr(part, "tolist") and part.dtype.hasobject:
            waiting += part.ravel().tolist()
        if isinstance(getattr(part, "__dict__", None), dict):
            waiting += part.__dict__.values()
    return list(seen.values())


def _hold(fine: Any, what: str) -> None:
    if not fine:
        raise Unsound(what)


def _check_by_attributes(held: Dict[str, Any]) -> None:
    """What hangs together among the attributes of an estimator."""
    width: Any = held.get("n_features_in_")
    tree: Any = held.get("tree_")
    if type(tree).__name__ == "Tree":
        _hold(_whole(width), "a tree does not say how many features it takes")
        _features(tree.__getstate__()["nodes"], "feature", width)
    below: Any = held.get("estimators_")
    if below is not None and not isinstance(below, str):
        _check_ensemble(held, below, width)
    if "_predictors" in held:
        _check_histogram_boosting(held, width)
    centers: Any = held.get("cluster_centers_")
    if centers is not None and getattr(centers, "ndim", 0) == 2:
        _hold(centers.shape[1] == width, "the centers of clusters have another number of features than the model")
    if "support_vectors_" in held:
        _check_svm(held)


def _whole(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _features(nodes: Any, name: str, width: int, leaf: Any = None) -> None:
    leaves = nodes["left_child"] == -1 if leaf is None else leaf
    split = nodes[name][~leaves]
    _hold(not len(split) or (split.min() >= 0 and split.max() < width), "a tree asks for a feature that there is not")


def _check_ensemble(held: Dict[str, Any], below: Any, width: Any) -> None:
    two = getattr(below, "ndim", 1) == 2  # gradient boosting: stages by classes
    members = below.ravel().tolist() if hasattr(below, "ravel") else list(below)
    trees = [item for item in members if hasattr(item, "tree_")]
    for item in trees:
        _hold(
            _whole(width) and item.n_features_in_ <= width,
            "a tree of an ensemble takes more features than the ensemble",
        )
    if two and trees:
        columns = below.shape[1]
        loss = held.get("_loss", held.get("loss_"))
        said = [
            held.get("n_trees_per_iteration_"),
            getattr(loss, "K", None),
            getattr(loss, "n_classes", None) if columns > 1 else None,
        ]
        _hold(all([number in (None, columns) for number in said]), "boosting has another number of classes than trees")
        _hold(
            all([item.tree_.value.shape[1:] == (1, 1) for item in trees]),
            "a tree of boosting answers more than one number",
        )


def _check_tree(tree: Any) -> None:
    state = tree.__getstate__()
    nodes, count = state["nodes"], len(state["nodes"])
    _hold(count == state["node_count"] == state["values"].shape[0] and count > 0, "a tree has lost nodes")
    left, right = nodes["left_child"], nodes["right_child"]
    leaf = left == -1
    _hold(((right == -1) == leaf).all(), "a node of a tree has one child")
    _children(left[~leaf], right[~leaf], leaf, count)


def _children(left: Any, right: Any, leaf: Any, count: int) -> None:
    """Children come after their node: so every walk ends, and inside of the tree."""
    own = (~leaf).nonzero()[0]
    for child in (left, right):
        _hold((child > own).all() and (child < count).all(), "a node of a tree has a child that there is not")


def _check_predictor(predictor: Any) -> None:
    nodes = predictor.nodes
    leaf = nodes["is_leaf"].astype(bool)
    _hold(len(nodes) > 0, "a tree has lost its nodes")
    _children(nodes["left"][~leaf].astype("int64"), nodes["right"][~leaf].astype("int64"), leaf, len(nodes))
    if "is_categorical" in nodes.dtype.names:
        sets = nodes["bitset_idx"][nodes["is_categorical"].astype(bool) & ~leaf]
        _hold(
            not len(sets)
            or (predictor.raw_left_cat_bitsets.shape[1:] == (8,) and sets.max() < len(predictor.raw_left_cat_bitsets)),
            "a tree asks for a set of categories that there is not",
        )


def _check_histogram_boosting(held: Dict[str, Any], width: Any) -> None:
    _hold(_whole(width), "boosting does not say how many features it takes")
    stages = held["_predictors"]
    per_stage = held.get("n_trees_per_iteration_")
    mapper = held.get("_bin_mapper")
    said = getattr(mapper, "is_categorical_", None)
    _hold(said is None or len(said) == width, "boosting has another number of features than it says")
    for stage in stages:
        _hold(len(stage) == per_stage, "boosting has another number of trees than it says")
        for predictor in stage:
            nodes = predictor.nodes
            _features(nodes, "feature_idx", width, nodes["is_leaf"].astype(bool))


def _check_search_tree(tree: Any) -> None:
    """The state of a KDTree or BallTree, whose order is the same in every version."""
    data, index, nodes, bounds, leaf_size, levels, count = tree.__getstate__()[:7]
    metric, weight = tree.__getstate__()[11:13]
    rows, width = data.shape
    _hold(rows > 0 and len(index) == rows and index.min() >= 0 and index.max() < rows, "a search tree has lost points")
    _hold(leaf_size > 0 and 0 < levels < 63 and count == 2**levels - 1 == len(nodes), "a search tree has lost nodes")
    _hold(
        (nodes["idx_start"] >= 0).all()
        and (nodes["idx_start"] <= nodes["idx_end"]).all()
        and (nodes["idx_end"] <= rows).all(),
        "a node of a search tree holds points that there are not",
    )
    _hold(nodes["is_leaf"][count // 2 :].all(), "a search tree goes on below its last level")
    _hold(bounds.shape[1] == count and bounds.shape[2] == width, "a search tree has lost bounds")
    _hold(
        any([kind.__name__.startswith("DistanceMetric") for kind in type(metric).__mro__]),
        "a search tree has no metric",
    )
    vector = metric.__getstate__()[1]
    _hold(len(vector) in (0, 1, width), "the metric of a search tree is of other points")
    _hold(weight is None or len(weight) == rows, "a search tree has lost weights")


def _check_svm(held: Dict[str, Any]) -> None:
    vectors = held["support_vectors_"]
    count = vectors.shape[0]
    support, dual = held["support_"], held.get("_dual_coef_", held["dual_coef_"])
    per_class: Any = held.get("_n_support", held.get("n_support_"))
    classes = max(len(per_class), 2)
    pairs = classes * (classes - 1) // 2
    intercept = held.get("_intercept_", held["intercept_"])
    _hold(len(support) == count, "a support vector machine has lost vectors")
    _hold(dual.shape == (classes - 1, count), "a support vector machine has lost coefficients")
    _hold(len(intercept) >= pairs, "a support vector machine has lost intercepts")
    if len(held.get("classes_", ())) > 0:
        _hold((per_class >= 0).all() and per_class.sum() == count, "a support vector machine counts wrong")
    for name in ("_probA", "_probB"):
        _hold(len(held.get(name, ())) in (0, pairs), "a support vector machine has lost probabilities")


def _check_sparse(matrix: Any) -> None:
    matrix.check_format(full_check=True)


def _check_spline(spline: Any) -> None:
    degree, knots = spline.k, spline.t
    _hold(
        _whole(degree) and degree >= 0 and knots.ndim == 1 and len(knots) >= 2 * degree + 2, "a spline has lost knots"
    )
    _hold(len(spline.c) >= len(knots) - degree - 1, "a spline has lost coefficients")
    _hold((knots[1:] >= knots[:-1]).all(), "the knots of a spline are out of order")


def _check_random(source: Any) -> None:
    state = source.get_state(legacy=False) if hasattr(source, "get_state") else source.bit_generator.state
    if state.get("bit_generator") == "MT19937":
        _hold(0 <= state["state"]["pos"] <= 624, "a source of random numbers points outside of itself")


_CHECKS: Dict[str, Callable[[Any], None]] = {
    "Tree": _check_tree,
    "TreePredictor": _check_predictor,
    **dict.fromkeys(("KDTree", "KDTree32", "KDTree64", "BallTree", "BallTree32", "BallTree64"), _check_search_tree),
    **dict.fromkeys(("csr_matrix", "csc_matrix", "csr_array", "csc_array"), _check_sparse),
    **dict.fromkeys(("BSpline", "_BSpline"), _check_spline),
    **dict.fromkeys(("RandomState", "Generator"), _check_random),
}
CHECKED: Tuple[str, ...] = tuple(_CHECKS)
