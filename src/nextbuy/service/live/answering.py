"""Many questions at once, to one version of a bundle, and one answer each.

Questions that follow the same rules are asked together. The rows of a model depend on one history
each, so that an answer is what it would be alone, but for the rounding of sums.

Legend: U questions, k offers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from nextbuy.data.histories import Float32, Histories, Int32, Int64
from nextbuy.errors import BundleError, ConfigError
from nextbuy.models.protocol import FittedModel, SearchesApart
from nextbuy.predictor.answers import Moment, finder_of, found_offers, reasons
from nextbuy.service.live.beside import ModelBeside
from nextbuy.service.live.loaded import LoadedBundle
from nextbuy.service.live.protocol import Answer, Offer, Question
from nextbuy.service.live.remembering import Remembering, nowhere
from nextbuy.service.live.users import UserHistory, history_of
from nextbuy.splitting.rules import CatalogRules


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Asked:
    """A question and the history that it is about.

    Attributes:
        question: As it was asked.
        history: What was bought before the moment.
        as_of: The moment, UTC microseconds; None where time is only an order.
        after_sequence: Purchases of the store up to this one are known.
    """

    question: Question
    history: UserHistory
    as_of: int | None
    after_sequence: int


def answer_all(
    loaded: LoadedBundle, asked: Sequence[Asked], beside: ModelBeside | None = None
) -> list[Answer]:
    """Answers in the order of the questions, by the process of the model where there is one."""
    answers: list[Answer | None] = [None] * len(asked)
    for places, rules, refusal in _by_rules(loaded, asked):
        some = [asked[place] for place in places]
        if refusal is not None:
            found: Iterable[Answer] = (_answer(loaded, each, (), refusal) for each in some)
        else:
            found = _answers(loaded, some, rules, beside)
        for place, answer in zip(places, found, strict=True):
            answers[place] = answer
    return [answer for answer in answers if answer is not None]


def try_out(loaded: LoadedBundle, moment: int) -> None:
    """Ask a bundle about nobody and about its first user.

    Raises:
        BundleError: If it gives no finite probabilities.
    """
    first = loaded.stored_rows(0 if len(loaded.predictor.histories) else None)
    nobody = history_of(loaded.stored_rows(None), (), loaded)
    someone = history_of(first, (), loaded)
    as_of = moment if loaded.has_dates else None
    try:
        answers = answer_all(
            loaded,
            [
                Asked(question=Question(), history=each, as_of=as_of, after_sequence=0)
                for each in (nobody, someone)
            ],
        )
    except (ValueError, IndexError, KeyError, ConfigError) as error:
        raise BundleError(f"The bundle {loaded.version} cannot answer: {error}.") from error
    for answer in answers:
        total = sum(offer.probability for offer in answer.offers)
        if not (np.isfinite(total) and total <= 1 + 1e-3):
            raise BundleError(
                f"The bundle {loaded.version} answers with probabilities that sum to {total}."
            )


def _by_rules(
    loaded: LoadedBundle, asked: Sequence[Asked]
) -> list[tuple[list[int], CatalogRules | None, str | None]]:
    """Places of the questions that follow the same rules, these, and why they leave nothing."""
    groups: dict[int, tuple[list[int], CatalogRules | None, str | None]] = {}
    refused: dict[str, list[int]] = {}
    for place, each in enumerate(asked):
        try:
            rules = loaded.followed(each.question.rules)
        except ConfigError as error:
            refused.setdefault(str(error), []).append(place)
        else:
            groups.setdefault(id(rules), ([], rules, None))[0].append(place)
    return [*groups.values(), *((places, None, why) for why, places in refused.items())]


def _answers(
    loaded: LoadedBundle,
    asked: Sequence[Asked],
    rules: CatalogRules | None,
    beside: ModelBeside | None,
) -> Iterable[Answer]:
    names = [each.question.user_id or "" for each in asked]
    histories = loaded.histories(names, [each.history.rows for each in asked])
    moments = [each.as_of for each in asked if each.as_of is not None]
    moment = Moment(
        told=np.array(moments, dtype=np.int64) if loaded.has_dates else None,
        assumed=None,
        cadence=loaded.predictor.cadence,
    )
    start = 0
    for some, here, items, values in _found(
        loaded, asked, histories, moment, rules=rules, beside=beside
    ):
        questions = asked[start : start + len(some)]
        start += len(some)
        words = _reasons(questions, some, here, items)
        probabilities = np.exp(values.astype(np.float64)).tolist()
        rows = items.tolist()
        for row, each in enumerate(questions):
            offers = _offers(loaded, each.question.k, rows[row], probabilities[row], words.get(row))
            yield _answer(loaded, each, offers, "" if offers else _why_empty(loaded, each, rules))


def _found(
    loaded: LoadedBundle,
    asked: Sequence[Asked],
    histories: Histories,
    moment: Moment,
    *,
    rules: CatalogRules | None,
    beside: ModelBeside | None,
) -> Iterable[tuple[Histories, Moment, Int32, Float32]]:
    """As `found_offers`, by the process of the model if it can be asked; what was searched for a
    user is remembered."""
    model: FittedModel = loaded.model
    catalog, k = loaded.predictor.catalog, max(each.question.k for each in asked)
    may_ask_again = any(each.question.history is None for each in asked)
    finder = finder_of(model, catalog, has_rules=rules is not None)
    if isinstance(finder, SearchesApart) and may_ask_again:
        users = [each.history for each in asked]
        search = nowhere if beside is None else beside.search
        model = Remembering(finder, users, search)
    elif beside is not None:
        found = beside.offers(histories, moment.told, k, asked[0].question.rules)
        if found is not None:
            return [(histories, moment, *found)]
    return found_offers(model, histories, catalog, moment, k=k, policy=loaded.policy, rules=rules)


def _reasons(
    asked: Sequence[Asked], histories: Histories, moment: Moment, items: Int32
) -> dict[int, list[str]]:
    """Words for each offer of the questions that want them, by row."""
    rows = [row for row, each in enumerate(asked) if each.question.explain]
    if not rows:
        return {}
    wanted: Int64 = np.array(rows, dtype=np.int64)
    here = Moment(
        told=None if moment.told is None else moment.told[wanted],
        assumed=None,
        cadence=moment.cadence,
    )
    words = reasons(histories.take(wanted), items[wanted], here).to_list()
    k = items.shape[1]
    return {row: words[n * k : (n + 1) * k] for n, row in enumerate(rows)}


def _offers(
    loaded: LoadedBundle,
    k: int,
    items: Sequence[int],
    probabilities: Sequence[float],
    words: Sequence[str] | None,
) -> tuple[Offer, ...]:
    """The first k that have any probability; these come first."""
    lookup, offers = loaded.reading.lookup, []
    item_ids, platforms, categories = lookup.item_ids, lookup.platforms, lookup.categories
    for place, (item, probability) in enumerate(zip(items, probabilities, strict=True)):
        if place == k or not probability > 0:
            break
        offers.append(
            Offer(
                item_id=item_ids[item - 1],
                platform=platforms[item - 1],
                category=categories[item - 1],
                probability=probability,
                reason=None if words is None else words[place],
            )
        )
    return tuple(offers)


def _answer(
    loaded: LoadedBundle, asked: Asked, offers: tuple[Offer, ...], why_empty: str
) -> Answer:
    return Answer(
        user_id=asked.question.user_id,
        offers=offers,
        version=loaded.version,
        fallback=not len(asked.history.rows),
        ignored_items=asked.history.ignored,
        reason_empty=None if offers else why_empty,
        after_sequence=asked.after_sequence,
    )


def _why_empty(loaded: LoadedBundle, asked: Asked, rules: CatalogRules | None) -> str:
    allowed = len(loaded.predictor.catalog) if rules is None else int(rules.allowed.sum())
    of_rules = "" if rules is None else " that the rules allow"
    own = len(set(asked.history.rows.items.tolist()))
    return (
        f"Nothing is left to offer: of the {allowed:,} items{of_rules}, the repeat policy "
        f"{loaded.policy} keeps back all that were bought before ({own:,})."
    )
