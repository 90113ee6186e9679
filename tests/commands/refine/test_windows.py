"""Windows with halos: they cover a scene, and give what the whole scene gives."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from crfrnn import Bilateral, Spatial, refine, refine_windows
from crfrnn.commands.refine import windows
from crfrnn.commands.refine.scenes import Scene, each, refined
from crfrnn.commands.refine.windows import bytes_per_pixel, cores_of, halo_of, parse_memory, placed, windows_of
from crfrnn.filtering.kernels import Features
from crfrnn.parameters import CRFParameters
from crfrnn.runtime import memory

SIZE, LABELS = (150, 190), 4


def smooth(seed: int, channels: int) -> np.ndarray:
    """(C, H, W) float32, waves of some 20 pixels with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    waves = [
        np.sin(y / rng.uniform(5, 15) + rng.uniform(0, 9)) + np.cos(x / rng.uniform(5, 15)) for _ in range(channels)
    ]
    return (np.stack(waves) + 0.4 * rng.standard_normal((channels, *SIZE))).astype(np.float32)


IMAGE = 128 + 40 * smooth(0, 3)
P = torch.from_numpy(2 * smooth(1, LABELS)).softmax(0)


def assembled(crf: CRFParameters, core: tuple[int, int], mask=None, workers: int = 1) -> torch.Tensor:
    """The marginals of the whole scene (L, H, W), window by window."""

    def read(rows: slice, columns: slice) -> Scene:
        inside = None if mask is None else mask[rows, columns]
        return Scene(torch.from_numpy(IMAGE)[:, rows, columns], P[:, rows, columns], inside)

    out = torch.full((LABELS, *SIZE), torch.nan)
    windows = windows_of(SIZE, core, halo_of(crf.kernels))
    for window, found in each(lambda one: refined(read, one, crf, "probabilities", 0.0), windows, workers):
        assert found is not None
        out[:, window.rows, window.columns] = found[0]
    return out


class TestPlan:
    @pytest.mark.parametrize("core", [(7, 11), (150, 190), (64, 1), (999, 50)])
    def test_cores_cover_every_pixel_once(self, core):
        times, halo = np.zeros(SIZE, int), (3, 5)
        for window in windows_of(SIZE, core, halo):
            times[window.rows, window.columns] += 1
            seen = np.zeros(SIZE, bool)
            seen[window.seen_rows, window.seen_columns] = True
            for axis, (kept, reach) in enumerate(zip((window.rows, window.columns), halo, strict=True)):
                wanted = np.arange(max(0, kept.start - reach), min(SIZE[axis], kept.stop + reach))
                assert_array_equal(np.flatnonzero(seen.any(axis=1 - axis)), wanted)
            inner = seen[window.seen_rows, window.seen_columns][window.core]
            assert inner.shape == (window.rows.stop - window.rows.start, window.columns.stop - window.columns.start)
        assert_array_equal(times, 1)

    def test_windows_fit_into_the_memory(self):
        for pixels, most in ((1e6, 1), (3e6, 4), (2e5, 16)):
            core, workers = cores_of((20_000, 30_000), (90, 90), pixels, (256, 256), most)
            assert workers * (core[0] + 180) * (core[1] + 180) <= pixels
            assert core[0] >= 64
            assert workers in (1, most)
        assert cores_of((100, 300), (90, 90), 30_000, (1, 1), 4) == ((100, 300), 1)
        assert cores_of((100, 30_000), (90, 90), 1e5, (1, 1), 1)[0][0] >= 64  # a strip that is narrower than its halo

    def test_several_at_a_time_where_halos_allow_it(self):
        assert cores_of((9000, 9000), (30, 30), 4e6, (256, 256), 4)[1] == 4
        assert cores_of((9000, 9000), (480, 480), 4e6, (256, 256), 4)[1] == 1

    def test_too_little(self):
        with pytest.raises(
            ValueError, match=r"^memory: leaves room for a window of 316 x 316 pixels, but the halo has 480"
        ):
            cores_of((9000, 9000), (480, 480), 1e5, (256, 256), 4)

    def test_more_of_everything_takes_more(self):
        kernels = [Bilateral(30, 5), Spatial(3)]
        least = bytes_per_pixel(kernels, 2, 1)
        assert least < bytes_per_pixel(kernels, 2, 4) < bytes_per_pixel(kernels, 30, 4)
        assert bytes_per_pixel([Spatial(3)], 2, 4) < bytes_per_pixel(kernels, 2, 4)

    @pytest.mark.parametrize("text", ["2", "2GB", "2 gb", "1.5GiB", "700MB"])
    def test_memory(self, text):
        assert parse_memory(text) == {"2": 2, "1.5GiB": 1.5e9, "700MB": 7e8}.get(text, 2e9)

    @pytest.mark.parametrize("text", ["", "much", "-1GB", "0GB", "GB", "1e9"])
    def test_no_memory(self, text):
        with pytest.raises(ValueError, match=r"^memory: expected a size such as 2GB"):
            parse_memory(text)


