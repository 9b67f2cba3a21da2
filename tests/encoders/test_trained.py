"""Trained encoders: points and circuits, and the folders they are kept in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import qas.encoders
from qas.circuits import Circuit
from qas.encoders.autoencoder import build_model
from qas.encoders.graphs import GraphEncoding, load_encoding
from qas.encoders.pools.spaces import PADDING, CircuitSpace
from qas.encoders.published import Parts, read_parts
from qas.encoders.trained import TrainedEncoder, list_encoders, load_encoder
from qas.errors import CircuitError, QasError, UnknownNameError

SPACE = CircuitSpace(3, max_gates=5, min_gates=2)
READS = {"gvae": "ports", "url-v1": "gsqas", "url-v3": "signed"}


def untrained(model: str = "gvae", space: CircuitSpace = SPACE) -> TrainedEncoder:
    graphs = load_encoding(READS[model], space)
    assert isinstance(graphs, GraphEncoding)
    sizes = {"d": 4, "width": 16} if model == "gvae" else {"d": 4}
    return TrainedEncoder(space, build_model(model, graphs, torch.Generator().manual_seed(0), sizes), {"seed": 0})


def rows(size: int = 20) -> np.ndarray:
    return SPACE.sample(size, np.random.default_rng(0))


# ---------------------------------------------------------------------- circuits to points
@pytest.mark.parametrize("model", READS)
def test_latents_and_embeddings(model: str) -> None:
    encoder = untrained(model)
    z = encoder.latents(rows())
    assert z.shape == (20, encoder.n_latents, encoder.d) == (20, 5 if model == "gvae" else 7, 4)
    assert z.dtype == np.float32
    np.testing.assert_array_equal(encoder.embed(rows()), z.mean(axis=1))
    circuits = [SPACE.circuit(row) for row in rows()]
    np.testing.assert_allclose(encoder.embed_circuits(circuits), encoder.embed(rows()), atol=1e-6)
    assert encoder.embed_circuits([]).shape == (0, 4)
    with pytest.raises(CircuitError, match="the gates are"):
        encoder.embed_circuits([Circuit(3, [("t", 0)])])


def test_order_of_commuting_gates_does_not_matter() -> None:
    encoder = untrained()
    one = Circuit(3, [("h", 0), ("x", 1), ("swap", (1, 2))])
    other = Circuit(3, [("x", 1), ("swap", (2, 1)), ("h", 0)])
    np.testing.assert_array_equal(encoder.embed_circuits([one]), encoder.embed_circuits([other]))


# ---------------------------------------------------------------------- points to circuits
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 1e-300, 1e-3, 1.0, 30.0, 1e6, 1e300]))
def test_every_latent_is_a_circuit_of_the_space(seed: int, scale: float) -> None:
    encoder = untrained()
    z = scale * np.random.default_rng(seed).standard_normal((4, 5, 4))
    for row in encoder.decode(z):
        circuit = SPACE.circuit(row)
        assert (SPACE.row(circuit) == row).all()
        assert SPACE.min_gates <= len(circuit) <= SPACE.max_gates
    for row in encoder.decode(z, coupling=[(1, 0)]):
        assert all(set(g.qubits) <= {0, 1} for g in SPACE.circuit(row) if len(g.qubits) == 2)


@pytest.mark.parametrize(
    ("latents", "message"),
    [
        (np.zeros((2, 5, 3)), r"latents have the shape \(B, 5, 4\), got \(2, 5, 3\)"),
        (np.zeros((5, 4)), r"latents have the shape"),
        (np.full((1, 5, 4), np.nan), "latents are finite numbers"),
        (np.full((1, 5, 4), -np.inf), "latents are finite numbers"),
        ("z", "latents are an array of numbers, got str"),
    ],
)
def test_wrong_latents(latents: object, message: str) -> None:
    with pytest.raises(QasError, match=message):
        untrained().decode(latents)


def test_wrong_coupling() -> None:
    with pytest.raises(QasError, match="pairs two different qubits of 0..2, got 0-7"):
        untrained().decode(np.zeros((1, 5, 4)), coupling=[(0, 7)])


def test_published_decoders_may_fail_and_say_so() -> None:
    encoder = untrained("url-v1")
    z = 3.0 * np.random.default_rng(0).standard_normal((200, 7, 4))
    found, built = encoder.try_decode(z)
    assert not built.all()
    assert (found[~built] == PADDING).all()
    for row in found[built]:
        assert (SPACE.row(SPACE.circuit(row)) == row).all()
    with pytest.raises(QasError, match="latents of url-v1 may stand for no circuit of the space"):
        encoder.decode(z)


def parts_of(kinds: list[int], qubits: list[list[float]], n_kinds: int) -> Parts:
    return Parts(torch.eye(n_kinds)[kinds][None], torch.tensor([qubits]), torch.zeros(1, len(kinds), len(kinds)))


def test_published_decode_rule() -> None:
    space = CircuitSpace(3, ["h", "cx", "cz"], max_gates=3, max_depth=2)
    everything = np.ones(space.n_tokens, dtype=bool)
    start, h, cx, cz, end = range(5)
    no = [0.5] * 3
    first = [0.2, 0.9, 0.3]  # the largest: 1
    pair = [0.8, 0.9, 0.1]  # the two largest: 1 and 0, the larger first
    ring = [0.9, 0.8, 0.1]

    def read(kinds: list[int], qubits: list[list[float]], signed: bool = False, either: bool = False) -> str | None:
        found, built = read_parts(parts_of(kinds, qubits, 5), space, signed, everything, either)
        return "; ".join(map(str, space.circuit(found[0]).gates)) if built[0] else None

    assert read([start, h, end, h, h], [no, first, no, no, no]) == "h 1"
    assert read([start, end, h, h, h], [no] * 5) == ""
    assert read([start, cx, cz, end, h], [no, ring, pair, no, no]) == "cx 0,1; cz 0,1"
    assert read([start, cx, end, h, h], [no, pair, no, no, no]) is None  # cx 1,0 is not on the ring
    assert read([start, cx, end, h, h], [no, pair, no, no, no], either=True) == "cx 0,1"
    assert read([start, cx, end, h, h], [no, [-0.9, 0.8, 0.1], no, no, no], signed=True) == "cx 0,1"
    assert read([start, h, h, h, end], [no, first, first, first, no]) is None  # too deep
    assert read([start, h, h, h, h], [no, first, no, no, no]) is None  # no END
    assert read([h, h, end, h, h], [no, first, no, no, no]) is None  # no START
    assert read([start, start, end, h, h], [no, first, no, no, no]) is None


# ---------------------------------------------------------------------- files
@pytest.mark.parametrize("model", READS)
def test_saving_and_loading_is_exact(model: str, tmp_path: Path) -> None:
    encoder = untrained(model)
    encoder.module.latent_std.fill_(2.0)
    encoder.metrics = {"exact_match": 0.5}
    folder = encoder.save(tmp_path / "deep" / "folder")
    assert sorted(p.name for p in folder.iterdir()) == ["encoder.json", "weights.safetensors"]
    again = load_encoder(folder)
    assert (again.model, again.encoding, again.d, again.space) == (encoder.model, encoder.encoding, 4, SPACE)
    assert (again.settings, again.metrics) == ({"seed": 0}, {"exact_match": 0.5})
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_array_equal(again.latents(rows()), encoder.latents(rows()))
    z = encoder.sample_latents(10, np.random.default_rng(0))
    np.testing.assert_array_equal(again.sample_latents(10, np.random.default_rng(0)), z)
    np.testing.assert_array_equal(again.try_decode(z)[0], encoder.try_decode(z)[0])
    about = json.loads((folder / "encoder.json").read_text())
    assert (about["format"], about["version"], about["weights_sha256"]) == ("qas-encoder", 1, encoder.fingerprint)


def edit(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "encoder.json"
        about = json.loads(path.read_text())
        change(about)
        path.write_text(json.dumps(about))

    return apply


def reweigh(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        import hashlib

        path = folder / "weights.safetensors"
        tensors = load_file(path)
        change(tensors)
        save_file(tensors, path)
        told = hashlib.sha256(path.read_bytes()).hexdigest()
        edit(lambda about: about.update(weights_sha256=told))(folder)

    return apply


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:200]) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "weights.safetensors").unlink(), "the file of weights of the encoder is missing"),
        (lambda f: (f / "encoder.json").unlink(), "the description of the encoder is missing"),
        (cut("weights.safetensors"), "the file of weights of the encoder is cut short or was changed"),
        (cut("encoder.json"), "the description of the encoder is damaged or cut short"),
        (lambda f: (f / "encoder.json").write_text("[]"), "a JSON object of format 'qas-encoder'"),
        (edit(lambda a: a.update(format="other")), "a JSON object of format 'qas-encoder'"),
        (edit(lambda a: a.update(version=2)), "newer version"),
        (edit(lambda a: a.update(version="x")), "a whole number from 1 to 1, got 'x'"),
        (edit(lambda a: a.pop("sizes")), "the description of the encoder lacks sizes"),
        (edit(lambda a: a["space"].pop("gates")), "the description of the encoder lacks space.gates"),
        (edit(lambda a: a.update(encoding="port")), "unknown encoding 'port'"),
        (edit(lambda a: a.update(encoding="layers")), "an encoder reads a graph encoding, got layers"),
        (edit(lambda a: a.update(encoding=["ports"])), "damaged at encoding: str is needed"),
        (edit(lambda a: a.update(model="vae")), "unknown model 'vae'"),
        (edit(lambda a: a.update(model=3)), "damaged at model: str is needed, got 3"),
        (edit(lambda a: a.update(sizes={"colour": 1})), "the sizes do not fit the model gvae"),
        (edit(lambda a: a.update(sizes=[1])), "damaged at sizes"),
        (edit(lambda a: a.update(sizes={"d": "4"})), "d is a whole number from 1 to 100000, got '4'"),
        (edit(lambda a: a.update(sizes={"d": 10**9})), "d is a whole number from 1 to 100000, got 1000000000"),
        (edit(lambda a: a["sizes"].update(beta="much")), "beta is a finite number of at least 0, got 'much'"),
        (edit(lambda a: a.update(weights_sha256="00")), "noted 00…"),
        (reweigh(lambda t: t.pop("mu.weight")), r"the tensor mu.weight has shape \(4, 16\), got none"),
        (
            reweigh(lambda t: t.update(more=np.zeros(2))),
            r"the tensor more has shape none \(no such tensor\), got \(2,\)",
        ),
        (reweigh(lambda t: t.update({"mu.bias": np.zeros(3)})), r"the tensor mu.bias has shape \(4,\), got \(3,\)"),
        (
            reweigh(lambda t: t.update({"mu.bias": np.full(4, np.nan, dtype=np.float32)})),
            r"finite numbers up to 1e\+30, got NaN, infinity or a larger one in mu.bias",
        ),
        (
            reweigh(lambda t: t.update({"mu.bias": np.zeros(4, dtype=np.int64)})),
            "the tensor mu.bias holds float32, got int64",
        ),
    ],
)
def test_every_bad_file_is_one_line(damage: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    folder = untrained().save(tmp_path / "q3")
    damage(folder)
    with pytest.raises(QasError, match=message) as caught:
        load_encoder(folder)
    assert "\n" not in str(caught.value)


def test_finite_weights_that_are_damaged_give_no_numbers(tmp_path: Path) -> None:
    folder = untrained().save(tmp_path / "q3")
    reweigh(lambda tensors: [array.fill(1e29) for array in tensors.values() if array.dtype == np.float32])(folder)
    encoder = load_encoder(folder)
    for use in (
        lambda: encoder.embed(encoder.space.sample(2, np.random.default_rng(0))),
        lambda: encoder.try_decode(np.ones((2, encoder.n_latents, encoder.d))),
    ):
        with pytest.raises(QasError, match="the encoder gives numbers that are not finite: its weights are damaged"):
            use()


def test_names_are_looked_up_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("qas.encoders.trained.SHIPPED", tmp_path / "shipped")
    untrained("url-v1").save(tmp_path / "shipped" / "small")
    assert list_encoders() == ["small"]
    assert load_encoder("small").model == "url-v1"
    untrained("url-v3").save(tmp_path / "encoders" / "small")
    untrained("url-v3").save(tmp_path / "encoders" / "other")
    assert list_encoders() == ["other", "small"]
    assert load_encoder("small").model == "url-v3"
    untrained().save(tmp_path / "small")
    assert load_encoder("small").model == "gvae"
    with pytest.raises(UnknownNameError, match="unknown encoder 'smal'; did you mean 'small'"):
        load_encoder("smal")


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(QasError, match="cannot write"):
        untrained().save(tmp_path / "taken")


def test_lazy_names() -> None:
    assert qas.encoders.load_encoder is load_encoder
    assert qas.encoders.TrainedEncoder is TrainedEncoder
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = qas.encoders.nothing
