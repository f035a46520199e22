"""Why episodes fail in every simulation; each has reasons of its own beside these (`FAILURES` of its module)."""

from __future__ import annotations

DIVERGED = "diverged"
ACTION_NOT_FINITE = "action_not_finite"
WORKER_DIED = "worker_died"

SHARED = {
    DIVERGED: "the simulation became unstable: MuJoCo warned, or a state was not finite",
    ACTION_NOT_FINITE: "the policy returned an action with NaN or infinity",
    WORKER_DIED: "the processes that ran it died: the simulator crashed, or memory was short",
}
"""By name, what it means."""