class TestSeams:
    @pytest.mark.parametrize("normalization", ["after", "symmetric"])
    @pytest.mark.parametrize("kernels", [("bilateral:8,30,2", "spatial:2,1"), ("bilateral:4,10,5",), ("spatial:6,2",)])
    def test_labels_are_those_of_the_whole(self, kernels, normalization):
        crf = CRFParameters.of_preset("present", kernels=kernels, normalization=normalization)
        whole = refine(torch.from_numpy(IMAGE), P, kernels=kernels, normalization=normalization, tolerance=0)
        found = assembled(crf, (48, 64))
        assert bool(found.isfinite().all())
        assert float((found.argmax(0) == whole.argmax(0)).float().mean()) > 0.999
        assert float((found - whole).abs().mean()) < 1e-3  # the separable filter is exact to that

    def test_a_window_in_the_middle_has_the_lattice_of_the_whole(self):
        """As positions are those in the scene: with others the lattice lies elsewhere, and errs otherwise."""
        crf = CRFParameters.of_preset("present", kernels=["bilateral:7,30,3"])
        whole = refine(torch.from_numpy(IMAGE), P, kernels=["bilateral:7,30,3"], tolerance=0)
        found, here = assembled(crf, (60, 60)), (slice(60, 120), slice(60, 120))
        apart = (found - whole)[(..., *here)].abs().mean()
        cut = slice(60 - 21, 120 + 21), slice(60 - 21, 120 + 21)
        moved = refine(torch.from_numpy(IMAGE)[(..., *cut)], P[(..., *cut)], kernels=["bilateral:7,30,3"], tolerance=0)
        assert apart < (moved[:, 21:-21, 21:-21] - whole[(..., *here)]).abs().mean() / 20  # 48 measured

    def test_several_at_a_time(self, torch_threads):
        torch_threads(2)
        crf = CRFParameters.of_preset("present")
        one = assembled(crf, (48, 64))
        assert torch.equal(assembled(crf, (48, 64), workers=2), one)

    def test_masks(self):
        crf = CRFParameters.of_preset("present", kernels=["bilateral:5,30,2", "spatial:2,1"])
        mask = torch.from_numpy(smooth(5, 1)[0] > -0.5)
        whole = refine(torch.from_numpy(IMAGE), P, kernels=crf.kernels, mask=mask, tolerance=0)
        found = assembled(crf, (48, 64), mask)
        assert float((found.argmax(0) == whole.argmax(0))[mask].float().mean()) > 0.999


