"""Films of a policy: `watch` saves one episode as an animated GIF."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv
from numpy.typing import ArrayLike, NDArray

from minirl.batch import Rollout
from minirl.experiments.evaluation import _warn_of_running_statistics
from minirl.policy import Policy, require_fit
from minirl.rollout import collect_episodes, reset_seed
from minirl.support.arguments import check_arguments
from minirl.support.serialization import write_atomically
from minirl.support.validation import described, require_positive, require_seed
from minirl.vector_env import (
    MakeEnv,
    make_vector_env,
    number_from_zero,
    registered_id,
    require_environment_id,
    step_limit,
)

Array = NDArray[np.float64]
Frame = NDArray[np.uint8]

MOST_FRAMES = 250
_CANNOT_RENDER = (
    "{env} can't be rendered: {error}; pip install 'minirl-numpy[render]' installs what Gymnasium "
    "needs for this, and MuJoCo without a screen needs the environment variable MUJOCO_GL=egl"
)


def watch(env: MakeEnv, policy: Policy, path: Path | str, *, seed: int = 0) -> float:
    """Save one greedy episode as an animated GIF, and return the episode's return.

    minirl draws CartPole itself. Other environments render themselves, which needs the `[render]`
    extra.

    Raises
    ------
    ValueError
        If the environment can't render frames, or `env` is not an id.
    """
    require_seed(seed)
    if not isinstance(env, str):
        raise ValueError(f"env must be a Gymnasium id to be rendered, got {described(env)}")
    path = Path(path)
    if path.suffix != ".gif" or not path.parent.is_dir():
        raise ValueError(f"path must be a .gif in a folder that exists, got {str(path)!r}")
    if registered_id(env).startswith("CartPole-"):
        rollout = _one_episode(policy, make_vector_env(env, 1), seed)
        observations = rollout.observations[rollout.valid]
        animate_cartpole(observations, path, title=env)
    else:
        envs = _rendering_env(env)
        rollout = _one_episode(policy, envs, seed)
        base: Any = envs.unwrapped
        save_gif(base.call("render")[0], path, fps=30)  # kept when the environment is closed
    return float((rollout.rewards * rollout.valid).sum())


def _rendering_env(env: str) -> VectorEnv:
    """A vector of one environment, which stores every frame that it renders."""
    require_environment_id(env)
    try:
        plain = gym.make(env)
    except (gym.error.Error, ImportError) as error:
        raise ValueError(f"environment {env!r} can't be made: {error}") from error
    modes = plain.metadata.get("render_modes", [])
    # MuJoCo's runners move out of the picture unless the camera follows them.
    camera: dict[str, Any] = (
        {"camera_name": "track"} if hasattr(plain.unwrapped, "camera_name") else {}
    )
    plain.close()
    if "rgb_array" not in modes:
        raise ValueError(
            f"{env} can't be drawn: rgb_array is not among its render modes, which are {modes}"
        )

    class Drawn(gym.Wrapper[Any, Any, Any, Any]):
        def render(self) -> Any:
            try:
                return super().render()
            except Exception as error:  # each renderer raises its own errors
                raise ValueError(_CANNOT_RENDER.format(env=env, error=error)) from error

    def make() -> gym.Env[Any, Any]:
        single = gym.make(env, render_mode="rgb_array", **camera)
        return gym.wrappers.RenderCollection(Drawn(single), pop_frames=False)

    try:
        return number_from_zero(SyncVectorEnv([make]))
    except (gym.error.Error, ImportError, ValueError, TypeError) as error:
        raise ValueError(_CANNOT_RENDER.format(env=env, error=error)) from error


def _one_episode(policy: Policy, envs: VectorEnv, seed: int) -> Rollout:
    try:
        require_fit(policy, envs.single_observation_space, envs.single_action_space)
        _warn_of_running_statistics(envs)
        return collect_episodes(
            envs, policy, None, None, max_steps=step_limit(envs), seed=reset_seed(seed)
        )
    finally:
        envs.close()


def cartpole_frames(
    observations: ArrayLike, *, title: str = "", stride: int = 1
) -> Iterator[Frame]:
    """Draw CartPole from its observations, every `stride`-th and the last, as RGB pictures.

    Parameters
    ----------
    observations : array_like, shape (T, 4)
        Cart position (m), velocity, pole angle (rad, clockwise from upright) and its velocity;
        row t is the state before step t + 1. The reward is 1 per step, so the number of steps is
        also the return.
    title : str
    stride : int

    Yields
    ------
    array of uint8, shape (H, W, 3)

    Raises
    ------
    ValueError
        If the shape is not (T, 4), or a value is not finite.
    """
    return _drawn_states(_cartpole_states(observations), title, stride)


def _cartpole_states(observations: ArrayLike) -> Array:
    states = np.asarray(observations, dtype=np.float64)
    if states.ndim != 2 or states.shape[1] != 4 or len(states) == 0:
        raise ValueError(f"observations has shape {states.shape}; CartPole's is (T, 4), T >= 1")
    if not np.isfinite(states).all():
        raise ValueError("observations holds values that are not finite")
    return states


def _drawn_states(states: Array, title: str, stride: int) -> Iterator[Frame]:
    from minirl.experiments import figures  # matplotlib is loaded only to draw

    figure = figures._agg_figure(5.6, 2.5, dpi=100)
    canvas: Any = figure.canvas
    cart, wheels, pole, counter = _cartpole_scene(figure, title)
    last = len(states) - 1
    for t in [*range(0, last, stride), last]:
        x, angle = states[t, 0], states[t, 2]
        cart.set_x(x - CART_WIDTH / 2)
        for wheel, offset in zip(wheels, (-0.14, 0.14), strict=True):
            wheel.center = (x + offset, WHEEL_RADIUS)
        tip = x + POLE_LENGTH * np.sin(angle), PIVOT_HEIGHT + POLE_LENGTH * np.cos(angle)
        pole.set_data([x, tip[0]], [PIVOT_HEIGHT, tip[1]])
        counter.set_text(f"step {t + 1}    return {t + 1}")
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


# metres; Gymnasium's pole is 1 m long, the episode ends when the cart leaves +-2.4 m
POLE_LENGTH, CART_WIDTH, CART_HEIGHT, WHEEL_RADIUS, TRACK_LIMIT = 1.0, 0.56, 0.22, 0.08, 2.4
PIVOT_HEIGHT = WHEEL_RADIUS + CART_HEIGHT


def _cartpole_scene(figure: Any, title: str) -> tuple[Any, list[Any], Any, Any]:
    """Draw the track; return cart, wheels, pole and counter, which the caller moves."""
    from matplotlib.patches import Circle, FancyBboxPatch

    from minirl.experiments.figures import BLUE, GREY, INK, VERMILLION, _abbreviate

    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set(xlim=(-2.8, 2.8), ylim=(-0.5, 2.0), aspect="equal")
    axes.axis("off")
    axes.plot([-TRACK_LIMIT, TRACK_LIMIT], [0, 0], color=GREY, linewidth=1.5)
    for x in (-TRACK_LIMIT, 0.0, TRACK_LIMIT):
        axes.plot([x, x], [0, -0.09], color=GREY, linewidth=1.5)
        axes.text(x, -0.17, f"{_abbreviate(x)} m", ha="center", va="top", fontsize=10, color=GREY)
    cart = FancyBboxPatch(
        (0, WHEEL_RADIUS),
        CART_WIDTH,
        CART_HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.05",
        facecolor=BLUE,
        edgecolor="none",
        zorder=3,
    )
    wheels = [Circle((0, 0), WHEEL_RADIUS, color=INK, zorder=4) for _ in range(2)]
    for patch in (cart, *wheels):
        axes.add_patch(patch)
    (pole,) = axes.plot(
        [],
        [],
        color=VERMILLION,
        linewidth=7,
        solid_capstyle="round",
        zorder=5,
        marker="o",
        markersize=5,
        markerfacecolor="white",
        markeredgecolor="none",
        markevery=[0],
    )
    style: dict[str, Any] = {
        "va": "top",
        "color": INK,
        "transform": axes.transAxes,
        "parse_math": False,
    }
    axes.text(0.04, 0.94, title, fontsize=12, fontweight="bold", **style)
    counter = axes.text(0.04, 0.94 - 0.11 * bool(title), "", fontsize=11, **style)
    return cart, wheels, pole, counter


def animate_cartpole(
    observations: ArrayLike, path: str | Path, *, title: str = "", fps: float = 50
) -> None:
    """Save a CartPole episode as an animated GIF in real time, of at most about 250 frames.

    Parameters
    ----------
    observations : array_like, shape (T, 4)
        As for `cartpole_frames`.
    path : path
    title : str
    fps : float
        Environment steps per second; 50 is real time for CartPole. In a long episode only every
        second step, or fewer, is drawn, at the same speed. The last picture is shown for a second.

    Raises
    ------
    ValueError
        If the observations are not CartPole's, or `fps` is not positive.
    """
    require_positive("fps", fps)
    states = _cartpole_states(observations)
    stride = max(1, -(-(len(states) - 1) // MOST_FRAMES))
    frames = list(_drawn_states(states, title, stride))
    rate = fps / stride
    save_gif(frames + [frames[-1]] * round(rate), path, rate)


def save_gif(frames: Iterable[Frame], path: str | Path, fps: float) -> None:
    """Save pictures as a GIF that repeats without end.

    Parameters
    ----------
    frames : sequence of uint8 arrays, shape (H, W, 3)
        RGB, such as those of an environment with `render_mode="rgb_array"`.
    path : path
    fps : float
        Frames per second. A GIF stores durations in hundredths of a second, and viewers show at
        most 50 frames per second.

    Raises
    ------
    ValueError
        If there are no frames, they differ in shape, are not RGB bytes, or `fps` is not positive.
    """
    require_positive("fps", fps)
    from PIL import Image

    pictures = [np.asarray(frame) for frame in frames]
    if not pictures:
        raise ValueError("frames is empty: at least one picture is needed")
    for i, picture in enumerate(pictures):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"frames[{i}] is {picture.dtype} {picture.shape}; uint8 (H, W, 3) is needed"
            )
        if picture.shape != pictures[0].shape:
            raise ValueError(f"frames[{i}] has shape {picture.shape}, not {pictures[0].shape}")
    # One palette for all pictures, made from at most eight of them; otherwise colours flicker.
    sample = pictures[:: -(-len(pictures) // 8)]
    palette = Image.fromarray(np.concatenate(sample)).quantize(255, Image.Quantize.FASTOCTREE)
    images = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in pictures
    ]
    write_atomically(
        path,
        lambda beside: images[0].save(
            beside,
            format="GIF",
            save_all=True,
            append_images=images[1:],
            duration=max(2, round(100 / fps)) * 10,
            loop=0,
        ),
    )


check_arguments(__name__)
