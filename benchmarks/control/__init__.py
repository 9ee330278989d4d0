"""Policy gradient, TRPO and PPO on Gymnasium's environments."""
