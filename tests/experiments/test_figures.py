"""Figures and animations: what is drawn, that nothing overlaps, and that files appear whole."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from minirl.experiments import figures
from minirl.experiments.figures import algorithm_styles, plot_comparison, plot_training

NAN = float("nan")
LONG_NOTE = "\n".join(
    f"{name}: " + "8 environments x 256 steps, discount 0.99, lambda 0.95, 64x64 tanh, " * 3
    for name in ("policy-gradient", "trpo", "ppo")
)


def make_run(offset=0.0, cost=1.0, rows=11):
    """A straight learning curve: return = steps / 10 + offset, nan before the first episode."""
    steps = 100.0 * np.arange(1, rows + 1)
    returns = steps / 10 + offset
    returns[0] = NAN
    return {
        "environment_steps": steps,
        "gradient_equivalents": cost * steps,
        "cpu_seconds": steps / 1000,
        "mean_return": returns,
    }


def make_curves(names=("policy-gradient", "trpo", "ppo"), offsets=(0, 1, 2, 3, 100), cost=1.0):
    return {name: [make_run(offset, cost) for offset in offsets] for name in names}


def labelled(axes, name):
    label = figures.LABELS.get(name, name)
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return line


def test_three_labelled_panels_share_the_return_axis():
    figure = plot_comparison(make_curves(), title="CartPole-v1")
    assert [axes.get_xlabel().replace("\n", " ") for axes in figure.axes] == [
        "environment steps",
        "gradient-equivalents (forward + backward of one transition)",
        "CPU seconds (one core)",
    ]
    assert figure.axes[0].get_ylabel() == "mean return of the last 100 episodes"
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["policy gradient", "TRPO", "PPO"]
    assert "5 seeds" in figure.texts[1].get_text()


def test_thin_lines_are_the_seeds_and_the_thick_one_their_interquartile_mean():
    figure = plot_comparison(make_curves(["ppo"]), title="")
    columns = ("environment_steps", "gradient_equivalents", "cpu_seconds")
    for axes, column in zip(figure.axes, columns, strict=True):
        lines = axes.get_lines()
        assert len(lines) == 5 + 1
        for line, offset in zip(lines, (0, 1, 2, 3, 100), strict=False):
            run = make_run(offset)
            np.testing.assert_array_equal(line.get_xdata(), run[column][1:])  # no nan
            np.testing.assert_array_equal(line.get_ydata(), run["mean_return"][1:])
        thick = labelled(axes, "ppo")
        x, y = thick.get_xdata(), thick.get_ydata()
        assert (x[0], x[-1]) == (make_run()[column][1], make_run()[column][-1])
        steps = x * 1000 if column == "cpu_seconds" else x
        np.testing.assert_allclose(y, steps / 10 + 2)  # offsets 1, 2, 3
        assert thick.get_linewidth() > 2 * lines[0].get_linewidth()
        (shade,) = axes.collections
        corners = shade.get_paths()[0].vertices
        assert corners[:, 1].min() >= 20.0
        assert corners[:, 1].max() <= 110.0 + 100.0
        assert corners[:, 1].max() > 110.0 + 3.0  # the lucky seed is in some resamples' middle


def test_a_single_seed_is_just_a_line():
    figure = plot_comparison(make_curves(offsets=(0,)), title="", threshold=None)
    for axes in figure.axes:
        assert len(axes.get_lines()) == 3
        assert not axes.collections
        np.testing.assert_array_equal(
            labelled(axes, "ppo").get_ydata(), make_run()["mean_return"][1:]
        )
    assert "One seed" in figure.texts[1].get_text()


def test_the_threshold_is_dashed_in_every_panel_and_named_once():
    figure = plot_comparison(make_curves(), title="", threshold=-1500.0)
    for axes in figure.axes:
        line = labelled(axes, "threshold")
        assert set(line.get_ydata()) == {-1500.0}
        assert line.is_dashed()
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert words == ["reward\nthreshold\n\N{MINUS SIGN}1.5k"]
    without = plot_comparison(make_curves(), title="")
    assert all(line.get_label() != "threshold" for line in without.axes[0].get_lines())


@pytest.mark.parametrize(
    ("cost", "rows", "scales"),
    [
        (5.0, 11, ["linear", "linear", "linear"]),
        (5.1, 11, ["linear", "log", "linear"]),
        (1.0, 2, ["linear", "log", "log"]),  # environment steps stay linear
    ],
)
def test_effort_is_logarithmic_when_ranges_differ_by_more_than_five(cost, rows, scales):
    curves = {"trpo": [make_run()], "ppo": [make_run(cost=cost, rows=rows)]}
    panels = plot_comparison(curves, title="").axes
    assert [axes.get_xscale() for axes in panels] == scales
    assert [("log scale" in axes.get_xlabel()) for axes in panels] == [s == "log" for s in scales]


def test_what_an_algorithm_does_not_count_or_finish_is_absent():
    own = {key: x for key, x in make_run().items() if key != "gradient_equivalents"}
    figure = plot_comparison({"mine": [own, own]} | make_curves(["ppo"]), title="")
    points = [
        sum(np.isfinite(line.get_xdata()).any() for line in axes.get_lines())
        for axes in figure.axes
    ]
    assert points == [9, 6, 9]
    assert plot_comparison({"mine": [own]}, title="").axes[1].get_xscale() == "linear"
    silent = make_run() | {"mean_return": np.full(11, NAN)}  # no episode has finished
    curves = {"ppo": [silent, make_run()], "trpo": [silent], "mine": [silent, silent]}
    figure = plot_comparison(curves, title="")
    assert len(figure.legends[0].get_texts()) == 3
    assert sum(line.get_xdata().size > 0 for line in figure.axes[0].get_lines()) == 1


def boxes(figure):
    """Boxes in pixels of the parts that must not overlap, from top to bottom."""
    figure.canvas.draw()
    title, aid, note = ([text.get_window_extent()] for text in figure.texts)
    panels = [axes.get_tightbbox() for axes in figure.axes]
    (legend,) = figure.legends
    return [title, aid, [legend.get_window_extent()], panels, note]


@pytest.mark.parametrize(
    ("note", "title", "others"),
    [
        ("short", "short", 0),
        (LONG_NOTE, r"W long $\frac{$ title " * 12, 9),  # not mathematics
        ("unbroken" * 60, "short", 0),
        ("W" * 400, "W" * 400, 0),
    ],
)
def test_nothing_is_cut_off_and_nothing_overlaps(note, title, others):
    names = ["policy-gradient", "trpo", "ppo"] + [f"my-own-algorithm-{i}" for i in range(others)]
    curves = make_curves(names, offsets=(0, -5000))
    figure = plot_comparison(curves, title=title, threshold=-3000, footnote=note)
    rows = boxes(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for box in itertools.chain(*rows):
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    for upper, lower in itertools.pairwise(rows):
        assert min(box.y0 for box in upper) >= max(box.y1 for box in lower)
    for left, right in zip(rows[3], rows[3][1:], strict=False):
        assert left.x1 <= right.x0
    assert "".join(figure.texts[2].get_text().split()) == "".join(note.split())


def test_ticks_are_abbreviated():
    axes = plot_comparison(make_curves(["ppo"]), title="").axes[0]
    values = [0, 0.25, 500, 20_000, 2_500, 1_500_000, 3e9, -500, -20_000]
    wanted = "0 0.25 500 20k 2.5k 1.5M 3G -500 -20k".replace("-", "\N{MINUS SIGN}").split()
    for axis in (axes.xaxis, axes.yaxis):
        assert [axis.get_major_formatter()(value, 0) for value in values] == wanted


def test_styles_are_fixed_for_the_four_and_distinct_and_stable_for_others():
    known = ["policy-gradient", "natural-gradient", "trpo", "ppo"]
    others = [f"mine-{i}" for i in range(9)]
    styles = algorithm_styles(known + others)
    assert len(set(styles.values())) == 13
    assert len({styles[name][0] for name in known}) == len({styles[n][1] for n in known}) == 4
    assert styles == algorithm_styles(known + others)
    for name in known:
        assert algorithm_styles([name])[name] == styles[name]
    # The published check value of CRC-32, 0xCBF43926, is 8 modulo 9.
    assert algorithm_styles(["123456789"]) == {"123456789": figures.OTHER_STYLES[8]}


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        (
            {"ppo": [make_run(), {"mean_return": [1.0]}]},
            r"curves\['ppo'\]\[1\] must have columns .* environment_steps missing",
        ),
        (
            {"ppo": [make_run() | {"cpu_seconds": [1.0]}]},
            r"curves\['ppo'\]\[0\] must .* one length .*, cpu_seconds \(1,\), mean_return \(11,\)",
        ),
        ({"ppo": [{key: [] for key in make_run()}]}, r"at least 1, got environment_steps \(0,\)"),
    ],
)
def test_comparison_names_what_is_wrong(curves, message):
    with pytest.raises(ValueError, match=message):
        plot_comparison(curves, title="")


def training_columns():
    steps = 100.0 * np.arange(1, 12)
    return {
        "environment_steps": steps,
        "mean_return": np.r_[NAN, steps[1:] / 10],
        "kl": np.full(11, 0.01),
        "entropy": np.full(11, NAN),
        "explained_variance": np.linspace(-40, 0.9, 11),
    }


def test_training_draws_episodes_their_mean_and_the_finite_diagnostics():
    columns = training_columns()
    ends, returns = np.array([50.0, 90.0, 300.0]), np.array([-1.0, 4.0, 9.0])
    figure = plot_training(columns, (ends, returns), title="one run", threshold=100.0)
    main, *diagnostics = figure.axes
    np.testing.assert_array_equal(labelled(main, "one episode").get_xdata(), ends)
    np.testing.assert_array_equal(labelled(main, "one episode").get_ydata(), returns)
    mean = labelled(main, "mean of the last 100 episodes")
    np.testing.assert_array_equal(mean.get_xdata(), columns["environment_steps"][1:])
    np.testing.assert_array_equal(mean.get_ydata(), columns["mean_return"][1:])
    assert labelled(main, "threshold").is_dashed()
    assert (main.get_xlabel(), main.get_ylabel()) == ("environment steps", "episode return")
    # entropy is nan throughout, so it has no panel
    titles = [axes.get_title(loc="left") for axes in diagnostics]
    assert titles == ["KL(old || new) (nats)", "explained variance, cut at -1"]
    np.testing.assert_array_equal(diagnostics[0].get_lines()[0].get_ydata(), columns["kl"])
    assert diagnostics[1].get_ylim()[0] == -1.0


def test_training_without_diagnostics_is_one_panel():
    columns = {name: training_columns()[name] for name in ("environment_steps", "mean_return")}
    figure = plot_training(columns, ([], []), title="W long $x_1$ title " * 8)
    assert len(figure.axes) == 1
    figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert box.x1 <= figure.bbox.width
    assert box.y1 <= figure.bbox.height
    assert box.y0 >= figure.axes[0].get_tightbbox().y1


def test_training_names_what_is_wrong():
    columns = training_columns()
    with pytest.raises(ValueError, match="columns must have .* environment_steps missing"):
        plot_training({"kl": [1.0]}, ([], []), title="")
    with pytest.raises(ValueError, match=r"columns must have columns of one length .*, kl \(1,\)"):
        plot_training(columns | {"kl": [1.0]}, ([], []), title="")
    with pytest.raises(ValueError, match=r"same first dimension.* shapes \(2,\) and \(1,\)"):
        plot_training(columns, ([1.0, 2.0], [1.0]), title="")  # Matplotlib's own error


def test_figures_are_saved_as_png_at_150_dots_an_inch(tmp_path):
    for name, draw in {
        "curves.png": lambda path: plot_comparison(make_curves(), title="", path=path),
        "no_suffix": lambda path: plot_training(training_columns(), ([], []), title="", path=path),
    }.items():
        figure = draw(tmp_path / name)
        with Image.open(tmp_path / name) as image:
            assert image.format == "PNG"
            np.testing.assert_allclose(image.size, figure.get_size_inches() * 150, atol=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "no_suffix"]


def test_a_failed_write_leaves_the_old_picture_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"the old picture")

    def half_a_picture(self, beside, **options):
        beside.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half_a_picture)
    with pytest.raises(OSError, match="disk full"):
        plot_comparison(make_curves(), title="", path=path)
    assert path.read_bytes() == b"the old picture"
    assert list(tmp_path.iterdir()) == [path]


def test_drawing_does_not_import_pyplot():
    code = (
        "import sys; from minirl.experiments.figures import algorithm_styles; "
        "algorithm_styles(['ppo']); assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
