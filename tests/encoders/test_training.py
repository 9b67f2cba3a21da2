"""Training and metrics of encoders: the functional profile against dense matrices, hand-made predictions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from qas.encoders.graphs import GraphEncoding, edge_metrics, load_encoding
from qas.encoders.pools.profiles import local_paulis, profiles
from qas.encoders.pools.spaces import CircuitSpace
from qas.encoders.trained import TrainedEncoder
from qas.encoders.training import evaluate_encoder, same_rows, train
from qas.errors import QasError, UnknownNameError
from qas.gates import GATES, PAULI_MATRICES
from qas.simulators.dense import circuit_matrix

SMALL = CircuitSpace(2, ["h", "rx", "cx"], max_gates=3, min_gates=1)


def pool(space: CircuitSpace = SMALL, size: int = 400, seed: int = 0) -> np.ndarray:
    return space.sample(size, np.random.default_rng(seed))


@pytest.fixture(scope="module", autouse=True)
def few_prior_samples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qas.encoders.training.PRIOR_SAMPLES", 500)
        yield


@pytest.fixture(scope="module")
def encoder(few_prior_samples: None) -> TrainedEncoder:
    return train(pool(size=2000), SMALL, epochs=6, batch_size=32, seed=1, sizes={"width": 32, "d": 8})


# ---------------------------------------------------------------------- the functional profile
def test_paulis_come_in_a_fixed_order() -> None:
    letters = ["".join("IXYZ"[a] for a in row) for row in local_paulis(2)]
    assert letters == ["XI", "YI", "ZI", "IX", "IY", "IZ", "XX", "XY", "XZ", "YX", "YY", "YZ", "ZX", "ZY", "ZZ"]
    assert len(local_paulis(4)) == 12 + 54


@pytest.mark.parametrize("name", [name for name in GATES if name != "u"])
def test_profile_against_dense_matrices(name: str) -> None:
    """Every gate between random Clifford gates; three values of an angle make means and mean squares exact."""
    space = CircuitSpace(2, dict.fromkeys(["h", "s", "cx", name]), max_gates=5, max_depth=0, ring=())
    rng = np.random.default_rng(0)
    rows = space.sample(4, rng)
    rows[:, 2] = next(t for t, gate in enumerate(space.placed) if gate.name == name)
    found = profiles(rows, space, rng, walks=1000)
    paulis = [np.kron(PAULI_MATRICES["IXYZ"[b]], PAULI_MATRICES["IXYZ"[a]]) for a, b in local_paulis(2)]
    clifford_or_rotation = name not in ("t", "tdg")  # of others the mean squares are not told
    for row, profile in zip(rows, found, strict=True):
        circuit = space.circuit(row)
        grid = itertools.product(2 * np.pi / 3 * np.arange(3), repeat=circuit.n_angles)
        states = np.stack([circuit_matrix(circuit.with_angles(angles))[:, 0] for angles in grid])
        values = np.stack([np.einsum("si,ij,sj->s", states.conj(), p, states).real for p in paulis], axis=1)
        np.testing.assert_allclose(profile[:15], values.mean(0), atol=1e-6 if clifford_or_rotation else 0.2)
        if clifford_or_rotation:
            np.testing.assert_allclose(profile[15:], (values**2).mean(0), atol=0.2)
        if not circuit.n_angles and clifford_or_rotation:
            np.testing.assert_allclose(profile, np.concatenate([values[0], values[0] ** 2]), atol=1e-6)


# ---------------------------------------------------------------------- training
def test_a_few_seconds_teach_a_small_space(encoder: TrainedEncoder) -> None:
    rows = pool(seed=9)
    assert same_rows(encoder.decode(encoder.latents(rows)), rows).mean() > 0.95
    assert encoder.metrics["exact_match"] > 0.95
    assert encoder.metrics["validity"] == 1.0
    assert encoder.settings["trained_on"] == 1800
    assert encoder.settings["interrupted"] is False
    assert [line["epoch"] for line in encoder.settings["history"]] == [1, 2, 3, 4, 5, 6]
    assert encoder.module.n_profile == 0


@pytest.mark.parametrize("model", ["gvae", "url-v1", "url-v3"])
def test_same_seed_same_weights(model: str) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (train(pool(size=100), SMALL, model=model, epochs=1, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(before, torch.random.get_rng_state())
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.metrics == same.metrics
    assert one.model == model


@pytest.mark.parametrize("model", ["url-v1", "url-v3"])
def test_published_models_learn(model: str) -> None:
    encoder = train(pool(size=1000), SMALL, model=model, epochs=5)
    history = encoder.settings["history"]
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    assert encoder.metrics["qubit_entry_accuracy"] > 0.7
    assert {"exact_match_either_order", "falpos_mean", "validity_labels"} < encoder.metrics.keys()


def test_progress_and_threads_and_default_encodings() -> None:
    told: list[dict[str, Any]] = []
    threads = torch.get_num_threads()
    encoder = train(pool(size=100), SMALL, epochs=2, on_progress=told.append, threads=1, profile_walks=0)
    assert torch.get_num_threads() == threads
    assert [line["epoch"] for line in told] == [1, 2]
    assert {"epochs", "seconds", "loss", "tokens", "kl"} <= told[0].keys()
    assert "profile" not in told[0]
    assert encoder.encoding == "ports"
    assert train(pool(size=40), SMALL, encoding="signed", epochs=1).encoding == "signed"


def test_stopping_keeps_finished_epochs() -> None:
    def stop(line: dict[str, Any]) -> None:
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    encoder = train(pool(size=100), SMALL, epochs=5, on_progress=stop)
    assert encoder.settings["interrupted"] is True
    assert len(encoder.settings["history"]) == 2
    assert encoder.metrics["circuits"] == 10


def test_stopping_in_the_first_epoch_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", stop)
    with pytest.raises(KeyboardInterrupt):
        train(pool(), SMALL, epochs=5)


def test_wrong_arguments() -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'vae'; did you mean 'gvae'"):
        train(pool(), SMALL, model="vae")
    with pytest.raises(UnknownNameError, match="unknown encoding 'port'; did you mean 'ports'"):
        train(pool(), SMALL, encoding="port")
    with pytest.raises(QasError, match="read a graph encoding, got layers"):
        train(pool(), SMALL, encoding="layers")
    with pytest.raises(QasError, match="needs at least 20 circuits, got 3"):
        train(pool(size=3), SMALL)
    with pytest.raises(QasError, match="epochs is a whole number of at least 1, got 0"):
        train(pool(), SMALL, epochs=0)
    with pytest.raises(QasError, match="learning_rate is a finite number above 0, got -0.1"):
        train(pool(), SMALL, learning_rate=-0.1)
    with pytest.raises(QasError, match="seed is a whole number of at least 0, got -1"):
        train(pool(), SMALL, seed=-1)
    with pytest.raises(QasError, match="training diverged in epoch 1"):
        train(pool(), SMALL, model="url-v1", epochs=1, learning_rate=1e30)


# ---------------------------------------------------------------------- metrics
def test_edge_metrics_by_hand() -> None:
    true = np.zeros((1, 4, 4))
    true[0, 0, 1] = true[0, 1, 2] = 1
    true[0, 2, 3] = 2
    predicted = np.zeros((1, 4, 4))
    predicted[0, 0, 1] = 0.9  # right
    predicted[0, 2, 3] = 0.6  # right
    predicted[0, 1, 2] = 0.3  # missed
    predicted[0, 0, 2] = 0.8  # wrong
    predicted[0, 3, 0] = 1.0  # below the diagonal: not counted
    found = edge_metrics(predicted, true)
    assert found["edge_precision"] == pytest.approx(2 / 3)
    assert found["edge_recall"] == pytest.approx(2 / 3)
    assert found["edge_false_positive_rate"] == pytest.approx(1 / 3)  # of 0-2, 0-3 and 1-3
    assert found["adjacency_accuracy"] == pytest.approx(4 / 6)
    assert found["falpos_mean"] == pytest.approx(0.8 / 3)
    assert found["mean_edge"] == pytest.approx(1.8 / 3)


def test_metrics_of_a_decoder_that_is_wrong_in_one_gate(
    encoder: TrainedEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = encoder.space
    token = {(g.name, g.qubits): t for t, g in enumerate(space.placed)}
    true = np.array([[token["h", (0,)], token["cx", (0, 1)], token["rx", (1,)]]] * 2, dtype=np.int16)
    read = true.copy()
    read[1, 2] = token["rx", (0,)]  # right type, wrong qubit, other edges
    monkeypatch.setattr(encoder, "decode_positions", lambda z, coupling=None, **_: (read, np.ones(2, dtype=bool)))
    monkeypatch.setattr("qas.encoders.training._prior_metrics", lambda *_: {})
    found = evaluate_encoder(encoder, true, np.random.default_rng(0))
    assert found["exact_match"] == 0.5
    assert found["gate_accuracy"] == 1.0
    assert found["qubit_accuracy"] == pytest.approx(5 / 6)
    assert found["qubit_entry_accuracy"] == pytest.approx(10 / 12)
    # START-h, START-cx, h-cx, cx-rx, cx-END, rx-END, in both: only the ports differ
    assert found["edge_precision"] == found["edge_recall"] == 1.0


def test_uniqueness_and_novelty(encoder: TrainedEncoder) -> None:
    rng = np.random.default_rng(0)
    everything = SMALL.sample_unique(150, rng)
    found = evaluate_encoder(encoder, pool(), rng, train_rows=everything[:0], prior_samples=500)
    assert found["novelty"] == 1.0
    assert 0 < found["uniqueness"] < 1
    again = evaluate_encoder(encoder, pool(), rng, train_rows=everything, prior_samples=500)
    assert again["novelty"] < found["novelty"]
    assert evaluate_encoder(encoder, pool(), rng, prior_samples=10)["novelty"] is None
    with pytest.raises(QasError, match="at least one circuit"):
        evaluate_encoder(encoder, pool(size=0), rng)


def test_edges_of_the_encodings_agree(encoder: TrainedEncoder) -> None:
    rows = pool()
    for name in ("ports", "signed"):
        graphs = load_encoding(name, SMALL)
        assert isinstance(graphs, GraphEncoding)
        edges = graphs.encode_rows(rows).adjacency.sum(axis=1)
        assert edge_metrics(edges, edges)["edge_precision"] == 1.0
