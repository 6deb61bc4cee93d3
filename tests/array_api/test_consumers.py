"""Libraries that take any array API object: array_api_compat, SciPy, scikit-learn get tensors and give tensors."""

import subprocess
import sys

import numpy as np
import pytest

import spiral as sp

compat = pytest.importorskip("array_api_compat", reason="array-api-compat is in the test extra")


def test_compat_recognises_the_namespace_and_its_helpers_work():
    x = sp.asarray([[1.0, 2.0]])
    assert compat.array_namespace(x, sp.ones(2)) is sp
    assert compat.is_array_api_obj(x) and not compat.is_numpy_array(x)
    assert compat.device(x) is x.device and compat.size(x) == 2
    assert compat.to_device(x, "cpu") is x
    with pytest.raises(TypeError, match=r"[Mm]ultiple"):
        compat.array_namespace(x, np.ones(2))


SCIPY = """
import numpy as np, spiral as sp
from scipy import stats, special, integrate, ndimage, signal
from scipy.cluster import vq
from scipy.optimize import elementwise, rosen
a = np.random.default_rng(0).normal(size=(30, 4))
x, xs = sp.asarray(a), sp.abs(sp.asarray(a)) + 1.0
def same(got, want):
    assert isinstance(got, sp.Tensor), type(got)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-10, atol=1e-12)
b = np.abs(a) + 1.0
same(stats.zscore(x), stats.zscore(a)); same(stats.skew(x), stats.skew(a)); same(stats.entropy(xs), stats.entropy(b))
same(stats.ttest_ind(x, x + 1.0).pvalue, stats.ttest_ind(a, a + 1.0).pvalue)
same(stats.pearsonr(x[:, 0], x[:, 1]).statistic, stats.pearsonr(a[:, 0], a[:, 1]).statistic)
same(stats.rankdata(x), stats.rankdata(a)); same(stats.quantile(x, 0.5), stats.quantile(a, 0.5))
same(special.erf(x), special.erf(a)); same(special.gammaln(xs), special.gammaln(b))
same(special.logsumexp(x, axis=0), special.logsumexp(a, axis=0)); same(special.softmax(x), special.softmax(a))
same(vq.whiten(x), vq.whiten(a)); same(rosen(x), rosen(a)); same(integrate.trapezoid(x), integrate.trapezoid(a))
same(ndimage.gaussian_filter(x, 1.0), ndimage.gaussian_filter(a, 1.0)); same(signal.detrend(x), signal.detrend(a))
ends = sp.asarray(0.0, dtype=sp.float64), sp.asarray(2.0, dtype=sp.float64)
same(elementwise.find_root(lambda t: t**3 - 2.0, ends).x, 2.0 ** (1 / 3))
same(integrate.tanhsinh(sp.exp, *ends).integral, np.expm1(2.0))
print("done")
"""

SKLEARN = """
import numpy as np, sklearn, spiral as sp
sklearn.set_config(array_api_dispatch=True)
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.metrics import accuracy_score, mean_squared_error
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.preprocessing import LabelEncoder, MinMaxScaler, StandardScaler
rng = np.random.default_rng(0)
a, labels, y = rng.normal(size=(60, 4)), rng.integers(0, 2, 60), rng.normal(size=60)
x, tensor_labels, tensor_y = sp.asarray(a), sp.asarray(labels), sp.asarray(y)
def same(got, want):
    assert isinstance(got, sp.Tensor), type(got)
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-6, atol=1e-8)
for scaler in (StandardScaler(), MinMaxScaler()):
    same(scaler.fit_transform(x), scaler.fit_transform(a))
same(PCA(2, svd_solver="full").fit_transform(x), PCA(2, svd_solver="full").fit_transform(a))
same(Ridge(solver="svd").fit(x, tensor_y).predict(x), Ridge(solver="svd").fit(a, y).predict(a))
model = LinearDiscriminantAnalysis()
same(model.fit(x, tensor_labels).predict(x), model.fit(a, labels).predict(a))
same(LabelEncoder().fit_transform(tensor_labels), labels)
same(rbf_kernel(x), rbf_kernel(a))
assert accuracy_score(tensor_labels, 1 - tensor_labels) == 0.0
assert abs(mean_squared_error(tensor_y, tensor_y + 0.5) - 0.25) < 1e-12
print("done")
"""


@pytest.mark.parametrize(("library", "code"), [("scipy", SCIPY), ("sklearn", SKLEARN)])
def test_library_computes_with_tensors_what_it_computes_with_numpy(library, code):
    pytest.importorskip(library, reason=f"{library} is not installed")
    # SciPy reads its switch when it is imported: a process of its own
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "import os; os.environ['SCIPY_ARRAY_API'] = '1'\n" + code],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.stdout.strip() == "done", run.stderr