class TestKernels:
    def test_placed(self):
        """On x, y and the bands they are the same kernels as on the bands alone."""
        guide = torch.from_numpy(IMAGE)[None, :, :9, :12]
        y, x = torch.meshgrid(torch.arange(9.0), torch.arange(12.0), indexing="ij")
        whole = torch.cat([torch.stack([x, y])[None], guide], dim=1)
        for kernel in (
            Bilateral(5, 30),
            Bilateral((5.0, 2.0), (30, 20, 10), accuracy=2),
            Bilateral(5, 30, channels=(2, 0), method="exact"),
            Spatial((3.0, 1.5), method="permutohedral"),
            Features((4.0, 5.0, 6.0)),
            Features(4.0, channels=(1,)),
        ):
            moved = placed(kernel, 3)
            assert isinstance(moved, Features)
            assert_array_equal(moved.features(whole), kernel.features(guide))  # type: ignore[attr-defined]
            assert (moved.weight, moved.method, moved.accuracy) == (kernel.weight, kernel.method, kernel.accuracy)
        assert placed(Spatial(3), 3) == Spatial(3)

    def test_halos(self):
        assert halo_of([Spatial(1.5)]) == (5, 5)
        assert halo_of([Bilateral((10.0, 20.0), 5), Spatial(15)]) == (45, 60)
        assert halo_of([Features(3.0)]) == (0, 0)


