import importlib
import importlib.util

import environments
import gymnasium as gym
import numpy as np
import pytest
from matplotlib import rc_context
from PIL import Image, ImageSequence

import minirl
from minirl.distributions import Categorical
from minirl.envs.chain import RIGHT, RIGHT_PRIZE, Chain
from minirl.experiments import animation, figures
from minirl.experiments.animation import animate_cartpole, cartpole_frames, save_gif, watch
from minirl.experiments.evaluation import evaluate
from minirl.networks import MLP, Table
from minirl.policy import Policy

HAS_PYGAME = importlib.util.find_spec("pygame") is not None


ALWAYS_RIGHT = Policy(Table(5, 2), Categorical, np.tile(np.eye(2)[RIGHT] * 50.0, 5))
# pushing always the same way: the pole falls after 8 to 10 steps
PUSHES = Policy(MLP((4, 2)), Categorical, np.array([0] * 8 + [0, 1], np.float32))


def frames_of(path):
    with Image.open(path) as image:
        return image.format, image.n_frames


def test_cartpole_is_drawn_without_any_extra(tmp_path):
    path = tmp_path / "agent.gif"
    total = watch("CartPole-v1", PUSHES, path, seed=1)
    assert 8 <= total <= 10
    kind, frames = frames_of(path)
    assert kind == "GIF"
    assert total <= frames + 1 <= total + 2  # a frame a step, with or without the last state
    assert [entry.name for entry in tmp_path.iterdir()] == ["agent.gif"]
    # the same episode as the one evaluated
    assert evaluate("CartPole-v1", PUSHES, episodes=1, seed=1).returns[0] == total


