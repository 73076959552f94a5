"""Retrainings that people asked for. Pure but for what the ledger knows of them."""

from dataclasses import replace

from driftloop.errors import BadRequest
from driftloop.loop.notices import OF_DATA, OF_QUARANTINE, OF_ROLLOUT
from driftloop.loop.watch import order
from driftloop.ports import Ledger
from driftloop.records import (
    Act,
    Acted,
    Decided,
    Failed,
    Gated,
    Grouped,
    ModelId,
    Order,
    Ordered,
)
from driftloop.spec import Fleet

ASKED = "asked/"
"""How the key of an order begins that somebody asked for by a button or on the command line."""
LOOKED_BACK = 500
"""So many acts are looked back on."""


def wanted(fleet: Fleet, ledger: Ledger) -> tuple[Order, ...]:
    """Return the orders that people asked for and nobody has begun, oldest first.

    Neither cooldown nor budget holds them back; quarantine and gate hold for them as for all.
    One whose model is being renewed, or has a rollout under way, waits; one whose incident has
    recovered by itself meanwhile is dropped.
    """
    asked = {
        asked_key(act, model): (act, model)
        for act in ledger.facts(Acted, last=LOOKED_BACK)
        if act.act is Act.RETRAIN
        for model in act.models
        if model in fleet.models
    }
    failed = ledger.appended(Failed, asked)
    found: dict[ModelId, Order] = {}
    for key, (act, model) in asked.items():
        newest = ledger.facts(Ordered, model=model, last=1)
        if key in failed or (newest and newest[0].at >= act.at):
            continue  # it was begun, or another after it was asked for
        if hindered(fleet, ledger, model):
            continue
        if (made := _order(fleet, ledger, act, model)) is not None:
            found.setdefault(model, made)
    return tuple(found.values())


def asked_key(act: Acted, model: ModelId) -> str:
    """Return the key of the order for one of the models that somebody wants retrained."""
    return f"{ASKED}{act.key}/{model}"


def hindered(fleet: Fleet, ledger: Ledger, model: ModelId) -> str:
    """Return in words why `model` cannot be retrained now; empty if it can.

    Raises:
        UnknownModel: no monitor declares it.
    """
    try:
        fleet.family(model).need_handover()
    except BadRequest as error:
        return str(error)
    for rollout in ledger.rollouts():
        if rollout.model == model:
            return f"a rollout of version {rollout.version} is under way ({rollout.named})"
    newest = ledger.facts(Ordered, model=model, last=1)
    for each in newest:
        key = each.order.key
        if ledger.fact(Gated, key=key) is None and ledger.fact(Failed, key=key) is None:
            return f"a retraining is under way since {each.at:%Y-%m-%d %H:%M} UTC"
    return ""


def _order(fleet: Fleet, ledger: Ledger, act: Acted, model: ModelId) -> Order | None:
    alerts = [
        fact.alert.removesuffix(OF_DATA)
        for fact in ledger.incident(act.incident)
        if isinstance(fact, Grouped) and fact.model == model
    ]
    last = ledger.facts(Decided, model=model, last=1)
    now = last[0].decision.incident if last else None
    own = [alert for alert in alerts if not alert.startswith((OF_ROLLOUT, OF_QUARANTINE))]
    if own and now not in own:
        return None
    key, reason = asked_key(act, model), f"asked for by {act.who}"
    made = order(fleet.family(model), model, key=key, reason=reason, now=act.at)
    return replace(made, incident=now if own else None)
