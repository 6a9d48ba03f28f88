"""The model card: what answers, how good it is, and how that was found out; JSON values."""

from nextbuy.service.live.loaded import LoadedBundle

_OF_TIMING = ("reason", "weights", "learned_until", "spend")


def model_card(loaded: LoadedBundle) -> dict[str, object]:
    """Facts of one version, as they were stored when it was trained."""
    predictor = loaded.predictor
    facts, histories = predictor.facts, predictor.histories
    timing = facts.get("timing") or {}
    evaluation = (facts.get("evaluation") or {}).get(predictor.best_model) or {}
    return {
        "version": loaded.version,
        "created": facts.get("created"),
        "level": predictor.catalog.level,
        "sizes": {
            "items": len(predictor.catalog),
            "users": len(histories),
            "purchases": histories.num_purchases,
        },
        "time_kind": histories.time_kind,
        "basket_kind": loaded.reading.basket_kind,
        "store_sequence": loaded.store_sequence,
        "repeat": predictor.config.repeat,
        "rules": _rules(loaded),
        "model": predictor.best_model,
        "models": [
            {
                "model": row["model"],
                "weight": row.get("weight"),
                "validation": row.get("validation"),
                "test": row.get("test"),
                "intervals": row.get("intervals"),
            }
            for row in facts["leaderboard"]
        ],
        "blend": predictor.blend_in_words or None,
        "limit": facts.get("limit"),
        "protocol": facts.get("protocol"),
        "calibration": evaluation.get("reliability"),
        "skipped": facts.get("skipped") or {},
        "timing": {name: timing.get(name) for name in _OF_TIMING},
        "versions": facts.get("versions"),
    }


def _rules(loaded: LoadedBundle) -> object:
    rules = loaded.predictor.config.rules
    return None if rules is None else rules.model_dump(mode="json")