@pytest.mark.filterwarnings("ignore:.*latest versioned environment")
@pytest.mark.parametrize("env", ["gymnasium:CartPole-v1", "CartPole"])
def test_cartpole_is_drawn_by_minirl_however_it_is_named(env, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(animation, "animate_cartpole", lambda *_, **__: drawn.append(True))
    watch(env, PUSHES, tmp_path / "agent.gif", seed=1)
    assert drawn == [True]


@pytest.mark.skipif(HAS_PYGAME, reason="pygame is installed, so that Acrobot can be rendered")
def test_without_pygame_the_extra_is_named(tmp_path):
    policy = Policy(MLP((6, 3)), Categorical, np.zeros(21, np.float32))
    with pytest.raises(ValueError, match=r"render.*minirl-numpy\[render\]") as caught:
        watch("Acrobot-v1", policy, tmp_path / "agent.gif")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("env", ["minirl/Chain-v0", "minirl/GridWorld-v0", "minirl/LQR-v0"])
@pytest.mark.filterwarnings("ignore:.*render_mode.*")  # Gymnasium's own
def test_an_environment_without_pictures_says_so(env, tmp_path):
    envs = gym.make_vec(env, num_envs=1)
    spaces = envs.single_observation_space, envs.single_action_space
    envs.close()
    policy = minirl.make_policy(*spaces, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"(?i)render") as caught:
        watch(env, policy, tmp_path / "agent.gif")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class LikeMuJoCo(Chain):
    """Draws what MuJoCo's tasks do: through a camera, with errors of its own kind."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}
    screen, cameras = True, []

    def __init__(self, render_mode=None, camera_name=None):
        super().__init__(slip=0.0)
        self.render_mode, self.camera_name = render_mode, camera_name

    def render(self):
        if not self.screen:
            raise Exception("no OpenGL")
        self.cameras.append(self.camera_name)
        return np.full((10, 10, 3), 40 * len(self.cameras), np.uint8)


@pytest.fixture
def like_mujoco(monkeypatch):
    monkeypatch.setattr(LikeMuJoCo, "cameras", [])
    gym.register("LikeMuJoCo-v0", LikeMuJoCo, max_episode_steps=20)
    yield LikeMuJoCo
    del gym.registry["LikeMuJoCo-v0"]


def test_an_environment_that_draws_itself_becomes_a_gif(like_mujoco, tmp_path):
    assert watch("LikeMuJoCo-v0", ALWAYS_RIGHT, tmp_path / "agent.gif") == RIGHT_PRIZE
    assert frames_of(tmp_path / "agent.gif") == ("GIF", len(like_mujoco.cameras))
    assert len(like_mujoco.cameras) in (5, 6)
    assert set(like_mujoco.cameras) == {"track"}  # the camera goes with the runner


@pytest.mark.parametrize(
    ("name", "fault", "words"),
    [
        ("screen", False, r"LikeMuJoCo-v0.*no OpenGL.*MUJOCO_GL=egl"),
        ("render", lambda self: int("no picture"), r"can't be rendered.*no picture"),
    ],
)
def test_a_renderer_s_own_error_is_told_in_one_line(
    name, fault, words, like_mujoco, monkeypatch, tmp_path
):
    monkeypatch.setattr(like_mujoco, name, fault)
    with pytest.raises(ValueError, match=words):
        watch("LikeMuJoCo-v0", ALWAYS_RIGHT, tmp_path / "agent.gif")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_environment_names_its_place(like_mujoco, monkeypatch, tmp_path):
    monkeypatch.setattr(like_mujoco, "step", lambda self, action: 1 // 0)
    words = r"environment 0 failed at its step 0: ZeroDivisionError: .*test_animation.py, line \d"
    with pytest.raises(minirl.EnvironmentFailure, match=words) as caught:
        watch("LikeMuJoCo-v0", ALWAYS_RIGHT, tmp_path / "agent.gif")
    assert type(caught.value.__cause__) is ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_an_error_while_stepping_cartpole_is_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(animation, "collect_episodes", lambda *_, **__: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        watch("CartPole-v1", PUSHES, tmp_path / "agent.gif")
    with pytest.raises(ValueError, match="env must be a Gymnasium id"):
        watch(environments.steady, ALWAYS_RIGHT, tmp_path / "agent.gif")


def colored(frame, color):
    rgb = list(bytes.fromhex(color[1:]))
    return np.nonzero((frame == rgb).all(axis=-1))


def test_the_cart_moves_right_with_x_and_the_pole_leans_right_with_the_angle():
    states = np.zeros((3, 4))
    states[1, 0] = 1.0
    states[2, 2] = 0.2
    upright, moved, leaning = cartpole_frames(states)
    assert upright.dtype == np.uint8
    assert upright.shape[2] == 3
    metre = upright.shape[1] / 5.6
    shift = colored(moved, figures.BLUE)[1].mean() - colored(upright, figures.BLUE)[1].mean()
    assert shift == pytest.approx(metre, abs=1.0)
    rows, columns = colored(leaning, figures.VERMILLION)
    lean = columns[rows == rows.min()].mean() - columns[rows == rows.max()].mean()
    rise = rows.max() - rows.min()
    assert lean / rise == pytest.approx(np.tan(0.2), abs=0.05)
    np.testing.assert_array_equal(
        colored(leaning, figures.BLUE)[1].min(), colored(upright, figures.BLUE)[1].min()
    )


def test_stride_keeps_the_last_state():
    states = np.zeros((8, 4))
    states[7, 0] = 2.0
    frames = list(cartpole_frames(states, stride=3))  # 0, 3, 6 and 7
    assert len(frames) == 4
    np.testing.assert_array_equal(frames[-1], list(cartpole_frames(states))[-1])


def test_a_readers_layout_changes_no_picture():
    states = np.zeros((1, 4))
    (plain,) = cartpole_frames(states)
    with rc_context({"figure.constrained_layout.use": True}):
        (styled,) = cartpole_frames(states)
    np.testing.assert_array_equal(styled, plain)


def test_animation_has_a_frame_a_step_and_stands_still_at_the_end(tmp_path):
    path = tmp_path / "agent.gif"
    animate_cartpole(np.zeros((6, 4)), path, title="ppo", fps=50)
    with Image.open(path) as image:
        assert (image.format, image.info["loop"]) == ("GIF", 0)
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(image)]
        assert durations == [20] * 5 + [20 + 1000]
        assert min(image.convert("RGB").getpixel((0, 0))) >= 254  # white stays white
    assert list(tmp_path.iterdir()) == [path]


def test_long_episodes_show_fewer_frames_at_the_same_pace(tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "MOST_FRAMES", 10)
    animate_cartpole(np.zeros((22, 4)), tmp_path / "agent.gif", fps=30)  # every third of 21 steps
    with Image.open(tmp_path / "agent.gif") as image:
        assert image.n_frames == 8
        assert image.info["duration"] == 100


def test_save_gif_keeps_the_pictures(tmp_path):
    colors = [(255, 0, 0), (0, 0, 255), (0, 128, 0)]
    frames = [np.full((20, 30, 3), color, dtype=np.uint8) for color in colors]
    save_gif(frames, tmp_path / "a.gif", fps=10)
    with Image.open(tmp_path / "a.gif") as image:
        assert (image.n_frames, image.size, image.info["duration"]) == (3, (30, 20), 100)
        for i, frame in enumerate(frames):
            image.seek(i)
            shown = np.asarray(image.convert("RGB")).astype(int)
            assert np.abs(shown - frame).max() <= 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.gif"]


RED = np.zeros((4, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("frames", "fps", "message"),
    [
        ([], 10, "frames is empty"),
        ([RED, RED[:2]], 10, r"frames\[1\] has shape \(2, 4, 3\), not \(4, 4, 3\)"),
        ([RED.astype(float)], 10, r"frames\[0\] is float64"),
        ([RED[..., 0]], 10, r"frames\[0\] is uint8 \(4, 4\)"),
        ([RED], 0, "fps must be a finite number above 0, got 0"),
        ([RED], float("nan"), "fps must be a finite number above 0, got nan"),
    ],
)
def test_save_gif_names_what_is_wrong(frames, fps, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        save_gif(frames, tmp_path / "a.gif", fps)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("observations", "message"),
    [
        (np.zeros((0, 4)), r"observations has shape \(0, 4\)"),
        (np.zeros((5, 3)), r"observations has shape \(5, 3\)"),
        (0.0, r"observations has shape \(\)"),
        ([[0.0, 0.0, float("nan"), 0.0]], "not finite"),
    ],
)
def test_cartpole_names_what_is_wrong(observations, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        cartpole_frames(observations)
    with pytest.raises(ValueError, match=message):
        animate_cartpole(observations, tmp_path / "a.gif")
