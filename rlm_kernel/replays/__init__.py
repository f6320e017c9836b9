"""A recorded run once more: its scene, its cells, the recorded answers, and what comes out differently."""
