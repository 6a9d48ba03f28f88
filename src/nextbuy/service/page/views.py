"""The pages, one method each: what to ask, and which template shows the answer."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from nextbuy.errors import ConfigError, ModelUnavailableError, NextbuyError, StoreError
from nextbuy.service.live.protocol import Answer, Question
from nextbuy.service.page import made_up
from nextbuy.service.page.catalog_search import CatalogSearch
from nextbuy.service.page.customer import customer
from nextbuy.service.page.live_card import live_card_of
from nextbuy.service.page.model_card import card_of
from nextbuy.service.page.pages import HEADERS, Pages, Visitor
from nextbuy.service.page.parts import Counters, PageParts
from nextbuy.service.page.problems import NO_MODEL, problem_of, retry_headers

View = Callable[[Request], Awaitable[Response]]

_LONGEST: Final = 256
_SUGGESTIONS: Final = 200
_UNKNOWN: Final = Counters(purchases=None, predictions=None, sequence=None)


class Views:
    """What visitors see who may read."""

    def __init__(self, parts: PageParts, pages: Pages) -> None:
        self._parts = parts
        self._pages = pages
        self._search = CatalogSearch(parts.catalog)

    def safely(self, view: View) -> View:
        """The view; what it raises on purpose becomes a page that says so."""

        async def guarded(request: Request) -> Response:
            try:
                return await view(request)
            except NextbuyError as error:
                status, problem = problem_of(error)
                query = f"?{request.url.query}" if request.url.query else ""
                return self._pages.problem(
                    problem, status=status, visitor=visitor_of(request),
                    version=self._parts.live.version, headers=retry_headers(error),
                    address=f"{request.url.path}{query}",
                )  # fmt: skip

        return guarded

    async def start(self, request: Request) -> Response:
        """What this is, the search, and the counters."""
        counters, problem = _UNKNOWN, None
        users: Sequence[str] = ()
        try:
            counters = await run_in_threadpool(self._parts.counters)
        except StoreError as error:
            problem = problem_of(error)[1]
        if self._parts.live.version is None:
            problem = problem or NO_MODEL
        else:
            users = await run_in_threadpool(self._parts.examples)
        return self._page(
            request, "start", here="/", counters=counters, problem=problem, some_users=users
        )

    async def counters(self, request: Request) -> Response:
        """The counters alone, for the script."""
        del request
        found = await run_in_threadpool(self._parts.counters)
        shown = {
            "purchases": found.purchases,
            "predictions": found.predictions,
            "sequence": found.sequence,
        }
        return JSONResponse(shown, headers=dict(HEADERS))

    async def items(self, request: Request) -> Response:
        """What the catalog has like some letters, for the script."""
        text = request.query_params.get("q", "")
        found = await run_in_threadpool(self._search.like, text)
        items = [{"item_id": item.item_id, "about": item.about} for item in found]
        return JSONResponse({"items": items}, headers=dict(HEADERS))

    async def user(self, request: Request) -> Response:
        """One customer."""
        user_id = request.query_params.get("id", "")
        if not 0 < len(user_id.encode("utf-8", "surrogatepass")) <= _LONGEST or (
            not user_id.isprintable()
        ):
            raise ConfigError(f"A customer id has 1 to {_LONGEST} bytes and no control characters.")
        dated = self._parts.live.facts().get("time_kind", "dates") == "dates"
        lanes = request.query_params.get("by")
        found = await customer(self._parts.live, user_id, lanes=lanes, dated=dated)
        most = _most(found.answer) if found.answer else 0.0
        return self._page(request, "user", here="/", found=found, most=most, no_model=NO_MODEL)

    async def try_history(self, request: Request) -> Response:
        """The form, and the answer if it was filled in."""
        self._needs_model()
        rows = made_up.rows_of(request.query_params)
        answer, problem, status = None, None, 200
        try:
            answer = await self._answer(rows) if rows else None
        except ConfigError as error:
            status, problem = problem_of(error)
        return self._page(
            request, "try", here="/page/try", status=status, problem=problem, answer=answer,
            most=_most(answer) if answer else 0.0, rows=made_up.shown(rows),
            most_rows=made_up.MOST_ROWS, most_days=made_up.MOST_DAYS, what=self._level(),
            has_platforms=self._search.needs_platform, platforms=self._search.platforms,
            some_items=await run_in_threadpool(self._search.like, "", _SUGGESTIONS),
        )  # fmt: skip

    async def _answer(self, rows: list[made_up.Row]) -> Answer:
        history = await run_in_threadpool(made_up.history_of, rows, self._search, self._parts.now())
        return (await self._parts.live.predict([Question(history=history, explain=True)]))[0]

    async def audience(self, request: Request) -> Response:
        """The form; the script does the rest with the routes for programs."""
        self._needs_model()
        kinds = [
            ("platform", "A platform", self._search.platforms),
            ("category", "A category", self._search.categories),
            ("item", "An item", [""]),
        ]
        return self._page(
            request, "audience", here="/page/audience",
            kinds=[(kind, name) for kind, name, known in kinds if known],
            platforms=self._search.platforms, categories=self._search.categories,
            some_items=await run_in_threadpool(self._search.like, "", _SUGGESTIONS),
        )  # fmt: skip

    async def model(self, request: Request) -> Response:
        """The model card."""
        self._needs_model()
        card = card_of(self._parts.live.facts())
        found = await run_in_threadpool(self._parts.live_quality)
        live = None if found is None else live_card_of(found, self._parts.now())
        return self._page(request, "model", here="/page/model", card=card, live=live)

    def _needs_model(self) -> None:
        if self._parts.live.version is None:
            raise ModelUnavailableError("No bundle is loaded.")

    def _level(self) -> str:
        return str(self._parts.live.facts().get("level") or "item")

    def _page(
        self, request: Request, template: str, *, here: str, status: int = 200, **shown: Any
    ) -> Response:
        return self._pages.page(
            template, visitor=visitor_of(request), version=self._parts.live.version, here=here,
            status=status, **shown,
        )  # fmt: skip


def visitor_of(request: Request) -> Visitor:
    """Who looks: signed in with a key, or anybody where no keys are in use."""
    session = getattr(request.state, "page_session", None)
    if session is not None:
        return Visitor(name=session.identity.name, csrf_token=session.csrf_token)
    return Visitor(csrf_token=getattr(request.state, "page_token", None))


def _most(answer: Answer) -> float:
    return max((offer.probability for offer in answer.offers), default=0.0)