class TestArrays:
    """`refine_windows`: in and out of arrays, here files that are mapped into memory."""

    @pytest.fixture
    def small_windows(self, monkeypatch) -> None:
        monkeypatch.setattr(windows, "bytes_per_pixel", lambda *_: (2e9 - windows.BEGUN) / 12_000)

    KERNELS = ("bilateral:6,30,2", "spatial:2,1")

    @pytest.mark.usefixtures("small_windows")
    def test_labels_and_marginals_are_those_of_the_whole(self, tmp_path):
        image = np.moveaxis(IMAGE, 0, -1).clip(0, 255).astype(np.uint8)
        for name, values in (("image", image), ("p", P.numpy())):
            np.save(tmp_path / f"{name}.npy", values)
        image, p = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in ("image", "p"))
        whole = refine(np.array(image), P.numpy(), kernels=self.KERNELS)
        labels = np.lib.format.open_memmap(tmp_path / "labels.npy", "w+", np.uint8, SIZE)
        assert refine_windows(image, p, out=labels, kernels=self.KERNELS) is labels
        assert (labels == whole.argmax(0)).mean() > 0.999
        q = refine_windows(image, p, out=np.empty(p.shape, np.float32), kernels=self.KERNELS)
        assert_array_equal(q.argmax(0), labels)
        last = refine_windows(image, np.moveaxis(p, 0, -1), out=np.empty((*SIZE, LABELS)), kernels=self.KERNELS)
        assert_array_equal(np.moveaxis(last, -1, 0), q)

    @pytest.mark.usefixtures("small_windows")
    def test_the_function_takes_windows_where_mapped_arrays_are_larger_than_memory(self, tmp_path, monkeypatch):
        image, mask = np.moveaxis(IMAGE, 0, -1), smooth(5, 1)[0] > -0.5
        np.save(tmp_path / "p.npy", P.numpy().astype(np.float16))
        p = np.load(tmp_path / "p.npy", mmap_mode="r")
        whole = refine(image, p, kernels=self.KERNELS, mask=mask)
        assert not isinstance(whole, np.memmap)
        monkeypatch.setattr(memory, "machine", lambda: 2 * (2e9 - windows.BEGUN))
        monkeypatch.setattr("crfrnn.commands.refine.refine.bytes_per_pixel", windows.bytes_per_pixel)
        assert_array_equal(refine(image, np.array(p), kernels=self.KERNELS, mask=mask), whole)
        q = refine(image, p, kernels=self.KERNELS, mask=mask)
        assert isinstance(q, np.memmap)
        assert q.dtype == np.float16
        assert_array_equal(q[:, ~mask], whole[:, ~mask])
        assert (q.argmax(0) == whole.argmax(0)).mean() > 0.999
        assert (q != whole).any()
        with pytest.raises(ValueError, match=r"^took: is of a whole image, and this one is larger than memory; leave"):
            refine(image, p, took=print)

    def test_one_window_is_the_function(self):
        image = np.moveaxis(IMAGE, 0, -1)
        options = {"kernels": self.KERNELS, "iterations": 3, "spacing": (0.5, 2.0), "accuracy": 2}
        q = refine_windows(image, P.numpy(), out=np.empty(P.shape, np.float32), **options)
        np.testing.assert_allclose(q, refine(image, P.numpy(), **options), atol=1e-5)
        foreground = P[1].numpy()
        q = refine_windows(image, foreground, out=np.empty(SIZE, np.float32), kernels=self.KERNELS)
        np.testing.assert_allclose(q, refine(image, foreground, kernels=self.KERNELS), atol=1e-5)
        mask = np.ones(SIZE, bool)
        mask[:9] = False
        again = refine_windows(
            image, np.where(mask, foreground, -9999), out=np.empty(SIZE, np.float32), mask=mask, kernels=self.KERNELS
        )
        assert np.isnan(again[~mask]).all()
        assert np.isfinite(again[mask]).all()
        q = refine_windows(image, logits=P.log().numpy(), out=np.empty(P.shape, np.float32), standardize=True)
        np.testing.assert_allclose(q, refine(image, logits=P.log().numpy(), standardize=True), atol=1e-5)

    def test_labels_that_do_not_fit(self):
        image, p = np.full((4, 5, 3), 99, np.uint8), np.full((256, 4, 5), 1 / 256, np.float32)
        assert refine_windows(image, p, out=np.empty((4, 5), np.uint8), kernels=self.KERNELS).shape == (4, 5)
        with pytest.raises(ValueError, match="out: uint8 is too small for 256 labels and a mask"):
            refine_windows(image, p, out=np.empty((4, 5), np.uint8), mask=np.ones((4, 5), bool), kernels=self.KERNELS)

    @pytest.mark.usefixtures("small_windows")
    def test_masks(self):
        image, mask = np.moveaxis(IMAGE, 0, -1).copy(), smooth(5, 1)[0] > -0.5
        mask[:80, :80] = False  # whole windows
        image[~mask] = np.nan
        whole = refine(image, P.numpy(), kernels=self.KERNELS, mask=mask).argmax(0)
        labels = refine_windows(image, P.numpy(), out=np.empty(SIZE, np.uint8), kernels=self.KERNELS, mask=mask)
        assert_array_equal(labels == 255, ~mask)
        assert (labels == whole)[mask].mean() > 0.998  # the lattice has no vertices here where nothing counts
        q = refine_windows(image, P.numpy(), out=np.empty(P.shape, np.float32), kernels=self.KERNELS, mask=mask)
        assert_array_equal(np.isnan(q), np.broadcast_to(~mask, q.shape))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (
                {"out": np.empty((9, 9), np.uint8)},
                r"^out: uint8 \(9, 9\), expected whole numbers \(150, 190\) or floats",
            ),
            ({"probabilities": P.numpy()[:, 1:]}, r"^probabilities: shape \(4, 149, 190\) does not fit the image"),
            ({"memory": "601MB", "kernels": ["bilateral:200,5,2"]}, "^memory: leaves room for a window of"),
            ({"kernels": None}, r"^image: counts .* standardize them"),
            ({"image": IMAGE[0, 0]}, r"^image: shape \(190,\)"),
            ({"mask": np.ones((3, 3), bool)}, r"^mask: shape \(3, 3\), expected \(150, 190\)"),
            ({"mask": np.zeros(SIZE, bool), "kernels": None}, "^mask: no pixel that was looked at counts"),
        ],
    )
    def test_refusals(self, changes, message):
        image = np.moveaxis(IMAGE, 0, -1) * 16
        arguments = {"image": image, "probabilities": P.numpy(), "out": np.empty(SIZE, np.uint8)}
        with pytest.raises(ValueError, match=message):
            refine_windows(**arguments | {"kernels": self.KERNELS} | changes)
