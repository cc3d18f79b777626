"""Signatures in how a run of either stage went: its history and its batches."""

from mma_mrnnet.analysis.diagnosis.findings import Finding, note, problem

LEAST_FALL = 0.01  # of the first epoch's loss; a 1 - r that learns nothing stays nearer than that
STILL_RISING = (
    0.005  # in score over the last epoch: about what a seed changes on thousands of clips
)
FALLEN = (
    0.02  # in score after the best epoch: more than epochs differ by chance on thousands of clips
)
LEAST_BATCH = 16  # a correlation over fewer items is mostly noise (see --batch_size)
LEAST_STEPS = 10  # an epoch
CORRELATION_LOSSES = ("pearson", "ccc")


def loss_never_fell(results: dict) -> list[Finding] | None:
    """The training loss of no later epoch lies below the first one's."""
    losses = [row["train_loss"] for row in results["training"]["history"]]
    if len(losses) < 2:
        return None
    if min(losses[1:]) <= losses[0] - LEAST_FALL * abs(losses[0]):
        return []
    return problem(
        f"the training loss never fell: {losses[0]:.3f} in epoch 1, {min(losses[1:]):.3f} at best after it",
        {"first": losses[0], "best_after": min(losses[1:])},
        "Try a --learning_rate ten times higher and ten times lower; if neither learns, check that labels belong to "
        "their items.",
    )


def not_converged(results: dict) -> list[Finding] | None:
    """The last epoch is the best, and by more than chance."""
    scores = [row["score"] for row in results["training"]["history"]]
    if len(scores) < 2 or None in scores:
        return None
    if scores[-1] - max(scores[:-1]) < STILL_RISING:
        return []
    gain = scores[-1] - max(scores[:-1])
    return note(
        f"not converged: the last of {len(scores)} epochs is the best and still {gain:.3f} above those before it "
        f"({scores[-1]:.3f})",
        {"epochs": len(scores), "last": scores[-1], "gain": gain},
        "Train longer: half as many --epochs again, with --patience to stop in time.",
    )


def peaked_early(results: dict) -> list[Finding] | None:
    """The score of validation was best in the first half, and fell while training went on."""
    training = results["training"]
    scores = [row["score"] for row in training["history"]]
    best = training["best_epoch"]
    if None in scores or len(scores) < 2:
        return None
    if len(scores) < 4 or best > len(scores) / 2:
        return []
    last = sum(scores[-2:]) / 2
    if scores[best - 1] - last < FALLEN:
        return []
    return note(
        f"the validation score peaked in epoch {best} of {len(scores)} ({scores[best - 1]:.3f}) and fell to {last:.3f}",
        {"best_epoch": best, "epochs": len(scores), "best": scores[best - 1], "last_two": last},
        "The best epoch was kept; a lower --learning_rate, --dropout or --weight_decay may find a better one.",
    )


def small_batches(results: dict) -> list[Finding] | None:
    """Batches too small for a correlation loss, or few steps an epoch."""
    settings, items = results["arguments"], _training_items(results)
    batch = settings["batch_size"] * results["training"]["processes"]
    found = []
    correlates = results["stage"] == "mma" or settings["intensity_loss"] in CORRELATION_LOSSES
    if correlates and batch < LEAST_BATCH:
        found += problem(
            f"the loss is a correlation over {batch} items a step; below {LEAST_BATCH} it is mostly noise",
            {"batch": batch, "least": LEAST_BATCH},
            f"Give --batch_size {LEAST_BATCH} or more; --micro_batch_size saves the memory.",
        )
    steps = items // batch
    if steps < LEAST_STEPS:
        found += note(
            f"few steps: {steps} an epoch ({items} items in batches of {batch})",
            {"steps_an_epoch": steps, "items": items, "batch": batch},
            "Give more --epochs or a smaller --batch_size, and judge by steps, not by epochs.",
        )
    return found


def _training_items(results: dict) -> int:
    data = results["data"]
    if results["stage"] == "mrnn":
        return sum(count for name, count in data.items() if name.startswith("train_"))
    drawn = data.get("items_an_epoch")
    return sum(corpus["images"] for corpus in drawn.values()) if drawn else data["train"]


SIGNATURES = {
    "the loss fell": loss_never_fell,
    "converged": not_converged,
    "no early peak": peaked_early,
    "batches large enough": small_batches,
}
